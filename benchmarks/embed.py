"""What scanpy's default call makes of the embedding of counts, beside PCA's and scVI's. No resolution is searched for.

    python benchmarks/embed.py                    # seven sets of RNA counts, three seeds: hours on few cores
    python benchmarks/embed.py --scvi             # scVI with early stopping beside them
    python benchmarks/embed.py --data pbmc68k dropseq_3cl --seeds 0
    python benchmarks/embed.py --quick            # two small sets, one member, one seed

pca is scanpy's tutorial (normalize_total, log1p, 2,000 highly variable genes, 50 components), aeverse is
``ae.tl.embed(adata)``, scvi is scVI on the same 2,000 genes with early stopping. On each embedding ``sc.pp.neighbors(adata,
use_rep=...)`` and ``sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)``. Three tables:

embed                  agreement of the clusters with published labels (ari, nmi), their number, purity (balanced accuracy of
                       the labels of a cell's 15 nearest cells, five folds), seconds of the embedding. Cells of unknown type
                       are embedded and clustered, not judged.
embed_halves           no labels: the molecules are split in two halves, the first is embedded and clustered, and
                       cluster_deviance is the share of the deviance of the second that the clusters explain.
embed_structureless    counts drawn from one profile: every cluster beyond the first is invented.

pbmc68k comes with scanpy; the others are read from ../shared/data, and skipped where they are not there. Written are
benchmarks/results/embed.csv, embed_halves.csv, embed_structureless.csv, and all three as embed.md; with --data or --quick
the tables are printed only.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scores import default_scores
from tables import markdown

import aeverse as ae

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
SETS = ("pbmc68k", "mouse_bladder", "celseq2_5cl", "dropseq_3cl", "snare_cortex", "cite_teaseq", "mosaic_pbmc15k")
HALVED = ("pbmc3k", "pbmc68k", "mouse_bladder", "celseq2_5cl")
RESOLUTIONS = (0.25, 0.5, 1.0)


def read(name: str):
    """RNA counts with ``obs["label"]``; None, and a line, where the set is not there."""
    import anndata as ad
    import mudata as md

    if name == "pbmc68k":
        adata = ae.datasets.pbmc68k_counts()
        adata.obs["label"] = adata.obs["bulk_labels"].astype(str)
    elif (DATA / f"{name}.h5ad").exists():
        adata = ad.read_h5ad(DATA / f"{name}.h5ad")
    elif (DATA / f"{name}.h5mu").exists():
        mdata = md.read_h5mu(DATA / f"{name}.h5mu")
        adata = mdata["rna"].copy()
        adata.obs["label"] = mdata.obs["cell_type"].reindex(adata.obs_names).astype(str)
    else:
        print(f"skipped: {name} (not in {DATA})", flush=True)
        return None
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
def labeled(name: str, methods: list[str], seeds: list[int]) -> list[dict]:
    """Clusters of the default call against the labels."""
    adata = read(name)
    if adata is None:
        return []
    labels, rows = adata.obs["label"].astype(str).to_numpy(), []
    for method in methods:
        for seed in seeds:
            start = time.perf_counter()
            code = METHODS[method](adata, seed)
            seconds = time.perf_counter() - start
            row = {"set": name, "method": method, "seed": seed, **default_scores(code, labels)}
            rows.append(row | {"seconds": seconds})
            print(rows[-1], flush=True)
    return rows


def halved(name: str, methods: list[str]) -> list[dict]:
    """Clusters found with half of the molecules, judged on the other half."""
    adata = read(name)
    if adata is None:
        return []
    ae.pp.thin_counts(adata, 0.5)
    adata = adata[:, np.asarray(adata.layers["thinned"].sum(0)).ravel() > 0].copy()
    train, test, rows = adata.layers["thinned"], adata.layers["thinned_rest"], []
    half = adata.copy()
    half.X = train.copy()
    half.layers.clear()
    for method in methods:
        clusters = ae.metrics.default_clusters(METHODS[method](half, 0))
        deviance = ae.metrics.cluster_deviance(clusters["clusters"], train, test)
        row = {"set": name, "method": method, "n_clusters": clusters["n_clusters"], "cluster_deviance": deviance}
        rows.append(row)
        print(row, flush=True)
    return rows


def structureless(methods: list[str], seeds: list[int]) -> list[dict]:
    """Clusters of 700 cells x 1,000 genes, all drawn from one profile; depths are gamma distributed."""
    import anndata as ad

    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        profile = rng.lognormal(0, 1.5, 1000)
        mean = (rng.gamma(4.0, 375.0, 700) + 100)[:, None] * profile / profile.sum()
        adata = ad.AnnData(sp.csr_matrix(rng.poisson(mean), dtype=np.float32))
        for method in methods:
            code = METHODS[method](adata, seed)
            for resolution in RESOLUTIONS:
                found = ae.metrics.default_clusters(code, resolution=resolution)["n_clusters"]
                rows.append({"method": method, "seed": seed, "resolution": resolution, "n_clusters": found})
                print(rows[-1], flush=True)
    return rows


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds, and below over the sets."""
    by_set = table.groupby(["set", "method"], sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    overall = by_set.groupby("method", sort=False).mean(numeric_only=True).reset_index()
    return pd.concat([by_set, overall.assign(set=f"mean of {by_set['set'].nunique()}")[by_set.columns]])


def text(clusters: pd.DataFrame, halves: pd.DataFrame, nothing: pd.DataFrame) -> str:
    """All three tables as Markdown."""
    lines = ["`python benchmarks/embed.py`, see there; seconds are those of a shared machine.", ""]
    if len(clusters):
        lines += ["## scanpy's default call, means over the seeds", "", *markdown(means(clusters)), ""]
    if len(halves):
        lines += ["## Clusters of half of the molecules, judged on the other half", "", *markdown(halves, 4), ""]
    wide = nothing.groupby(["method", "resolution"], sort=False)["n_clusters"].mean().unstack().reset_index()
    wide.columns = ["method", *(f"resolution {r:g}" for r in wide.columns[1:])]
    lines += ["## Counts without structure: number of clusters, means over the seeds", "", *markdown(wide)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything asked for, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=sorted({*SETS, *HALVED}), help="sets; none given: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--scvi", action="store_true", help="also scVI, which takes long")
    parser.add_argument("--quick", action="store_true", help="two small sets, one member, one seed")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    methods = ["pca", "aeverse_one" if args.quick else "aeverse", *(["scvi"] if args.scvi else [])]
    data = args.data or (["pbmc68k", "dropseq_3cl"] if args.quick else [*SETS, *HALVED])
    seeds = args.seeds[:1] if args.quick else args.seeds
    ae.metrics.default_clusters(
        np.random.default_rng(0).normal(size=(300, 20))
    )  # the first neighbors of a process differ
    clusters = pd.DataFrame([row for name in SETS if name in data for row in labeled(name, methods, seeds)])
    halves = pd.DataFrame([row for name in HALVED if name in data for row in halved(name, methods)])
    nothing = pd.DataFrame(structureless(methods, seeds))
    print(page := text(clusters, halves, nothing))
    if not (args.quick or args.data):  # part of the sets must not replace the tables of all
        tables = {"embed": clusters, "embed_halves": halves, "embed_structureless": nothing}
        for name, table in tables.items():
            table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.4g")
        (RESULTS / "embed.md").write_text(page)


if __name__ == "__main__":
    main()
