"""What our README calls next, on the versions that were installed together: scanpy on more cells than it treats exactly.

Above 8,192 cells scanpy searches neighbors with pynndescent, so that a clash of the two shows on large data only.
"""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

N_CELLS = 9000


@pytest.mark.timeout(900)  # half a minute of compiling by numba, several on a busy machine
def test_neighbors_leiden_and_umap_run_on_more_cells_than_scanpy_treats_exactly():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, N_CELLS)
    centers = 10 * rng.standard_normal((4, 10))
    code = (centers[group] + rng.standard_normal((N_CELLS, 10))).astype(np.float32)
    adata = ad.AnnData(obs=pd.DataFrame(index=np.arange(N_CELLS).astype(str)), obsm={"X_ae": code})
    sc.pp.neighbors(adata, use_rep="X_ae")
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False, resolution=0.02)
    sc.tl.umap(adata, maxiter=5)
    table = pd.crosstab(group, adata.obs["leiden"])
    assert (table.max(axis=1) == table.sum(axis=1)).all(), "a group is cut in two"
    assert ((table > 0).sum() == 1).all(), "two groups are one cluster"
    assert adata.obsm["X_umap"].shape == (N_CELLS, 2)
    assert np.isfinite(adata.obsm["X_umap"]).all()
