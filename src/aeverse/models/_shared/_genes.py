"""Which genes the encoder reads when the user does not say: those that vary more than counting noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

FEWEST_MOLECULES = 5


@dataclass
class GeneTotals:
    """Sums over cells that say which genes are overdispersed; cells may be added block by block.

    Parameters
    ----------
    molecules
        Of each gene, (genes,).
    squares
        Sum of the squared counts of each gene, each over the cell's library size, (genes,).
    n_cells, inverse_library
        Cells with molecules, and the sum of one over their library sizes.
    """

    molecules: np.ndarray
    squares: np.ndarray
    n_cells: int = 0
    inverse_library: float = 0.0

    @classmethod
    def empty(cls, n_genes: int) -> GeneTotals:
        """Before any cell was added."""
        return cls(np.zeros(n_genes), np.zeros(n_genes))

    def add(self, counts: sp.csr_matrix) -> None:
        """Add some cells."""
        library = np.asarray(counts.sum(1), np.float64).ravel()
        occupied = library > 0
        squares = counts.copy()
        squares.data = counts.data**2 / np.repeat(library, np.diff(counts.indptr))
        self.molecules += np.asarray(counts.sum(0), np.float64).ravel()
        self.squares += np.asarray(squares.sum(0)).ravel()
        self.n_cells += int(occupied.sum())
        self.inverse_library += float((1 / library[occupied]).sum())

    def overdispersed(self, n_genes: int) -> np.ndarray:
        """Positions of the genes whose Pearson statistic exceeds that of a Poisson gene the most, in order."""
        candidates = np.flatnonzero(self.molecules >= FEWEST_MOLECULES)
        if len(candidates) <= n_genes:
            return candidates if len(candidates) else np.arange(len(self.molecules))
        frequency = self.molecules / self.molecules.sum()
        # sum over cells of (x - m)^2 / m with m = library * frequency, from the stored entries alone
        pearson = self.squares / np.maximum(frequency, 1e-300) - self.molecules
        variance = 2 * self.n_cells + self.inverse_library / np.maximum(frequency, 1e-300)
        score = (pearson - self.n_cells) / np.sqrt(variance)
        return np.sort(candidates[np.argsort(-score[candidates], kind="stable")[:n_genes]])


def overdispersed_genes(counts: sp.csr_matrix, n_genes: int) -> np.ndarray:
    """Positions of the genes that vary more than counting noise, at most so many, in order."""
    totals = GeneTotals.empty(counts.shape[1])
    totals.add(counts)
    return totals.overdispersed(n_genes)


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
