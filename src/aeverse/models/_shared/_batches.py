"""The batches that a model knows, as one-hot covariates, and what becomes of those that it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aeverse import _runtime, _slots

UNKNOWN = -1  # the code of a batch that the model does not know


@dataclass(frozen=True)
class Batches:
    """Column of ``obs`` and the names of its batches; without a key there are none."""

    key: str | None = None
    names: tuple[str, ...] = ()

    @property
    def known(self) -> list[str] | None:
        """Names of the batches; None for a model without."""
        return None if self.key is None else list(self.names)

    @classmethod
    def read(cls, data, key: str | None) -> tuple[Batches, np.ndarray | None]:
        """The batches of training data, and the position of each sample's batch among them; None without a key."""
        categories = _slots.read_categories(data, key)
        if categories is None:
            return cls(), None
        return cls(key, tuple(str(name) for name in categories.categories)), np.asarray(categories.codes)

    def codes_in(
        self, data, *, may_lack_column: bool = False, treated: str = "taken as of an average batch"
    ) -> np.ndarray | None:
        """Position of each new sample's batch, -1 for those that training did not see; None where the model has no batches.

        Parameters
        ----------
        data
            AnnData or MuData.
        may_lack_column
            Warn, rather than raise, where `data` lack the column.
        treated
            What becomes of samples of unknown batches, for warnings.
        """
        if self.key is None:
            return None
        if may_lack_column and self.key not in data.obs:
            _runtime.warn(f"{self.key!r} is not a column of obs; samples are {treated}.")
            return np.full(data.n_obs, UNKNOWN)
        values = _slots.read_categories(data, self.key)
        assert values is not None
        if unknown := sorted(set(values.categories) - set(self.names)):
            _runtime.warn(f"batches {unknown[:5]} are not known to the model; their samples are {treated}.")
        return self.codes_of(values.astype(str))

    def codes_of(self, names: np.ndarray | None) -> np.ndarray | None:
        """Position of each name; -1 for one that is not known. None for None."""
        return None if names is None else np.asarray(pd.Categorical(names, categories=list(self.names)).codes)

    def code(self, name: str | None) -> int:
        """Position of one batch by its name; -1, the average, for None."""
        if name is None:
            return UNKNOWN
        if name not in self.names:
            raise KeyError(f"batch={name!r} is not known to this model; batches are: {list(self.names) or 'none'}.")
        return self.names.index(name)

    def one_hot(self, codes: np.ndarray | None, *, unknown: float | None = None) -> np.ndarray | None:
        """Covariates, (samples, batches); a row of an unknown batch holds `unknown`, None: the average of all batches."""
        n = len(self.names)
        if codes is None or not n:
            return None
        row = np.full((1, n), 1 / n if unknown is None else unknown, np.float32)
        return np.vstack([np.eye(n, dtype=np.float32), row])[codes]

    def tree(self) -> dict[str, Any]:
        """JSON values."""
        return {"key": self.key, "names": list(self.names)}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Batches:
        """Rebuild from a `tree`."""
        return cls(tree["key"], tuple(tree["names"]))
