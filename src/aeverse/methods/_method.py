"""What is known of a method before it is run."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aeverse import _slots
from aeverse.methods._fitted import Fitted


@dataclass(frozen=True)
class Method:
    """A method, called with modalities and their kinds of data, and with options, of which it is handed those it takes.

    Parameters
    ----------
    fit
        The function; its keywords are the options that it takes: ``n_obs``, ``batches`` (codes of ``batch_key``),
        ``n_latent``, ``random_state``, ``progress``.
    reference
        Paper, as `docs/references.rst` has it.
    embeds_new
        Whether it gives new samples a code; if not, it is transductive.
    needs
        Package that pip does not install with aeverse.
    """

    fit: Callable[..., Fitted]
    reference: str
    embeds_new: bool = True
    needs: str | None = None

    @property
    def takes_batches(self) -> bool:
        return "batches" in inspect.signature(self.fit).parameters

    def __call__(self, data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], **options: Any) -> Fitted:
        if self.needs is not None:
            try:
                importlib.import_module(self.needs)
            except ImportError as error:
                name = f"method={self.fit.__name__!r}"
                raise ImportError(f"{name} needs {self.needs}: pip install {self.needs}") from error
        accepted = inspect.signature(self.fit).parameters
        return self.fit(data, kinds, **{name: value for name, value in options.items() if name in accepted})
