"""Held-out molecules and entries, and the verdict on what a model says of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Deviances:
    """Deviance of what was held out, by feature: from the model's expectation, and from the feature's mean.

    Parameters
    ----------
    model
        Deviance from what the model expects, (features,).
    null
        Deviance from the mean of each feature, (features,).
    heldout
        How many molecules or entries of each feature were held out, (features,).
    """

    model: np.ndarray
    null: np.ndarray
    heldout: np.ndarray

    @property
    def explained(self) -> float:
        """Share of the deviance that the model explains beyond the means, over all features; 0 where there is none."""
        null = self.null.sum()
        return float(1 - self.model.sum() / null) if null > 0 else 0.0

    @property
    def explained_by_feature(self) -> np.ndarray:
        """The same for each feature, NaN where nothing was held out or the mean explains all."""
        varies = self.null > 0
        return np.where(varies & (self.heldout > 0), 1 - self.model / np.where(varies, self.null, 1), np.nan)


def split_molecules(counts: sp.csr_matrix, p: float, rng: np.random.Generator) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Split every count binomially into a part with a share `p` of the molecules, and the rest."""
    training = counts.copy()
    training.data = rng.binomial(np.rint(counts.data).astype(np.int64), p).astype(np.float32)
    heldout = counts.copy()
    heldout.data = counts.data - training.data
    training.eliminate_zeros()
    heldout.eliminate_zeros()
    return training, heldout


def split_entries(x: np.ndarray, p: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split the entries of a dense matrix into a share `p` and the rest, each NaN where the other one has a value."""
    chosen = rng.random(x.shape) < p
    return np.where(chosen, x, np.nan), np.where(chosen, np.nan, x)
