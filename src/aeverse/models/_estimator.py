"""What estimators share: a frozen configuration, one fit or none, a device, a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import pandas as pd
import torch

from aeverse import _runtime, _slots, io
from aeverse._arguments import checked
from aeverse.models._shared._attribution import Attribution
from aeverse.models._shared._reference import QueryGroup, Reference


class Fit(Protocol):
    """All that a fit learned. Its tree holds JSON values, arrays and further trees, nothing else."""

    def to(self, device: torch.device) -> None:
        """Move what is on a device."""

    def placed(self, data: Any, layer: Any) -> Iterator[QueryGroup]:
        """See `Estimator.placed`."""

    def label_source(self, data: Any, labels: Sequence[str], group: QueryGroup, layer: Any) -> Reference:
        """See `Estimator.label_source`."""

    def attributions(
        self, data: Any, groups: pd.Categorical | None, n_top: int, layer: Any, random_state: int
    ) -> tuple[dict[str, Attribution], list[str]]:
        """See `Estimator.attributions`."""

    def tree(self) -> dict[str, Any]:
        """What is kept."""

    @staticmethod
    def check_model(tree: Any) -> None:
        """Raise a ValueError that names the place where a tree is not what `Estimator.save` keeps of such a model."""

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Rebuild from a `tree`."""


FitType = TypeVar("FitType", bound=Fit)
ConfigType = TypeVar("ConfigType", bound=Any)


class Estimator(Generic[ConfigType, FitType]):
    """An estimator is its `config` and, after `fit`, what that learned."""

    fit_class: ClassVar[type[Fit]]

    def __init__(self, config: ConfigType):
        self.config = config
        self._fit: FitType | None = None  # assigned once, at the end of `fit`
        self.saved_with: dict[str, str] | None = None  # versions of the packages that wrote the file it was loaded from

    @property
    def fitted(self) -> FitType:
        """What the last fit learned."""
        if self._fit is None:
            raise RuntimeError(
                f"this {type(self).__name__} is not fitted, or its last fit did not end; call .fit(…) first."
            )
        return self._fit

    @checked
    def to(self, device: str) -> Self:
        """Move a fitted model (one that was loaded, too) to a device.

        Parameters
        ----------
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …

        Returns
        -------
        The estimator itself.
        """
        self.fitted.to(_runtime.resolve_device(device))
        return self

    # ---- what tl.map_query and tl.attribute are made of --------------------------------------------------------
    def placed(self, data: Any, *, layer: Any = None) -> Iterator[QueryGroup]:
        """Embeddings of new samples, and the training samples to compare them with. Parameters as for `encode`."""
        return self.fitted.placed(data, layer)

    def label_source(self, data: Any, labels: Sequence[str], group: QueryGroup, *, layer: Any = None) -> Reference:
        """Other samples to take `labels` (columns of ``obs``) from, coded like a group of new ones."""
        return self.fitted.label_source(data, labels, group, layer)

    @_runtime.one_thread()
    def attributions(
        self,
        data: Any,
        groups: pd.Categorical | None = None,
        *,
        n_top: int = 50,
        layer: Any = None,
        random_state: int = 0,
    ) -> tuple[dict[str, Attribution], list[str]]:
        """Integrated gradients of the embedding's dimensions, or of `groups` of the samples, by modality; names of both."""
        return self.fitted.attributions(data, groups, n_top, layer, random_state)

    # ---- keeping -----------------------------------------------------------------------------------------------
    @checked
    def save(self, path: str | Path) -> None:
        """Write the model to one file (safetensors with a JSON header), which `aeverse.models.load` reads.

        An existing file is replaced. The file also holds the embeddings of training samples and the categorical columns of
        their ``obs``, for `aeverse.tl.map_query`.
        """
        io.save_arrays(path, type(self).__name__, *io.pack({**self._tree(), "versions": _slots.versions()}))

    def record(self) -> dict[str, Any]:
        """What `save` keeps, as ``uns`` of an AnnData can hold it: a header, arrays, and a checksum of both."""
        header, arrays = io.pack(self._tree())
        words = json.dumps(header)
        return {"header": words, "arrays": arrays, "checksum": _slots.checksum(words, arrays)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild a fitted model from a `record`, refusing one that is not whole."""
        try:
            header = str(record["header"])
            arrays = {name: np.asarray(array) for name, array in record["arrays"].items()}
            is_whole = _slots.checksum(header, arrays) == record["checksum"]
        except (KeyError, TypeError, AttributeError, ValueError):
            is_whole = False
        if not is_whole:
            raise ValueError(
                "the record of the model is not as it was written: it was changed, or objects with models of their own "
                "were concatenated. Run the tool again, or pass a model that was saved to a file."
            )
        return cls.from_tree(io.unpack(json.loads(header), arrays))

    def _tree(self) -> dict[str, Any]:
        return {"config": dataclasses.asdict(self.config), "fit": self.fitted.tree()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Rebuild a fitted model from what `save` kept, after checking it."""
        cls.fit_class.check_model(tree)
        model = cls(**tree["config"])
        model._fit = cls.fit_class.from_tree(tree["fit"])  # type: ignore[assignment] # a class variable cannot be FitType
        return model

    def __repr__(self) -> str:
        if self._fit is None:
            changed = [
                f"{field.name}={getattr(self.config, field.name)!r}"
                for field in dataclasses.fields(self.config)
                if getattr(self.config, field.name) != field.default
            ]
            return f"{type(self).__name__}({', '.join(changed)}), not fitted"
        return f"{type(self).__name__}({self._describe()})"

    def _describe(self) -> str:
        """What a fitted model is, in few words."""
        raise NotImplementedError


def from_fit(path: str, doc: str) -> Any:
    """A property of an estimator that reads what its fit learned, at a dotted path."""
    return property(attrgetter(f"fitted.{path}"), doc=doc)
