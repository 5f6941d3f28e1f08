"""The features of a model, and where they stand in new data: matched by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aeverse import _runtime

SMALLEST_SHARE = 0.1  # of the features that the encoder reads, which new data must have


@dataclass(frozen=True)
class Features:
    """Names of all features, in the order of the decoder's output, and positions of those that the encoder reads."""

    names: pd.Index
    inputs: np.ndarray

    def positions_in(
        self, names: pd.Index, absent: str, say: Callable[[str], None] = _runtime.warn, *, place: str = ""
    ) -> np.ndarray | None:
        """Position of each feature among other names.

        Parameters
        ----------
        names
            Names of the features of other data.
        absent
            What becomes of features that the data lack, for messages.
        say
            Called with a message where some of the encoder's features are missing.
        place
            What messages begin with: where the features are.

        Returns
        -------
        (features,), -1 for those that the data lack; None where the names are the same in the same order.

        Raises
        ------
        ValueError
            Names are not unique, or fewer than a tenth of the features that the encoder reads are there.
        """
        if names.equals(self.names):
            return None
        if not names.is_unique or not self.names.is_unique:
            raise ValueError(
                "feature names are not unique and differ from the model's; call adata.var_names_make_unique() first."
            )
        positions = names.get_indexer(self.names)
        present = positions[self.inputs] >= 0
        message = f"{place}{present.sum()} of the {len(present)} features that the encoder reads were found"
        if present.mean() < SMALLEST_SHARE:
            expected, names_in_data = list(self.names[self.inputs][:3]), list(names[:3])
            raise ValueError(f"{message}; do the names match? The model has {expected} …, the data {names_in_data} ….")
        if not present.all():
            say(f"{message}; {absent}.")
        return positions

    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {"names": list(self.names), "inputs": self.inputs}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Features:
        """Rebuild from a `tree`."""
        return cls(pd.Index(tree["names"]), tree["inputs"])
