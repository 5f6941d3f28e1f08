"""Real data that come inside packages we depend on: no download."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from anndata import AnnData


def pbmc68k_counts() -> AnnData:
    """Raw UMI counts of 700 blood cells and 765 genes, bundled with scanpy.

    `scanpy.datasets.pbmc68k_reduced` keeps ``log1p(counts / n_counts * 1e4)`` in ``raw.X``; because ``n_counts`` is kept
    too, the integers can be recovered without error [Zheng2017]_.

    Returns
    -------
    AnnData, 700 x 765, with integer counts (float32, CSR) in ``X``; ``obs["bulk_labels"]`` holds the published cell types
    and ``obs["n_counts"]`` the molecules of the cell over all genes, before the gene selection.

    Examples
    --------
    >>> import aeverse as ae
    >>> ae.datasets.pbmc68k_counts().shape
    (700, 765)
    """
    import scanpy as sc
    from anndata import AnnData

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # the bundled file has an old format, which is not our user's fault
        warnings.simplefilter("ignore", UserWarning)
        reduced = sc.datasets.pbmc68k_reduced()
    counts = sp.csr_matrix(reduced.raw.X, dtype=np.float64, copy=True)
    library = np.repeat(reduced.obs["n_counts"].to_numpy(np.float64), np.diff(counts.indptr))
    counts.data = np.rint(np.expm1(counts.data) / 1e4 * library)
    counts.eliminate_zeros()
    obs = reduced.obs[["bulk_labels", "n_counts", "percent_mito"]].copy()
    return AnnData(counts.astype(np.float32), obs=obs, var=reduced.raw.var[[]].copy())
