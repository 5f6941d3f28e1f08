"""Which genes the encoder reads when the user does not say: those that vary more than counting noise."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

FEWEST_MOLECULES = 5


def overdispersed_genes(counts: sp.csr_matrix, n_genes: int) -> np.ndarray:
    """Positions of the genes whose Pearson statistic exceeds that of a Poisson gene the most, in order."""
    total = np.asarray(counts.sum(0), np.float64).ravel()
    candidates = np.flatnonzero(total >= FEWEST_MOLECULES)
    if len(candidates) <= n_genes:
        return candidates if len(candidates) else np.arange(counts.shape[1])
    library = np.asarray(counts.sum(1), np.float64).ravel()
    frequency = total / total.sum()
    squares = counts.copy()
    squares.data = counts.data**2 / np.repeat(library, np.diff(counts.indptr))
    # sum over cells of (x - m)^2 / m with m = library * frequency, from the stored entries alone
    pearson = np.asarray(squares.sum(0)).ravel() / np.maximum(frequency, 1e-300) - total
    occupied = library > 0
    variance = 2 * occupied.sum() + (1 / library[occupied]).sum() / np.maximum(frequency, 1e-300)
    score = (pearson - occupied.sum()) / np.sqrt(variance)
    return np.sort(candidates[np.argsort(-score[candidates], kind="stable")[:n_genes]])


def log_normalized_moments(
    counts: sp.csr_matrix, library: np.ndarray, median_library: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of ``log1p(counts / library * median_library)`` by gene, without a dense copy."""
    values = counts.copy()
    factor = median_library / np.maximum(library, 1)
    values.data = np.log1p(counts.data * np.repeat(factor, np.diff(counts.indptr)))
    mean = np.asarray(values.mean(0), np.float64).ravel()
    values.data **= 2
    variance = np.asarray(values.mean(0), np.float64).ravel() - mean**2
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 1e-4)).astype(np.float32)
