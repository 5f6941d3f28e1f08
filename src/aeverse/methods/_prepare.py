"""What the methods share: normalization as their tutorials do it, features, components, joining over samples, seeds."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _runtime, _slots

N_GENES = 2000
CLIP = 10.0  # standard deviations
SMALLEST_SD = 1e-6
TERM_FREQUENCY = 1e4  # of a peak whose cell has no other


class Preparation:
    """Normalization of one modality as scanpy's and muon's tutorials do it, learned from some samples, for any.

    Counts: normalized to the median depth, log1p, 2,000 highly variable genes (or those of the mask); protein: CLR;
    peaks: TF-IDF; anything else: as it is. Entries that are NaN take the mean of their feature, since these methods
    know no missing entries. ``columns`` are the features that are kept.
    """

    def __init__(self, d: _slots.Modality, kind: str):
        self.kind, self.names, self.mean = kind, d.names, _feature_means(d.x)
        self.columns = np.arange(len(d.names)) if d.mask is None else np.flatnonzero(d.mask)
        x = self._filled(d.x)
        if kind == "counts":
            depth = _sums(x, 1)
            self.depth = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
            if d.mask is None and x.shape[1] > N_GENES:
                self.columns = _highly_variable(self._normalized(x), d.names)
        elif kind == "protein":
            self.geometric_mean = np.exp(_sums(np.log1p(x), 0) / max(len(d.rows), 1))
        elif kind == "peaks":
            total = _sums(x, 0)
            self.idf = np.log1p(np.where(total > 0, x.shape[0] / np.maximum(total, 1e-12), 0))

    def __call__(self, d: _slots.Modality) -> sp.csr_matrix | np.ndarray:
        """Normalized values of (new) samples, (samples, features kept), float32; features are matched by name."""
        if d.names.equals(self.names):
            return self._normalized(self._filled(d.x))
        if not d.names.is_unique or not self.names.isin(d.names).all():
            missing = self.names[~self.names.isin(d.names)]
            raise ValueError(
                "new data must hold every feature that the method was fitted to, each once; "
                f"{len(missing)} of {len(self.names)} are missing: {list(missing[:3])} …."
            )
        return self._normalized(self._filled(d.x[:, d.names.get_indexer(self.names)]))

    def _filled(self, x) -> sp.csr_matrix | np.ndarray:
        if sp.issparse(x):
            return sp.csr_matrix(x, dtype=np.float32)
        return np.asarray(np.where(np.isfinite(x), x, self.mean), np.float32)

    def _normalized(self, x) -> sp.csr_matrix | np.ndarray:
        """The columns kept; a sample's depth is that of all columns, as where highly variable genes are chosen late."""
        columns, ones = self.columns, np.ones(x.shape[0])
        selected = x[:, columns]
        if self.kind in ("counts", "peaks"):
            factor = (self.depth if self.kind == "counts" else TERM_FREQUENCY) / np.maximum(_sums(x, 1), 1e-12)
            selected = np.log1p(_scaled(selected, factor, np.ones(selected.shape[1])))
        if self.kind == "protein":
            selected = np.log1p(_scaled(selected, ones, 1 / self.geometric_mean[columns]))
        if self.kind == "peaks":
            selected = _scaled(selected, ones, self.idf[columns])
        return selected


class Features:
    """What `Preparation` gives, dense and centered; features without a unit in common are standardized.

    0 and 1, and fractions, are centered only: a rare mutation is no stronger evidence than a common one.
    """

    def __init__(self, d: _slots.Modality, kind: str):
        self.prepare = Preparation(d, kind)
        x = _slots.dense(self.prepare(d))
        self.center, sd = moments(x)
        self.sd = np.ones(len(sd)) if kind in ("counts", "protein", "peaks", "binary", "fractions") else sd

    def __call__(self, d: _slots.Modality) -> np.ndarray:
        """Features of (new) samples, (samples, features)."""
        return standardize(self.prepare(d), self.center, self.sd)


