"""Downstream of denoising: does the denoised transcript follow the protein that was measured in the same cell?

    python benchmarks/proteins.py --methods raw aeverse pca magic alra

Recovered molecules are one thing, biology another. In CITE-seq the protein of a gene is measured in the same cell, so a
denoised transcript can be judged by what no method saw. RNA counts are denoised by each method with its defaults; a gene's
values (as a share of the cell's molecules, log1p per 10,000) are compared with its protein (log1p of counts, less the cell's
mean) over the cells that have both. The pairs of gene and protein are fixed (PAIRS); those that a data set lacks are left out.

pearson    mean over the pairs of the correlation with the protein
spearman   the same of ranks. Half of it or more is the order among cells that do not express the gene, where the protein is
           background: methods that set small values to zero do better in it
within     pearson inside cell types (mean over types with 50 cells or more): what is beyond telling types
pairs      how many there are
"""

from __future__ import annotations

from pathlib import Path

import denoise
import harness
import numpy as np
import pandas as pd
from scipy.stats import rankdata
from tables import markdown

PAIRS = {  # protein: the gene that codes for it
    "CD3": "CD3E",
    "CD4": "CD4",
    "CD8a": "CD8A",
    "CD19": "CD19",
    "CD14": "CD14",
    "CD16": "FCGR3A",
    "CD56": "NCAM1",
    "CD11b": "ITGAM",
    "CD11c": "ITGAX",
    "CD127": "IL7R",
    "CD197": "CCR7",
    "CD21": "CR2",
    "CD25": "IL2RA",
    "CD27": "CD27",
    "CD38": "CD38",
    "CD185": "CXCR5",
    "CD86": "CD86",
    "CD95": "FAS",
    "HLA.DR": "HLA-DRA",
    "IgD": "IGHD",
    "IgM": "IGHM",
    "KLRG1": "KLRG1",
    "PD-1": "PDCD1",
    "TIGIT": "TIGIT",
}
DATA_SETS = ["cite_teaseq", "mosaic_pbmc15k"]
METHODS = {"raw": lambda counts: counts.toarray(), **denoise.METHODS}
FEWEST_CELLS, MOST_CELLS = 50, 4000


def read(name: str):
    """RNA counts (cells x genes, CSR), the proteins of the same cells, and their types."""
    import mudata as md

    mdata = md.read_h5mu(harness.DATA / f"{name}.h5mu")
    both = np.flatnonzero(mdata.obs_names.isin(mdata["prot"].obs_names) & mdata.obs_names.isin(mdata["rna"].obs_names))
    names = mdata.obs_names[np.sort(np.random.default_rng(0).permutation(both)[:MOST_CELLS])]
    rna, protein = mdata["rna"][names], mdata["prot"][names]
    counts = rna.layers["counts"].tocsr()
    surface = protein.layers.get("counts", protein.X)
    surface = np.log1p(np.asarray(surface.toarray() if hasattr(surface, "toarray") else surface, np.float64))
    surface = pd.DataFrame(surface - surface.mean(1, keepdims=True), columns=protein.var_names)
    kept = np.asarray((counts > 0).sum(0)).ravel() >= 3
    return counts[:, kept].astype(np.float32), rna.var_names[kept], surface, mdata.obs.loc[names, "cell_type"]


def score(data: str, method: str, seed: int) -> dict:
    """One case."""
    counts, genes, surface, types = read(data)
    with harness.timed():
        denoised = np.maximum(np.asarray(METHODS[method](counts)), 0)
    values = np.log1p(1e4 * denoised / np.maximum(denoised.sum(1, keepdims=True), 1e-9))
    pairs = [(p, g) for p, g in PAIRS.items() if p in surface and g in genes]
    everyone = pd.Series("all", index=types.index)
    found = {}
    for protein, gene in pairs:
        x, y = values[:, genes.get_loc(gene)], surface[protein].to_numpy()
        ranks = rankdata(x), rankdata(y)
        found[f"{protein}/{gene}"] = (
            _correlation(x, y, everyone),
            _correlation(*ranks, everyone),
            _correlation(x, y, types),
        )
    pearson, spearman, within = np.mean(list(found.values()), axis=0)
    means = {"pearson": pearson, "spearman": spearman, "within": within, "pairs": len(pairs)}
    return means | {pair: correlations[0] for pair, correlations in found.items()}


def _correlation(values: np.ndarray, protein: np.ndarray, groups: pd.Series) -> float:
    """Correlation, mean over groups; 0 where the values do not vary."""
    found = []
    for _, rows in groups.reset_index(drop=True).groupby(groups.to_numpy()):
        if len(rows) >= FEWEST_CELLS:
            a, b = values[rows.index], protein[rows.index]
            found.append(0.0 if a.std() == 0 or b.std() == 0 else float(np.corrcoef(a, b)[0, 1]))
    return float(np.mean(found))


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """The summary."""
    table = tables["proteins"]
    columns = ["pearson", "spearman", "within", "pairs", "seconds", "cpu_seconds"]
    mean = table.groupby(["data", "method"])[columns].mean().sort_values(["data", "pearson"], ascending=[True, False])
    return markdown(mean.reset_index().astype({"pairs": int}))


QUICK = ["cite_teaseq"], ["raw", "pca", "aeverse_one"]
CASES = [harness.Cases("proteins", DATA_SETS, METHODS, score, quick=QUICK, unusual=denoise.UNUSUAL)]

if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
