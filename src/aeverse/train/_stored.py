"""Samples that are read from disk while they are used, in blocks of contiguous ones."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from aeverse.nn import Batch, generator_on
from aeverse.train._samples import Samples

BUFFER_BLOCKS = 16  # from all over the data, whose samples are shuffled together


class StoredSamples:
    """Samples on disk, given out as batches like `Samples`; what is in memory does not grow with their number.

    Parameters
    ----------
    read
        Gives the samples of a block, by its number.
    sizes
        Samples in each block.
    subset
        Some of the samples, in memory.
    device
        Where batches go.
    """

    def __init__(
        self,
        read: Callable[[int], Samples],
        sizes: Sequence[int] | np.ndarray,
        *,
        subset: Samples | None = None,
        device: torch.device | str = "cpu",
    ):
        self.read, self.sizes, self.subset, self.device = read, np.asarray(sizes, np.int64), subset, device

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def n_batches(self, size: int) -> int:
        """Number of batches in a pass."""
        return max(1, len(self) // size)

    def mapped(self, function: Callable[[Samples], Samples]) -> StoredSamples:
        """The same samples, with something done to each block after it is read."""
        return StoredSamples(lambda i: function(self.read(i)), self.sizes, device=self.device)

    def parts(self) -> Iterator[tuple[int, Samples]]:
        """All blocks in order, each with the position of its first sample."""
        first = np.concatenate([[0], np.cumsum(self.sizes)])
        for i in range(len(self.sizes)):
            yield int(first[i]), self.read(i)

    def blocks(self, size: int) -> Iterator[tuple[slice, Batch]]:
        """All samples in order."""
        for first, part in self.parts():
            for rows, batch in part.blocks(size):
                yield slice(first + rows.start, first + rows.stop), batch

    def measured(self) -> np.ndarray:
        """Which samples hold anything."""
        return np.concatenate([part.measured() for _, part in self.parts()])

    def some(self, rows: np.ndarray) -> Samples:
        """Some of the samples (positions or booleans), in memory."""
        positions = np.arange(len(self))[rows]
        order = np.argsort(positions, kind="stable")
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        block = np.searchsorted(edges, positions[order], side="right") - 1
        blocks = [
            self.read(int(i)).some(positions[order][block == i] - edges[i])
            for i in (np.unique(block) if len(block) else [0])
        ]
        return joined(blocks).some(np.argsort(order, kind="stable"))

    def shuffled(
        self, rng: np.random.Generator, size: int, generator: torch.Generator | None = None, *, skip: int = 0
    ) -> Iterator[Batch]:
        """Batches without end, as of `Samples`.

        Blocks are read in random order into a buffer of several, and its samples are shuffled. The next buffer is read
        while the present one is used. Buffers of which all batches are skipped are not read.
        """
        on_device = generator_on(self.device, generator)
        for n, n_skipped, coming in self._buffers(rng, size, skip):
            parts = np.array_split(rng.permutation(n), max(1, n // size))[n_skipped:]
            for rows in parts:
                yield dataclasses.replace(coming.result().batch(rows), generator=on_device)

    def _buffers(self, rng: np.random.Generator, size: int, skip: int) -> Iterator[tuple[int, int, Future]]:
        """Of each buffer the samples, the batches to skip, and the reading of it, which is under way."""
        present: tuple[int, int, Future] | None = None
        with ThreadPoolExecutor(1) as reader:
            while True:
                order = rng.permutation(np.flatnonzero(self.sizes))
                for group in np.array_split(order, -(-len(order) // BUFFER_BLOCKS)):
                    n = int(self.sizes[group].sum())
                    n_skipped = min(skip, max(1, n // size))
                    skip -= n_skipped
                    wanted = group if n_skipped < max(1, n // size) else group[:0]
                    following = n, n_skipped, reader.submit(self._buffer, wanted)
                    if present is not None:
                        yield present
                    present = following

    def _buffer(self, blocks: np.ndarray) -> Samples | None:
        return joined([self.read(int(i)) for i in blocks]) if len(blocks) else None


def in_memory(samples: Samples | StoredSamples) -> Samples:
    """The samples or, of those on disk, those that are kept in memory."""
    if isinstance(samples, Samples):
        return samples
    assert samples.subset is not None
    return samples.subset


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples of the same kind one after the other."""
    whole = copy.copy(parts[0])
    whole.data = _stack([part.data for part in parts])
    shared = parts[0].inputs is parts[0].data
    whole.inputs = whole.data if shared else _stack([part.inputs for part in parts])
    whole.library = _stack([part.library for part in parts])
    whole.covariate = _stack([part.covariate for part in parts])
    whole.graph_target = _stack([part.graph_target for part in parts])
    return whole


def _stack(values: Sequence[Any]) -> Any:
    """Matrices or vectors one below the other; None where the samples have none."""
    if values[0] is None:
        return None
    return sp.vstack(values, format="csr") if sp.issparse(values[0]) else np.concatenate(values)
