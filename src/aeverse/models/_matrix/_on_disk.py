"""Counts that stay on disk: statistics in one pass, batches from blocks, and a sample of the cells in memory.

Training sees all cells. What judges it, the dispersions and the units of the embedding come from the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch

from aeverse import _slots
from aeverse.models._matrix._counts import Counts, count_parts
from aeverse.models._matrix._network import NetParts
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._genes import GeneTotals
from aeverse.nn import InputLayer
from aeverse.train import Samples, StoredSamples, split_molecules

SAMPLE_ENTRIES = 100_000_000  # decoded entries of the sample
SAMPLE_CELLS = 5000, 50_000  # cells of the sample: at least, at most

T = TypeVar("T", bound="np.ndarray | None")


@dataclass(frozen=True)
class Split:
    """How molecules are held out, and what one pass over the others found.

    Parameters
    ----------
    share, seed
        Share of the molecules that is held out; each block of cells draws from a generator of its own.
    totals
        Of the molecules that training sees.
    expressed
        Genes with any molecule, (genes,) booleans.
    sample
        Positions of the cells that are kept in memory.
    subset
        Their counts that training sees.
    """

    share: float
    seed: int
    totals: GeneTotals
    expressed: np.ndarray
    sample: np.ndarray
    subset: Counts


@dataclass(frozen=True)
class CountsOnDisk:
    """As `Counts`, of a matrix that is not in memory.

    Parameters
    ----------
    stored
        The matrix.
    likelihood
        ``"nb"`` or ``"poisson"``.
    place
        The user's name of the matrix, for messages.
    rows
        Cells that take part, (cells,) booleans.
    positions
        Columns in the model's order, -1 where one is missing; None: as they are.
    split
        What was found when molecules were held out; None before.
    """

    stored: _slots.StoredCounts
    likelihood: str
    place: str
    rows: np.ndarray = field(repr=False)
    positions: np.ndarray | None = None
    split: Split | None = None

    absent = Counts.absent

    @classmethod
    def of(cls, stored: _slots.StoredCounts, likelihood: str) -> CountsOnDisk:
        """All cells of a matrix."""
        return cls(stored, likelihood, _slots.matrix_name(stored.layer), np.ones(stored.shape[0], bool))

    def __len__(self) -> int:
        return int(self.rows.sum())

    def __getitem__(self, rows: np.ndarray) -> CountsOnDisk:
        mask = np.zeros(len(self.rows), bool)
        mask[np.flatnonzero(self.rows)[rows]] = True
        return replace(self, rows=mask)

    def require_values(self) -> None:
        """Nothing to refuse: a matrix stays on disk only where it stores many counts."""

    def columns(self, positions: np.ndarray | None) -> CountsOnDisk:
        """Columns in another order, empty ones for -1; None: as they are."""
        return replace(self, positions=positions)

    def block(self, i: int) -> Counts:
        """All counts of one block of cells."""
        rows = self.stored.slices()[i]
        counts = Counts(self.stored[rows], self.likelihood, self.place)
        block_rows = self.rows[rows]
        return (counts if block_rows.all() else counts[np.flatnonzero(block_rows)]).columns(self.positions)

    def _halves(self, i: int, share: float, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix, np.ndarray]:
        """Counts of a block that training sees, those held out, and the genes with any."""
        x = self.block(i).x
        training, heldout = split_molecules(x, 1 - share, np.random.default_rng([seed, i]))
        return training, heldout, np.asarray(x.sum(0)).ravel() > 0

    def hold_out(self, share: float, rng: np.random.Generator) -> tuple[CountsOnDisk, sp.csr_matrix]:
        """The counts without a share of the molecules, and these, of the cells in the sample. One pass over the file."""
        seed, n_genes = (
            int(rng.integers(2**63)),
            self.stored.shape[1] if self.positions is None else len(self.positions),
        )
        n_sample = min(len(self), int(np.clip(SAMPLE_ENTRIES // n_genes, *SAMPLE_CELLS)))
        sample = np.sort(rng.permutation(len(self))[:n_sample])
        totals, expressed, first = GeneTotals.empty(n_genes), np.zeros(n_genes, bool), 0
        training_blocks, heldout_blocks = [], []
        for i in range(len(self.stored.slices())):
            training, heldout, block_totals = self._halves(i, share, seed)
            totals.add(training)
            expressed |= block_totals
            sampled = sample[slice(*np.searchsorted(sample, [first, first + training.shape[0]]))] - first
            training_blocks.append(training[sampled])
            heldout_blocks.append(heldout[sampled])
            first += training.shape[0]
        in_memory = Counts(sp.vstack(training_blocks, format="csr"), self.likelihood, self.place)
        split = Split(share, seed, totals, expressed, sample, in_memory)
        return replace(self, split=split), sp.vstack(heldout_blocks, format="csr")

    def choose_inputs(self, n_inputs: int) -> np.ndarray:
        """Genes that the encoder reads where no mask says which."""
        assert self.split is not None
        return self.split.totals.overdispersed(n_inputs)

    def samples(self, inputs: np.ndarray, covariate: np.ndarray | None, device: torch.device) -> StoredSamples:
        """The cells, to be given out as batches; after `hold_out`, with the molecules that training sees.

        `covariate` has a row for each of the cells that take part.
        """
        sizes = np.asarray([self.rows[rows].sum() for rows in self.stored.slices()])
        first, split = np.concatenate([[0], np.cumsum(sizes)]), self.split

        def read(i: int) -> Samples:
            block = self.block(i) if split is None else self._of(self._halves(i, split.share, split.seed)[0])
            return block.samples(inputs, None if covariate is None else covariate[first[i] : first[i + 1]], device)

        in_memory = None if split is None else split.subset.samples(inputs, self.in_memory(covariate), device)
        return StoredSamples(read, sizes, subset=in_memory, device=device)

    def _of(self, x: sp.csr_matrix) -> Counts:
        return Counts(x, self.likelihood, self.place)

    def net_parts(
        self, settings: Settings, training: Samples, whole: Any, input_layer: InputLayer | None = None
    ) -> NetParts:
        """As of `Counts`: totals over all cells, moments of what the encoder reads over the sample."""
        assert self.split is not None
        return count_parts(settings, training, self.split.totals.molecules, self.split.expressed, input_layer)

    def graph_target(self, *_) -> np.ndarray:
        """Not from disk."""
        raise ValueError(
            f"regularizer='graph' needs all counts in memory, and {self.place} is too large to be read whole: load "
            "it (adata.to_memory()), or choose another regularizer."
        )

    def in_memory(self, values: T) -> T:
        """Of values for all cells, those for the sample."""
        assert self.split is not None
        return None if values is None else values[self.split.sample]  # type: ignore[return-value]
