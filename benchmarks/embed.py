"""What scanpy's default call makes of the embedding of counts, beside PCA's and scVI's. No resolution is searched for.

    python benchmarks/embed.py                    # seven sets of RNA counts, three seeds, one of scVI: hours on few cores
    python benchmarks/embed.py --methods aeverse pca --data pbmc68k dropseq_3cl --seeds 0
    python benchmarks/embed.py --quick            # two small sets, one member, one seed

pca is scanpy's tutorial (normalize_total, log1p, 2,000 highly variable genes, 50 components), aeverse is
``ae.tl.embed(adata)``, scvi is scVI on the same 2,000 genes: 10 dimensions, its defaults, early stopping. On each embedding
``sc.pp.neighbors(adata, use_rep=...)`` and ``sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)``. Tables:

embed                  agreement of the clusters with published labels (ari, nmi), their number, purity (balanced accuracy of
                       the labels of a cell's 15 nearest cells, five folds), and what the embedding costs. Cells of unknown
                       type are embedded and clustered, not judged.
embed_halves           no labels: the molecules are split in two halves, the first is embedded and clustered, and
                       cluster_deviance is the share of the deviance of the second that the clusters explain.
embed_structureless    counts drawn from one profile (700 cells x 1,000 genes): every cluster beyond the first is invented.

pbmc68k comes with scanpy; the others are read from ../shared/data. Written are benchmarks/results/embed.csv, embed_halves.csv,
embed_structureless.csv, and all three as embed.md.
"""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scores import default_scores, warm_up
from tables import markdown

import aeverse as ae

SETS = ("pbmc68k", "mouse_bladder", "celseq2_5cl", "dropseq_3cl", "snare_cortex", "cite_teaseq", "mosaic_pbmc15k")
HALVED = ("pbmc3k", "pbmc68k", "mouse_bladder", "celseq2_5cl")
RESOLUTIONS = (0.25, 0.5, 1.0)
SEEDS = (0, 1, 2)


def read(name: str):
    """RNA counts with ``obs["label"]``."""
    import anndata as ad
    import mudata as md

    if name == "pbmc68k":
        adata = ae.datasets.pbmc68k_counts()
        adata.obs["label"] = adata.obs["bulk_labels"].astype(str)
    elif (harness.DATA / f"{name}.h5ad").exists():
        adata = ad.read_h5ad(harness.DATA / f"{name}.h5ad")
    else:
        mdata = md.read_h5mu(harness.DATA / f"{name}.h5mu")
        adata = mdata["rna"].copy()
        adata.obs["label"] = mdata.obs["cell_type"].reindex(adata.obs_names).astype(str)
    return ad.AnnData(sp.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs, var=adata.var[[]])


# ---- methods: (counts, seed) -> embedding ------------------------------------------------------------------------
def pca(adata, seed: int) -> np.ndarray:
    """As in scanpy's tutorial."""
    import scanpy as sc

    adata = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(2000, adata.n_vars))
    sc.pp.pca(adata, n_comps=50, random_state=seed)
    return adata.obsm["X_pca"]


def aeverse(adata, seed: int) -> np.ndarray:
    """The default call."""
    return ae.tl.embed(adata, random_state=seed, copy=True).obsm["X_ae"]


def aeverse_one(adata, seed: int) -> np.ndarray:
    """One member of the ensemble, to be quick."""
    return ae.tl.embed(adata, n_models=1, random_state=seed, copy=True).obsm["X_ae"]


def scvi(adata, seed: int) -> np.ndarray:
    """ScVI's defaults and early stopping, on 2,000 highly variable genes."""
    import scanpy as sc
    import scvi as scvi_tools

    normalized = adata.copy()
    sc.pp.normalize_total(normalized)
    sc.pp.log1p(normalized)
    sc.pp.highly_variable_genes(normalized, n_top_genes=min(2000, adata.n_vars))
    adata = adata[:, normalized.var["highly_variable"]].copy()
    scvi_tools.settings.seed = seed
    scvi_tools.model.SCVI.setup_anndata(adata)
    model = scvi_tools.model.SCVI(adata)
    model.train(early_stopping=True, enable_progress_bar=False)
    return model.get_latent_representation()


