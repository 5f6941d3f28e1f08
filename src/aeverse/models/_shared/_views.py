"""Views: what one modality holds, by its kind of data, as scores on its significant components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse.models._shared._kinds import KINDS, Kind
from aeverse.nn import moments

CLIP = 10.0  # standard deviations
LEAST_LENGTH = 1e-3  # of a component, as a share of the longest
EXACT_UP_TO = 1000  # rows or columns up to which the exact singular value decomposition is taken


class View:
    """Transformation, standardization and significant principal components of one modality.

    The kind says what is done to the values first. Sparse matrices stay sparse, centering is implicit.
    Components count as significant above the edge of the spectrum of noise (Marchenko-Pastur). Missing entries take the
    mean of their feature.

    Parameters
    ----------
    kind
        One of `KINDS`.
    n_inputs
        How many features of ``"counts"`` are read, the most overdispersed.
    max_components
        Most components kept.
    only_significant
        Keep none that could be noise. (Whoever measures in units of noise may keep all.)
    """

    def __init__(self, kind: str, n_inputs: int = 3000, max_components: int = 50, *, only_significant: bool = True):
        self.kind, self.n_inputs, self.max_components = KINDS[kind](), n_inputs, max_components
        self.only_significant = only_significant

    # ---- learning ----------------------------------------------------------------------------------------------
    def fit(self, x: sp.csr_matrix | np.ndarray, names: pd.Index, columns: np.ndarray | None = None) -> np.ndarray:
        """Learn from a matrix (samples, features) and return its scores; `columns` limits the features read."""
        columns = np.arange(x.shape[1]) if columns is None else columns
        columns = columns[self.kind.choose(x[:, columns], self.n_inputs)]
        self.columns, self.names = columns, pd.Index(names[columns])
        x = x[:, columns]
        self.kind.fit(x)
        x = self.kind.prepare(x)
        self.mean, sd = moments(x)
        unit = np.ones_like(sd) if self.kind.has_unit else sd
        self.scale = np.where(sd > 1e-6, 1 / np.maximum(unit, 1e-6), 0).astype(np.float32)
        y = self._standardize(x)
        self.center, sd = moments(y)
        n, p = x.shape[0], max(int((self.scale > 0).sum()), 1)
        noise = np.sqrt(np.sum(sd.astype(np.float64) ** 2) / p) * (np.sqrt(n) + np.sqrt(p))
        s, v = truncated_svd(y, self.center, min(self.max_components, n - 1, x.shape[1]))
        self.n_significant = int((s > noise).sum())
        n_kept = max(self.n_significant, 2) if self.only_significant else max(int((s > LEAST_LENGTH * s[0]).sum()), 1)
        self.loadings = np.ascontiguousarray(v[:n_kept].T, np.float32)
        self.residual = float(
            np.sqrt(max(np.sum(sd.astype(np.float64) ** 2) - np.sum(s**2) / n, 0) / max(p - len(s), 1))
        )
        self.unit = 1.0
        scores = self._scores(y, slice(None))
        self.unit = float(np.sqrt(np.mean(scores**2))) or 1.0
        return scores / self.unit

    # ---- using -------------------------------------------------------------------------------------------------
    def __call__(self, x: sp.csr_matrix | np.ndarray, names: pd.Index) -> np.ndarray:
        """Scores of new samples; features are matched by name, those not there take their mean."""
        y, columns, _ = self.read(x, names)
        return self._scores(y, columns) / self.unit

    def read(
        self, x: sp.csr_matrix | np.ndarray, names: pd.Index
    ) -> tuple[sp.csr_matrix | np.ndarray, slice | np.ndarray, np.ndarray]:
        """Standardized values of those features of new samples that are read, which of these they are, and where."""
        columns, where = self.match(names)
        return self._standardize(self.kind.prepare(x[:, where], columns), columns), columns, where

    def match(self, names: pd.Index) -> tuple[slice | np.ndarray, np.ndarray]:
        """Which of the features read are there, and where."""
        if len(names) > self.columns[-1] and names[self.columns].equals(self.names):
            return slice(None), self.columns
        if not names.is_unique or not self.names.is_unique:
            raise ValueError(
                "feature names are not unique and differ from the model's; call var_names_make_unique() first."
            )
        where = names.get_indexer(self.names)
        return np.flatnonzero(where >= 0), where[where >= 0]

    def standardized(self, x: sp.csr_matrix | np.ndarray) -> sp.csr_matrix | np.ndarray:
        """Standardized values of the features read, of a matrix with the training data's columns."""
        return self._standardize(self.kind.prepare(x[:, self.columns]))

    def _standardize(self, x, columns: slice | np.ndarray = slice(None)):
        scale, mean = self.scale[columns], self.mean[columns]
        if sp.issparse(x):
            x = sp.csr_matrix(x @ sp.diags(scale))
            shift = (mean * scale)[x.indices]
            x.data = np.clip(x.data, shift - CLIP, shift + CLIP)
            return x
        return np.nan_to_num(((x - mean) * scale).clip(-CLIP, CLIP)).astype(np.float32)

    def _scores(self, y, columns: slice | np.ndarray) -> np.ndarray:
        loadings = self.loadings[columns]
        return np.asarray(y @ loadings - self.center[columns] @ loadings, np.float32)

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        values = {name: getattr(self, name) for name in _KEPT}
        return {"kind": self.kind.tree(), **values, "names": list(self.names)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> View:
        """Rebuild a view from its `tree`."""
        view = cls(tree["kind"]["name"])
        view.kind = Kind.from_tree(tree["kind"])
        for name in _KEPT:
            setattr(view, name, tree[name])
        view.names = pd.Index(tree["names"])
        return view


_KEPT = (
    "n_inputs", "max_components", "only_significant", "unit", "residual", "n_significant",
    "columns", "mean", "scale", "center", "loadings",
)  # fmt: skip


def truncated_svd(
    y, center: np.ndarray, k: int, n_iter: int = 3, oversampling: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Leading singular values and right vectors of a centered matrix; randomized [Halko2011]_ where it is large."""
    n, p = y.shape
    if min(n, p) <= EXACT_UP_TO and (n <= p or not sp.issparse(y)):
        gram = _gram(y, center)
        values, vectors = np.linalg.eigh(gram)
        s, v = np.sqrt(np.maximum(values[::-1][:k], 0)), vectors[:, ::-1][:, :k]
        if n <= p:
            v = (y.T @ v - np.outer(center, v.sum(0))) / np.maximum(s, 1e-12)
        return s, _signed(v.T)
    rng = np.random.default_rng(0)
    q = rng.standard_normal((p, min(k + oversampling, n, p))).astype(np.float32)
    for _ in range(n_iter + 1):
        a = np.linalg.qr(y @ q - center @ q)[0]
        b = y.T @ a - np.outer(center, a.sum(0))
        q = np.linalg.qr(b)[0]
    _, s, v = np.linalg.svd(b.T, full_matrices=False)
    return s[:k], _signed(v[:k])


def _gram(y, center: np.ndarray) -> np.ndarray:
    """Products of the rows (or, where there are more of them, of the columns) of a matrix after centering, in float64."""
    if sp.issparse(y):
        y = y.astype(np.float64)
        along = y @ center.astype(np.float64)
        return (y @ y.T).toarray() - along[:, None] - along + float(center.astype(np.float64) @ center)
    centered = (y - center).astype(np.float64)
    return centered.T @ centered if y.shape[1] < y.shape[0] else centered @ centered.T


def _signed(v: np.ndarray) -> np.ndarray:
    """SparseRows whose largest entry is positive: the sign must not depend on the linear algebra library."""
    sign = np.sign(v[np.arange(len(v)), np.abs(v).argmax(1)])
    return v * np.where(sign == 0, 1, sign)[:, None]
