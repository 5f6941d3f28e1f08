"""Sparse mini-batches (`SparseRows`) and the first layer that reads them without making them dense."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from aeverse.nn._special import runs_compiled

with warnings.catch_warnings():
    # torch says once per process that CSR is in beta. Have it say so here, to nobody, instead of to our users.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=False)

# A batch with more than this share of its entries stored is multiplied faster as a dense matrix, if it is no larger.
DENSE_FROM, DENSE_ENTRIES = 0.04, 4_000_000


@dataclass(frozen=True)
class SparseRows:
    """Some rows of a sparse matrix in CSR form: the value ``values[k]`` stands in column ``columns[k]``.

    Row ``i`` owns the entries from ``pointers[i]`` to ``pointers[i + 1]``; no entry is stored twice.
    """

    pointers: Tensor
    columns: Tensor
    values: Tensor
    n_columns: int

    @classmethod
    def from_scipy(cls, matrix: sp.csr_matrix, device: torch.device | str = "cpu", dtype=torch.float32) -> SparseRows:
        """Wrap a scipy CSR matrix."""
        return cls(
            torch.from_numpy(matrix.indptr.astype(np.int64)).to(device),
            torch.from_numpy(matrix.indices.astype(np.int64)).to(device),
            torch.from_numpy(np.asarray(matrix.data)).to(device, dtype),
            matrix.shape[1],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """SparseRows and columns."""
        return len(self.pointers) - 1, self.n_columns

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.values.device

    def row_index(self) -> Tensor:
        """Row of each stored entry."""
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.device), self.pointers.diff())

    def flat_index(self) -> Tensor:
        """Position of each stored entry in the dense matrix, laid out row by row."""
        return self.row_index() * self.n_columns + self.columns

    def row_sums(self) -> Tensor:
        """Row sums, shape (rows, 1)."""
        total = self.values.new_zeros(self.shape[0])
        return total.index_add_(0, self.row_index(), self.values)[:, None]

    def with_values(self, values: Tensor) -> SparseRows:
        """The same entries with other values."""
        return replace(self, values=values)

    def rows(self, start: int, stop: int) -> SparseRows:
        """SparseRows ``start`` to ``stop``."""
        if start == 0 and stop >= self.shape[0]:
            return self
        first, last = int(self.pointers[start]), int(self.pointers[min(stop, self.shape[0])])
        pointers = self.pointers[start : stop + 1] - first
        return SparseRows(pointers, self.columns[first:last], self.values[first:last], self.n_columns)

    def to_dense(self) -> Tensor:
        """Dense tensor of these rows."""
        if runs_compiled(self.values):
            from aeverse.nn import _row_kernels  # numba takes a second to load

            entries = (t.numpy() for t in (self.values, self.pointers, self.columns))
            return torch.from_numpy(_row_kernels.dense(*entries, self.n_columns))
        dense = self.values.new_zeros(self.shape)
        dense[self.row_index(), self.columns] = self.values
        return dense

    def to_scipy(self) -> sp.csr_matrix:
        """A scipy CSR matrix of these rows."""
        values, columns, pointers = (t.cpu().numpy() for t in (self.values, self.columns, self.pointers))
        return sp.csr_matrix((values, columns, pointers), shape=self.shape)

    def transposed(self) -> SparseRows:
        """Columns as rows."""
        order = torch.argsort(self.columns, stable=True)
        counts = torch.bincount(self.columns, minlength=self.n_columns)
        pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return SparseRows(pointers, self.row_index()[order], self.values[order], self.shape[0])

    def matmul(self, dense: Tensor) -> Tensor:
        """Matrix product with a dense matrix of shape (columns, k)."""
        matrix = torch.sparse_csr_tensor(
            self.pointers, self.columns, self.values.to(dense.dtype), self.shape, check_invariants=False
        )
        return matrix @ dense


class _SparseProduct(torch.autograd.Function):
    """``rows @ weight`` with a gradient for the weight only, both as sparse products."""

    @staticmethod
    def forward(ctx, weight: Tensor, rows: SparseRows) -> Tensor:
        ctx.rows = rows
        return rows.matmul(weight)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return ctx.rows.transposed().matmul(gradient), None


def product(x: SparseRows | Tensor, weight: Tensor) -> Tensor:
    """``x @ weight`` for sparse rows or a dense tensor; differentiable in the weight (and in a dense ``x``)."""
    if not isinstance(x, SparseRows):
        return x @ weight
    if DENSE_ENTRIES > x.shape[0] * x.shape[1] < len(x.values) / DENSE_FROM:
        return x.to_dense() @ weight
    return _SparseProduct.apply(weight, x)
