"""Denoised values as a dask array, whose blocks are decoded when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aeverse import _runtime
from aeverse.models._matrix._counts import CountNetwork
from aeverse.train import Samples, StoredSamples

CHUNK_BLOCKS = (
    4  # blocks in which the network decodes that make a chunk: whole ones, so that bits are those of a dense layer
)


@dataclass(frozen=True)
class DenoisedValues:
    """Denoised values, (cells, genes), that can be sliced as an array can: what is not asked for is not decoded.

    Parameters
    ----------
    network
        What decodes.
    samples
        The cells. In memory, they are a copy: what becomes of the user's matrix later changes nothing here.
    measured
        Which of the network's genes the data have, (genes,) booleans.
    columns
        Positions of the genes wanted.
    target
        Covariate that all cells are given, as in `CountNetwork.denoise`; None: their own.
    target_sum
        What the values of a cell add up to; None: its library size.
    code
        Embedding of the cells.
    sd
        Give the standard deviations instead.
    """

    network: CountNetwork
    samples: Samples | StoredSamples
    measured: np.ndarray
    columns: np.ndarray
    target: np.ndarray | None
    target_sum: float | None
    code: np.ndarray
    sd: bool = False

    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        return len(self.samples), len(self.columns)

    def __getitem__(self, key: tuple[Any, Any]) -> np.ndarray:
        """Values of some cells (a number, slice or positions) and some genes."""
        cells, genes = key
        rows = np.atleast_1d(np.arange(len(self.samples))[cells])
        columns = np.atleast_1d(self.columns[genes])
        values = self.network.denoise(
            self.samples.some(rows),
            self.measured,
            columns,
            target=self.target,
            target_sum=self.target_sum,
            code=self.code[rows],
            return_sd=self.sd,
        )
        block = values[1] if isinstance(values, tuple) else values
        return block[tuple(0 if isinstance(part, (int, np.integer)) else slice(None) for part in key)]

    def as_dask(self) -> Any:
        """A dask array of these values, in blocks of some cells and all genes."""
        array = _runtime.import_dask_array("lazy=True")
        chunks, meta = (CHUNK_BLOCKS * self.network.block_rows, -1), np.empty((0, 0), self.dtype)
        # a name of its own: dask would otherwise hash the counts to make one
        return array.from_array(self, chunks=chunks, name=False, asarray=False, meta=meta)