METHODS = {"pca": pca, "aeverse": aeverse, "aeverse_one": aeverse_one, "scvi": scvi}


# ---- the three tables --------------------------------------------------------------------------------------------
def labeled(data: str, method: str, seed: int) -> dict:
    """Clusters of the default call against the labels."""
    adata = read(data)
    with harness.timed():
        embedding = METHODS[method](adata, seed)
    return default_scores(embedding, adata.obs["label"].astype(str).to_numpy())


def halved(data: str, method: str, seed: int) -> dict:
    """Clusters found with half of the molecules, judged on the other half."""
    adata = read(data)
    ae.pp.thin_counts(adata, 0.5, random_state=seed)
    adata = adata[:, np.asarray(adata.layers["thinned"].sum(0)).ravel() > 0].copy()
    train, test = adata.layers["thinned"], adata.layers["thinned_rest"]
    adata.X = train.copy()
    adata.layers.clear()
    with harness.timed():
        embedding = METHODS[method](adata, seed)
    warm_up()
    clusters = ae.metrics.default_clusters(embedding)
    deviance = ae.metrics.cluster_deviance(clusters["clusters"], train, test)
    return {"n_clusters": clusters["n_clusters"], "cluster_deviance": deviance}


def structureless(data: str, method: str, seed: int) -> list[dict]:
    """Clusters of cells that were all drawn from one profile; depths are gamma distributed."""
    import anndata as ad

    rng = np.random.default_rng(seed)
    profile = rng.lognormal(0, 1.5, 1000)
    mean = (rng.gamma(4.0, 375.0, 700) + 100)[:, None] * profile / profile.sum()
    embedding = METHODS[method](ad.AnnData(sp.csr_matrix(rng.poisson(mean), dtype=np.float32)), seed)
    warm_up()
    clusters = {r: ae.metrics.default_clusters(embedding, resolution=r)["n_clusters"] for r in RESOLUTIONS}
    return [{"resolution": resolution, "n_clusters": number} for resolution, number in clusters.items()]


def applies(data: str, method: str, seed: int) -> bool:
    """scVI takes long: one seed."""
    return method != "scvi" or seed == 0


QUICK = ("pca", "aeverse_one")
CASES = [
    harness.Cases("embed", SETS, METHODS, labeled, SEEDS, (("pbmc68k", "dropseq_3cl"), QUICK), applies, QUICK[1:]),
    harness.Cases("embed_halves", HALVED, METHODS, halved, SEEDS[:1], (("pbmc68k",), QUICK), applies, QUICK[1:]),
    harness.Cases(
        "embed_structureless",
        ["one profile"],
        METHODS,
        structureless,
        SEEDS,
        (["one profile"], QUICK),
        applies,
        QUICK[1:],
    ),
]


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds; below over all sets, of methods that have them, and over the sets that every method has."""
    by_set = table.groupby(["data", "method"], sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    n_sets = by_set["data"].nunique()
    complete = by_set[by_set.groupby("method")["data"].transform("size") == n_sets]
    shared = by_set[by_set.groupby("data")["method"].transform("size") == by_set["method"].nunique()]
    pages = [by_set]
    for part in (complete, shared) if shared["data"].nunique() < n_sets else (complete,):
        overall = part.groupby("method", sort=False).mean(numeric_only=True).reset_index()
        pages.append(overall.assign(data=f"mean of {part['data'].nunique()}")[by_set.columns])
    return pd.concat(pages)


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """All three tables as Markdown."""
    lines = []
    for name, heading in (
        ("embed", "scanpy's default call, means over the seeds (scVI: one seed)"),
        ("embed_halves", "Clusters of half of the molecules, judged on the other half"),
    ):
        if name in tables:
            lines += [f"## {heading}", "", *markdown(means(tables[name]), 4 if name == "embed_halves" else 3), ""]
    if "embed_structureless" in tables:
        numbers = tables["embed_structureless"].groupby(["method", "resolution"], sort=False)["n_clusters"]
        wide = numbers.mean().unstack().reset_index()
        wide.columns = ["method", *(f"resolution {r:g}" for r in wide.columns[1:])]
        heading = "Counts without structure: number of clusters, means over the seeds"
        lines += [f"## {heading}", "", *markdown(wide)]
    return lines


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
