"""What the methods of one matrix share: features as their tutorials prepare them, for new samples too."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse.methods._prepare import N_GENES

CLIP, SMALLEST_SD = 10.0, 1e-6


class Features:
    """Counts are brought to the median depth, logged, and cut to 2,000 highly variable genes, the rest is standardised.

    0 and 1, and fractions, are centred only: a rare mutation is no stronger evidence than a common one. Entries that are
    NaN take the mean of their feature.

    Parameters
    ----------
    x
        (samples, features), CSR or dense.
    kind
        Kind of data, see `aeverse.models.kinds_of`.
    names
        Of the features.
    mask
        Features to read; None: of counts the highly variable ones, else all.
    """

    def __init__(self, x: sp.csr_matrix | np.ndarray, kind: str, names: pd.Index, mask: np.ndarray | None):
        self.is_count = kind in ("counts", "protein", "peaks")
        self.columns = np.arange(x.shape[1]) if mask is None else np.flatnonzero(mask)
        depth = _depth(x)
        self.target = float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0
        if self.is_count and mask is None and x.shape[1] > N_GENES:
            self.columns = self._highly_variable(x, names)
        y = self._read(x)
        self.mean, self.scale = _column_means(y), np.ones(y.shape[1], np.float32)
        if not (self.is_count or kind in ("binary", "fractions")):
            sd = np.sqrt(_column_means((y - self.mean) ** 2))
            self.scale = np.where(sd > SMALLEST_SD, 1 / np.maximum(sd, SMALLEST_SD), 0).astype(np.float32)

    def __call__(self, x: sp.csr_matrix | np.ndarray) -> np.ndarray:
        """Features of samples with the columns of the training data, dense."""
        return np.nan_to_num((self._read(x) - self.mean) * self.scale).clip(-CLIP, CLIP)

    def _read(self, x) -> np.ndarray:
        x = (self._logged(x) if self.is_count else x)[:, self.columns]
        return x.toarray() if sp.issparse(x) else np.asarray(x, np.float32)

    def _logged(self, x) -> sp.csr_matrix:
        x = sp.csr_matrix(x, dtype=np.float32)
        return sp.csr_matrix(sp.diags(self.target / np.maximum(_depth(x), 1)).astype(np.float32) @ x).log1p()

    def _highly_variable(self, x, names: pd.Index) -> np.ndarray:
        import scanpy as sc
        from anndata import AnnData

        adata = AnnData(self._logged(x), var=pd.DataFrame(index=names))
        adata.var_names_make_unique()
        found = sc.pp.highly_variable_genes(adata, n_top_genes=N_GENES, inplace=False)
        return np.flatnonzero(found["highly_variable"].to_numpy())


def _depth(x) -> np.ndarray:
    return np.asarray(x.sum(1) if sp.issparse(x) else np.nansum(x, 1), np.float64).ravel()


def _column_means(y: np.ndarray) -> np.ndarray:
    """Means of the columns, missing entries left out; zero for a column without any."""
    return (np.nansum(y, 0) / np.maximum(np.isfinite(y).sum(0), 1)).astype(np.float32)