class Components:
    """Leading principal components as scanpy computes them; features that are no counts are standardized first.

    ``scores`` are those of the samples that they were learned from, (samples, components).
    """

    def __init__(self, x: sp.csr_matrix | np.ndarray, kind: str, n_components: int, random_state: int):
        import scanpy as sc

        self.standardized = kind not in ("counts", "peaks")
        self.center, self.sd = moments(x)
        n = max(1, min(n_components, x.shape[0] - 1, x.shape[1] - 1))
        if not (self.sd > SMALLEST_SD).any():  # nothing varies, and the solver would fail
            self.scores, self.loadings = np.zeros((x.shape[0], 1), np.float32), np.zeros((x.shape[1], 1), np.float32)
            self.shift = np.zeros(1)
            return
        self.scores, loadings, *_ = sc.pp.pca(self._scaled(x), n_comps=n, random_state=random_state, return_info=True)
        self.loadings = loadings.T
        # scanpy centers what it is given; after clipping the mean is no longer zero
        self.shift = np.asarray(self._scaled(x).mean(0)).ravel() @ self.loadings

    def __call__(self, x: sp.csr_matrix | np.ndarray) -> np.ndarray:
        """Scores of new samples."""
        return np.asarray(self._scaled(x) @ self.loadings - self.shift)

    def _scaled(self, x) -> sp.csr_matrix | np.ndarray:
        return standardize(x, self.center, self.sd) if self.standardized else x


def standardize(x, center: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Dense z-scores, at most 10 in size; features that do not vary become zero."""
    return np.clip((_slots.dense(x) - center) / np.where(sd > SMALLEST_SD, sd, np.inf), -CLIP, CLIP).astype(np.float32)


def moments(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column."""
    if sp.issparse(x):
        mean, square = (np.asarray(a.mean(0), np.float64).ravel() for a in (x, x.multiply(x)))
        return mean, np.sqrt(np.maximum(square - mean**2, 0))
    return x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)


@contextlib.contextmanager
def states_kept() -> Iterator[None]:
    """Put the global random states of Python and numpy back, which some packages seed."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (it is what we guard)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextlib.contextmanager
def isolated(random_state: int) -> Iterator[None]:
    """scvi-tools seeds Python, numpy and torch globally; put their states back afterwards."""
    import scvi

    with states_kept(), _runtime.seeded(random_state):
        scvi.settings.seed = random_state
        yield


def side_by_side(
    parts: Mapping[str, tuple[Preparation, Components, float]], data: Mapping[str, _slots.Modality], n_obs: int
) -> np.ndarray:
    """Components of each modality over a length of its own, (samples, all components); zero where it is missing."""
    blocks = []
    for m, (prepare, components, length) in parts.items():
        block = np.zeros((n_obs, components.loadings.shape[1]), np.float32)
        if m in data:
            block = _slots.scatter_rows(components(prepare(data[m])) / length, data[m].rows, n_obs)
        blocks.append(block)
    return np.hstack(blocks).astype(np.float32)


def require_complete(data: Mapping[str, _slots.Modality], n: int, method: str) -> None:
    """Refuse samples that lack a modality, for methods that cannot do without."""
    for name, d in data.items():
        if len(d.rows) < n:
            raise ValueError(
                f"method={method!r} needs every modality in every cell; {n - len(d.rows)} of the {n} cells lack {name!r}. "
                "Use method='ae', or leave them out first: muon.pp.intersect_obs(mdata)."
            )


def require_few(n: int, most: int, method: str) -> None:
    """Refuse more samples than a method with a matrix of all pairs of them can take."""
    if n > most:
        raise ValueError(f"method={method!r} compares every two samples: {n} are too many, at most {most}.")


def _feature_means(x) -> np.ndarray | None:
    """Means of the entries that are there (0 where there is none); None for a sparse matrix, which has no gaps."""
    if sp.issparse(x):
        return None
    finite = np.isfinite(x)
    return np.where(finite, x, 0).sum(0) / np.maximum(finite.sum(0), 1)


def _sums(x, axis: int) -> np.ndarray:
    return np.asarray(x.sum(axis), np.float64).ravel()


def _scaled(x, rows: np.ndarray, columns: np.ndarray) -> sp.csr_matrix | np.ndarray:
    """SparseRows and columns times factors, float32."""
    if sp.issparse(x):
        return sp.csr_matrix(sp.diags(rows) @ x @ sp.diags(columns), dtype=np.float32)
    return (x * rows[:, None] * columns).astype(np.float32)


def _highly_variable(x, names: pd.Index) -> np.ndarray:
    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(x, var=pd.DataFrame(index=names))
    adata.var_names_make_unique()
    chosen = sc.pp.highly_variable_genes(adata, n_top_genes=N_GENES, inplace=False)["highly_variable"]
    return np.flatnonzero(chosen.to_numpy())
