"""Views: what one modality holds, by its kind of data, as scores on its significant components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

KINDS = ("counts", "protein", "peaks", "binary", "ordinal", "fractions", "continuous")
COUNT_KINDS = ("counts", "protein", "peaks")  # a sample without a single molecule says nothing
FEW_FEATURES, MANY_FEATURES, FEW_LEVELS = 500, 5000, 8
PEAK_NAME = r"^(?:chr)?[0-9XYMTGLKJ.]+[:_-]\d+[-_]\d+$"
CLIP = 10.0  # standard deviations
LEAST_LENGTH = 1e-3  # of a component, as a share of the longest
EXACT_UP_TO = 1000  # rows or columns up to which the exact singular value decomposition is taken


def kind_of(x: sp.csr_matrix | np.ndarray, names: pd.Index) -> str:
    """Kind of data that a matrix holds, from its values (and, for peaks, from the names of its features)."""
    values = x[np.isfinite(x)] if isinstance(x, np.ndarray) else x.data
    if values.size == 0:
        return "continuous"
    low, high, n_features = min(float(values.min()), 0.0), float(values.max()), x.shape[1]
    if not (values == np.rint(values)).all():
        dense = not sp.issparse(x)
        return "fractions" if dense and values.min() >= 0 and high <= 1 else "continuous"
    if low < 0:
        return "ordinal" if high - low <= FEW_LEVELS else "continuous"
    if names.str.match(PEAK_NAME).mean() > 0.5 or (high <= 1 and n_features >= MANY_FEATURES):
        return "peaks"
    if high <= 1:
        return "binary"
    if n_features > FEW_FEATURES:
        return "counts"
    if high <= FEW_LEVELS:
        return "ordinal"
    return (
        "protein" if (values > 0).sum() > x.shape[0] * n_features / 2 else "counts"
    )  # a panel of genes is mostly zeros


def overdispersed(counts: sp.csr_matrix, n: int) -> np.ndarray:
    """Positions of the `n` features whose variance most exceeds what depth and Poisson noise explain, in order."""
    depth = np.asarray(counts.sum(1)).ravel()
    mean = np.asarray(counts.mean(0)).ravel()
    square = np.asarray(counts.multiply(counts).mean(0)).ravel()
    score = (square - mean**2 * np.mean((depth / max(depth.mean(), 1e-9)) ** 2)) / np.maximum(mean, 1e-9)
    score[np.asarray((counts > 0).sum(0)).ravel() < min(5, counts.shape[0] / 10)] = -1
    return np.sort(np.argsort(-score, kind="stable")[:n])


class View:
    """Transformation, standardisation and significant principal components of one modality.

    Counts are depth-normalised and log-transformed, protein counts log-transformed and centred by sample (CLR), peaks
    weighted by TF-IDF; fractions become logits; the rest stays. Sparse matrices stay sparse, centring is implicit.
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
        self.kind, self.n_inputs, self.max_components = kind, n_inputs, max_components
        self.only_significant = only_significant
        self.depth = 1.0
        self.idf: np.ndarray | None = None

    # ---- learning ----------------------------------------------------------------------------------------------
    def fit(self, x: sp.csr_matrix | np.ndarray, names: pd.Index, columns: np.ndarray | None = None) -> np.ndarray:
        """Learn from a matrix (samples, features) and return its scores; `columns` limits the features read."""
        columns = np.arange(x.shape[1]) if columns is None else columns
        if self.kind == "counts" and len(columns) > self.n_inputs:
            counts = x if sp.issparse(x) else sp.csr_matrix(np.nan_to_num(x))
            columns = columns[overdispersed(counts[:, columns], self.n_inputs)]
        self.columns, self.names = columns, pd.Index(names[columns])
        x = x[:, columns]
        self._fit_transformation(x)
        x = self._transform(x)
        self.mean, sd = _moments(x)
        unit = np.ones_like(sd) if self.kind == "protein" else sd
        self.scale = np.where(sd > 1e-6, 1 / np.maximum(unit, 1e-6), 0).astype(np.float32)
        y = self._standardise(x)
        self.centre, sd = _moments(y)
        n, p = x.shape[0], max(int((self.scale > 0).sum()), 1)
        noise = np.sqrt(np.sum(sd.astype(np.float64) ** 2) / p) * (np.sqrt(n) + np.sqrt(p))
        s, v = _svd(y, self.centre, min(self.max_components, n - 1, x.shape[1]))
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

    def _fit_transformation(self, x) -> None:
        if self.kind == "counts":
            depth = _row_sums(x)
            self.depth = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
        if self.kind == "peaks":
            open_in = np.asarray((x != 0).sum(0) if sp.issparse(x) else np.nansum(x != 0, 0)).ravel()
            self.idf = np.log1p(x.shape[0] / np.maximum(open_in, 1)).astype(np.float32)

    # ---- using -------------------------------------------------------------------------------------------------
    def __call__(self, x: sp.csr_matrix | np.ndarray, names: pd.Index) -> np.ndarray:
        """Scores of new samples; features are matched by name, those not there take their mean."""
        y, found, _ = self.read(x, names)
        return self._scores(y, found) / self.unit

    def read(
        self, x: sp.csr_matrix | np.ndarray, names: pd.Index
    ) -> tuple[sp.csr_matrix | np.ndarray, slice | np.ndarray, np.ndarray]:
        """Standardised values of those features of new samples that are read, which of these they are, and where."""
        found, where = self.match(names)
        return self._standardise(self._transform(x[:, where], found), found), found, where

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

    def standardised(self, x: sp.csr_matrix | np.ndarray) -> sp.csr_matrix | np.ndarray:
        """Standardised values of the features read, of a matrix with the training data's columns."""
        return self._standardise(self._transform(x[:, self.columns]))

    def _transform(self, x, found: slice | np.ndarray = slice(None)):
        if self.kind in ("counts", "peaks"):
            if self.kind == "peaks":
                x = (x != 0).astype(np.float32) if sp.issparse(x) else np.where(np.isnan(x), np.nan, x != 0)
            target = self.depth if self.kind == "counts" else 1e4
            factor = (target / np.maximum(_row_sums(x), 1)).astype(np.float32)
            x = sp.csr_matrix(sp.diags(factor) @ x) if sp.issparse(x) else x * factor[:, None]
            if self.idf is not None:
                x = sp.csr_matrix(x @ sp.diags(self.idf[found])) if sp.issparse(x) else x * self.idf[found]
            return x.log1p() if sp.issparse(x) else np.log1p(x)
        if sp.issparse(x) and self.kind in ("protein", "fractions"):
            x = x.toarray()
        if self.kind == "protein":
            x = np.log1p(x)
            if len(self.columns) == 1:  # centred by itself it would be nothing
                return x
            return x - np.nansum(x, 1, keepdims=True) / np.maximum(np.isfinite(x).sum(1, keepdims=True), 1)
        if self.kind == "fractions":
            x = np.clip(x, 0.01, 0.99)
            return np.log(x / (1 - x))
        return x

    def _standardise(self, x, found: slice | np.ndarray = slice(None)):
        scale, mean = self.scale[found], self.mean[found]
        if sp.issparse(x):
            x = sp.csr_matrix(x @ sp.diags(scale))
            shift = (mean * scale)[x.indices]
            x.data = np.clip(x.data, shift - CLIP, shift + CLIP)
            return x
        return np.nan_to_num(((x - mean) * scale).clip(-CLIP, CLIP)).astype(np.float32)

    def _scores(self, y, found: slice | np.ndarray) -> np.ndarray:
        loadings = self.loadings[found]
        return np.asarray(y @ loadings - self.centre[found] @ loadings, np.float32)

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {**{name: getattr(self, name) for name in _KEPT}, "names": list(self.names)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> View:
        """Rebuild a view from its `tree`."""
        view = cls(tree["kind"], tree["n_inputs"], tree["max_components"], only_significant=tree["only_significant"])
        for name in _KEPT:
            setattr(view, name, tree[name])
        view.names = pd.Index(tree["names"])
        return view


_KEPT = (
    "kind", "n_inputs", "max_components", "only_significant", "depth", "unit", "residual", "n_significant",
    "idf", "columns", "mean", "scale", "centre", "loadings",
)  # fmt: skip


def _row_sums(x) -> np.ndarray:
    return np.asarray(x.sum(1) if sp.issparse(x) else np.nansum(x, 1), np.float64).ravel()


def _moments(x) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, missing entries left out."""
    if sp.issparse(x):
        mean = np.asarray(x.mean(0), np.float64).ravel()
        square = np.asarray(x.multiply(x).mean(0), np.float64).ravel()
        return mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32)
    there = np.isfinite(x).sum(0)
    mean = np.nansum(x, 0, dtype=np.float64) / np.maximum(there, 1)
    square = np.nansum((x - mean) ** 2, 0, dtype=np.float64) / np.maximum(there, 1)
    return mean.astype(np.float32), np.sqrt(square).astype(np.float32)


def _svd(y, centre: np.ndarray, k: int, n_iter: int = 3, oversampling: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Leading singular values and right vectors of a centred matrix; randomised [Halko2011]_ where it is large."""
    n, p = y.shape
    if min(n, p) <= EXACT_UP_TO and (n <= p or not sp.issparse(y)):
        gram = _gram(y, centre)
        values, vectors = np.linalg.eigh(gram)
        s, v = np.sqrt(np.maximum(values[::-1][:k], 0)), vectors[:, ::-1][:, :k]
        if n <= p:
            v = (y.T @ v - np.outer(centre, v.sum(0))) / np.maximum(s, 1e-12)
        return s, _signed(v.T)
    rng = np.random.default_rng(0)
    q = rng.standard_normal((p, min(k + oversampling, n, p))).astype(np.float32)
    for _ in range(n_iter + 1):
        a = np.linalg.qr(y @ q - centre @ q)[0]
        b = y.T @ a - np.outer(centre, a.sum(0))
        q = np.linalg.qr(b)[0]
    _, s, v = np.linalg.svd(b.T, full_matrices=False)
    return s[:k], _signed(v[:k])


def _gram(y, centre: np.ndarray) -> np.ndarray:
    """Products of the rows (or, where there are more of them, of the columns) of a matrix after centring, in float64."""
    if sp.issparse(y):
        y = y.astype(np.float64)
        along = y @ centre.astype(np.float64)
        return (y @ y.T).toarray() - along[:, None] - along + float(centre.astype(np.float64) @ centre)
    centred = (y - centre).astype(np.float64)
    return centred.T @ centred if y.shape[1] < y.shape[0] else centred @ centred.T


def _signed(v: np.ndarray) -> np.ndarray:
    """Rows whose largest entry is positive: the sign must not depend on the linear algebra library."""
    sign = np.sign(v[np.arange(len(v)), np.abs(v).argmax(1)])
    return v * np.where(sign == 0, 1, sign)[:, None]
