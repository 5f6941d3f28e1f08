"""Denoising of unusual data: never worse than the gene means?

    python benchmarks/robustness.py

The default call of tl.denoise on real counts that were changed: few cells, few genes, variable genes only, a fifth of the
molecules, ambient molecules added to every cell, plates as batches, genes permuted among the cells, where only a cell's own
count tells anything, and counts drawn from the gene means, where nothing does. D2 (deviance of a tenth of the molecules explained beyond library size x gene mean) is that of
benchmarks/denoise.py; `warned`: the call said that there is little to give. Written: benchmarks/results/robustness.csv and robustness.md.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import scipy.sparse as sp
from tables import markdown


def some_cells(counts, rng, n=200):
    """200 cells."""
    return counts[np.sort(rng.permutation(counts.shape[0])[:n])]


def abundant_genes(counts, rng, n=30):
    """The 30 most abundant genes."""
    return counts[:, np.sort(np.argsort(-np.asarray(counts.sum(0)).ravel())[:n])]


def random_genes(counts, rng, n=30):
    """30 genes at random among those with 100 molecules."""
    return counts[:, np.sort(rng.permutation(np.flatnonzero(np.asarray(counts.sum(0)).ravel() >= 100))[:n])]


def variable_genes(counts, rng):
    """The 2,000 highly variable genes of scanpy's recipe."""
    import anndata as ad
    import scanpy as sc

    adata = ad.AnnData(counts.copy())
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    return counts[:, adata.var["highly_variable"].to_numpy()]


def a_fifth(counts, rng):
    """A fifth of the molecules."""
    thinned = counts.copy()
    thinned.data = rng.binomial(counts.data.astype(int), 0.2).astype(np.float32)
    thinned.eliminate_zeros()
    return thinned


def ambient(counts, rng, share=0.3):
    """To each cell 30 % molecules are added, drawn from the profile of all cells together."""
    profile = np.asarray(counts.sum(0)).ravel() / counts.sum()
    extra = rng.poisson(np.asarray(counts.sum(1)) * share * profile)
    return sp.csr_matrix(counts + sp.csr_matrix(extra.astype(np.float32)))


def permuted(counts, rng):
    """Every gene permuted among the cells: no cell is like another one."""
    csc = counts.tocsc(copy=True)
    for g in range(csc.shape[1]):
        own = slice(csc.indptr[g], csc.indptr[g + 1])
        csc.indices[own] = rng.permutation(csc.shape[0])[: own.stop - own.start]
    csc.has_sorted_indices = False
    return csc.tocsr()


def gene_means(counts, rng):
    """Poisson counts of library size x gene mean."""
    mean = np.asarray(counts.sum(1)) * np.asarray(counts.sum(0)) / counts.sum()
    return sp.csr_matrix(rng.poisson(mean).astype(np.float32))


CHANGES = {
    "as it is": lambda counts, rng: counts,
    "200 cells": some_cells,
    "30 abundant genes": abundant_genes,
    "30 random genes": random_genes,
    "2,000 variable genes": variable_genes,
    "a fifth of the molecules": a_fifth,
    "30 % ambient molecules": ambient,
    "permuted": permuted,
    "drawn from gene means": gene_means,
}


def judged(counts: sp.csr_matrix, seed: int, batches=None) -> dict:
    """D2 of the default call, and whether it warned."""
    import anndata as ad

    import aeverse as ae

    sys.path.insert(0, str(harness.DATA.parent))
    from scoring import deviance_explained, split_molecules

    counts = counts[np.asarray(counts.sum(1)).ravel() > 0]
    train, test, _ = split_molecules(counts, seed)
    adata = ad.AnnData(train.copy())
    if batches is not None:
        adata.obs["batch"] = batches
    with warnings.catch_warnings(record=True) as caught, harness.timed():
        warnings.simplefilter("always")
        ae.tl.denoise(adata, batch_key=None if batches is None else "batch", progress=False)
    said = any("little structure" in str(w.message) for w in caught)
    d2 = deviance_explained(adata.layers["denoised"], train, test)
    shape = {"cells": counts.shape[0], "genes": train.shape[1], "molecules": int(counts.sum())}
    return {**shape, "D2": d2, "warned": said, **harness.cost()}


def score(data: str, method: str, seed: int) -> list[dict]:
    """A row for every change."""
    import anndata as ad

    adata = ad.read_h5ad(harness.DATA / f"{data}.h5ad")
    counts = sp.csr_matrix(adata.X, dtype=np.float32)
    jobs = {case: (change(counts, np.random.default_rng(0)), None) for case, change in CHANGES.items()}
    if "plate" in adata.obs:
        jobs["plates as batches"] = counts, adata.obs["plate"].astype(str).to_numpy()
    return [{"case": case, **judged(changed, seed, batches)} for case, (changed, batches) in jobs.items()]


CASES = [harness.Cases("robustness", ["pbmc3k", "celseq2_5cl"], {"aeverse": None}, score)]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """All rows."""
    columns = ["data", "case", "cells", "genes", "molecules", "D2", "warned", "seconds"]
    return markdown(tables["robustness"][columns], decimals=4)


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
