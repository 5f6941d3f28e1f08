"""Mini-batches straight from CSR (or a dense matrix of some features): the whole matrix is never made dense."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch

from aeverse.nn import Batch, SparseRows, generator_on
from aeverse.train._heldout import split_molecules


class Samples:
    """The samples of a data set, given out as batches.

    Parameters
    ----------
    data
        (samples, features), CSR or dense.
    input_features
        Positions of the features that the encoder reads; None: all.
    library
        Library sizes, (samples,), for counts.
    covariate
        Covariates (one-hot categories, numbers), (samples, columns).
    graph_target
        Coordinates that guide the code, (samples, coordinates).
    dense
        Give sparse rows out as dense tensors; the matrix itself stays sparse. Stored NaN are missing entries.
    device
        Where batches go.
    """

    def __init__(
        self,
        data: sp.csr_matrix | np.ndarray,
        *,
        input_features: np.ndarray | None = None,
        library: np.ndarray | None = None,
        covariate: np.ndarray | None = None,
        graph_target: np.ndarray | None = None,
        dense: bool = False,
        device: torch.device | str = "cpu",
    ):
        self.data, self.device = data, device
        self.input_features = input_features
        self.inputs = data if input_features is None else data[:, input_features]
        self.library, self.covariate, self.graph_target, self.dense = library, covariate, graph_target, dense

    def __len__(self) -> int:
        return self.data.shape[0]

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The batch of some rows."""
        x = self._tensor(self.inputs[rows])
        return Batch(
            x=x,
            target=x if self.inputs is self.data else self._tensor(self.data[rows]),
            library=None if self.library is None else self._dense(self.library[rows, None]),
            covariate=None if self.covariate is None else self._dense(self.covariate[rows]),
            graph_target=None if self.graph_target is None else self._dense(self.graph_target[rows]),
        )

    def some(self, rows: np.ndarray) -> Samples:
        """Some of the samples."""
        other = copy.copy(self)
        other.data = self.data[rows]
        other.inputs = other.data if self.inputs is self.data else self.inputs[rows]
        other.library = None if self.library is None else self.library[rows]
        other.covariate = None if self.covariate is None else self.covariate[rows]
        other.graph_target = None if self.graph_target is None else self.graph_target[rows]
        return other

    def with_data(self, data: sp.csr_matrix | np.ndarray) -> Samples:
        """The same samples and inputs, with other data to explain."""
        other = copy.copy(self)
        other.data = data
        return other

    def halves(self, rng: np.random.Generator) -> tuple[Samples, Samples]:
        """The same samples of counts twice, each with a random half of the molecules."""
        first, second = split_molecules(self.data, 0.5, rng)
        return self._with_counts(first), self._with_counts(second)

    def thinned(self, p: float, rng: np.random.Generator) -> Samples:
        """The same samples of counts, each with a random share `p` of the molecules."""
        return self._with_counts(split_molecules(self.data, p, rng)[0])

    def _with_counts(self, counts: sp.csr_matrix) -> Samples:
        other = self.with_data(counts)
        other.inputs = counts if self.input_features is None else counts[:, self.input_features]
        other.library = np.asarray(counts.sum(1), np.float32).ravel()
        return other

    def measured(self) -> np.ndarray:
        """Which samples hold anything: a molecule, or an entry that is not missing."""
        if self.library is not None:
            return self.library > 0
        return np.ones(len(self), bool) if sp.issparse(self.data) else ~np.isnan(self.data).all(1)

    def shuffled(
        self, rng: np.random.Generator, size: int, generator: torch.Generator | None = None, *, skip: int = 0
    ) -> Iterator[Batch]:
        """Batches without end, in a new random order for each pass; a short last batch is spread over the others.

        The batches carry `generator`, from which a net corrupts them and draws codes. The first `skip` are left out: `rng`
        gives what follows them.
        """
        on_device = generator_on(self.device, generator)
        while True:
            parts = np.array_split(rng.permutation(len(self)), self.n_batches(size))
            n_skipped = min(skip, len(parts))
            skip -= n_skipped
            for rows in parts[n_skipped:]:
                yield dataclasses.replace(self.batch(rows), generator=on_device)

    def blocks(self, size: int) -> Iterator[tuple[slice, Batch]]:
        """All rows in order."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.batch(rows)

    def n_batches(self, size: int) -> int:
        """Number of batches in a pass."""
        return max(1, len(self) // size)

    def _tensor(self, values) -> SparseRows | torch.Tensor:
        if sp.issparse(values) and self.dense:
            values = values.toarray()
        if sp.issparse(values):
            return SparseRows.from_scipy(values, self.device)
        return self._dense(values)

    def _dense(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)
