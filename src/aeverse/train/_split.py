"""Held-out molecules and entries: the judge of everything that is trained here."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def split_molecules(counts: sp.csr_matrix, p: float, rng: np.random.Generator) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Split every count binomially into a part with a share `p` of the molecules, and the rest."""
    kept = counts.copy()
    kept.data = rng.binomial(counts.data.astype(np.int64), p).astype(np.float32)
    rest = counts.copy()
    rest.data = counts.data - kept.data
    kept.eliminate_zeros()
    rest.eliminate_zeros()
    return kept, rest


def split_entries(x: np.ndarray, p: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split the entries of a dense matrix into a share `p` and the rest, each NaN where the other one has a value."""
    chosen = rng.random(x.shape) < p
    return np.where(chosen, x, np.nan), np.where(chosen, np.nan, x)
