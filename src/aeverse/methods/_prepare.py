"""What the multimodal methods share: normalisation as their tutorials do it, and joining on all samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots

if TYPE_CHECKING:
    from anndata import AnnData

N_GENES = 2000


def normalised(d: _slots.Modality, kind: str) -> AnnData:
    """A new AnnData as scanpy's and muon's tutorials prepare it.

    Counts: normalised, log1p, 2,000 highly variable genes; protein: CLR; peaks: TF-IDF; anything else: as it is. Entries
    that are NaN take the mean of their feature, since none of these methods knows missing entries.
    """
    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(without_nan(d.x), obs=pd.DataFrame(index=d.rows.astype(str)), var=pd.DataFrame(index=d.names))
    adata.var_names_make_unique()
    if d.mask is not None:
        adata = adata[:, d.mask].copy()
    if kind == "counts":
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
        if d.mask is None and adata.n_vars > N_GENES:
            sc.pp.highly_variable_genes(adata, n_top_genes=N_GENES, subset=True)
    elif kind == "protein":
        from muon import prot

        prot.pp.clr(adata)
    elif kind == "peaks":
        from muon import atac

        atac.pp.tfidf(adata, scale_factor=1e4)
    return adata


def principal_components(adata: AnnData, kind: str, n_components: int, random_state: int) -> None:
    """Write ``obsm["X_pca"]``; features that are not counts are standardised first."""
    import scanpy as sc

    if kind not in ("counts", "peaks"):
        sc.pp.scale(adata, max_value=10)
    sc.pp.pca(adata, n_comps=max(1, min(n_components, adata.n_obs - 1, adata.n_vars - 1)), random_state=random_state)


def without_nan(x: sp.csr_matrix | np.ndarray) -> sp.csr_matrix | np.ndarray:
    """A copy whose missing entries are the means of their features."""
    if sp.issparse(x):
        return x.copy()
    there = np.isfinite(x)
    mean = np.where(there, x, 0).sum(0) / np.maximum(there.sum(0), 1)
    return np.where(there, x, mean).astype(np.float32)


def on_all(values: np.ndarray | sp.csr_matrix, rows: np.ndarray, n: int) -> np.ndarray | sp.csr_matrix:
    """Rows at their places among all `n` samples, zero elsewhere."""
    place = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), shape=(n, len(rows)))
    return sp.csr_matrix(place @ values) if sp.issparse(values) else np.asarray(place @ values)


def require_complete(data: Mapping[str, _slots.Modality], n: int, method: str) -> None:
    """Refuse samples that lack a modality, for methods that cannot do without."""
    for name, d in data.items():
        if len(d.rows) < n:
            raise ValueError(
                f"method={method!r} needs every modality in every cell; {n - len(d.rows)} of the {n} cells lack {name!r}. "
                "Use method='ae', or leave them out first: muon.pp.intersect_obs(mdata)."
            )
