"""Large count matrices that stay where they are stored (a file, or behind dask) and are read some cells at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from aeverse._slots._read import as_counts, find_matrix, in_memory

LARGEST_READ = 10_000_000  # stored entries up to which a matrix is read whole
MOST_ROWS, MOST_ENTRIES = 2048, 1_000_000  # of a block
FIRST_ROWS = 1000  # that show how many entries a dask array has


@dataclass(frozen=True)
class StoredCounts:
    """Raw counts on disk, (cells, genes).

    Parameters
    ----------
    matrix
        Gives cells by slicing.
    edges
        Where blocks of cells that are best read at once begin, and the end of the last one.
    adata, layer
        Where the matrix was found, for messages.
    """

    matrix: Any
    edges: np.ndarray
    adata: Any
    layer: str | None

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return self.matrix.shape

    def __getitem__(self, rows: slice) -> sp.csr_matrix:
        """Checked counts of contiguous cells."""
        return as_counts(in_memory(self.matrix[rows], self.layer), self.adata, self.layer)

    def slices(self) -> list[slice]:
        """The blocks of cells."""
        return [slice(int(a), int(b)) for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)]


def stored_counts(adata, layer: str | None = None) -> StoredCounts | None:
    """The matrix if it is stored by cells and too large to be read whole, else None."""
    matrix = find_matrix(adata, layer)
    n_entries = _n_entries(matrix)
    if n_entries is None or n_entries <= LARGEST_READ:
        return None
    n = matrix.shape[0]
    n_rows = int(np.clip(MOST_ENTRIES * n / n_entries, 1, MOST_ROWS))
    boundaries = (
        np.cumsum(matrix.chunks[0]) if hasattr(matrix, "compute") else np.arange(1, n + 1)
    )  # where it may be cut
    targets = np.arange(n_rows, n, n_rows)
    return StoredCounts(matrix, np.unique([0, *boundaries[np.searchsorted(boundaries, targets)], n]), adata, layer)


def count_blocks(adata, layer: str | None = None) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """Checked counts block by block where they are `stored_counts`, else in one piece, and which cells they are of."""
    counts = stored_counts(adata, layer)
    if counts is None:
        yield slice(0, adata.n_obs), as_counts(in_memory(find_matrix(adata, layer), layer), adata, layer)
        return
    for rows in counts.slices():
        yield rows, counts[rows]


def first_rows(adata, layer: str | None = None) -> sp.csr_matrix | np.ndarray:
    """The matrix in memory or, of one that is `stored_counts`, the first cells, to infer what it holds."""
    matrix = find_matrix(adata, layer)
    return in_memory(matrix if stored_counts(adata, layer) is None else matrix[:FIRST_ROWS], layer)


def _n_entries(matrix: Any) -> int | None:
    """Entries that a matrix on disk stores; None for one that is in memory, or stored by genes."""
    n, p = matrix.shape
    if hasattr(matrix, "to_memory"):  # sparse, on disk
        return int(matrix.group["data"].shape[0]) if matrix.format == "csr" else None
    if hasattr(matrix, "compute"):  # dask
        return round(n * p * _density(matrix[: min(n, FIRST_ROWS, matrix.chunks[0][0])].compute())) if n else 0
    return n * p if type(matrix).__module__.split(".")[0] in ("h5py", "zarr") else None


def _density(block: Any) -> float:
    return block.nnz / max(block.shape[0] * block.shape[1], 1) if sp.issparse(block) else 1.0
