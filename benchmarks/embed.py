"""Embedding of counts: the autoencoder's code beside PCA.

    python benchmarks/embed.py --data pbmc3k mouse_bladder celseq2_5cl

Both codes have 32 dimensions; PCA is scanpy's recipe (normalise, log1p, 3,000 highly variable genes, scale). Printed, and
written to benchmarks/results/embed.csv and embed.md:

ari        Leiden at resolution 1 on 15 neighbours against the labels, where there are any
best_ari   the best of 15 resolutions (0.005 to 2)
biology    mean of NMI, ARI, label silhouette, cLISI and rare-type silhouette (scib-metrics)
clusters   number of Leiden clusters at resolution 1
seconds    wall time from the counts to the code
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
RESOLUTIONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)


def pca(adata, seed):
    """Scanpy's recipe."""
    import scanpy as sc

    adata = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=3000)
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.scale(adata, max_value=10)
    sc.pp.pca(adata, n_comps=32, random_state=seed)
    return adata.obsm["X_pca"]


def aeverse(adata, seed):
    """The default call of tl.embed."""
    import aeverse as ae

    return ae.tl.embed(adata, random_state=seed, copy=True).obsm["X_ae"]


def aeverse_denoise(adata, seed):
    """The code that tl.denoise writes: three members side by side."""
    import aeverse as ae

    return ae.tl.denoise(adata, random_state=seed, copy=True, genes=list(adata.var_names[:1])).obsm["X_ae"]


METHODS = {f.__name__: f for f in (pca, aeverse, aeverse_denoise)}


def score(code, labels, seed) -> dict:
    """Clusters of a code and, with labels, how well it tells them apart."""
    import scanpy as sc
    from anndata import AnnData
    from sklearn.metrics import adjusted_rand_score

    adata = AnnData(np.ascontiguousarray(code, np.float32))
    sc.pp.neighbors(adata, use_rep="X", random_state=seed)
    aris = {}
    for resolution in RESOLUTIONS:
        sc.tl.leiden(adata, resolution=resolution, flavor="igraph", n_iterations=2, random_state=seed)
        if resolution == 1:
            clusters = adata.obs["leiden"].nunique()
        if labels is not None:
            aris[resolution] = adjusted_rand_score(labels, adata.obs["leiden"])
    if labels is None:
        return {"clusters": clusters}
    sys.path.insert(0, str(DATA.parent))
    from scoring import biology_score

    return {
        "clusters": clusters,
        "ari": aris[1.0],
        "best_ari": max(aris.values()),
        "biology": biology_score(code, labels)[0],
    }


def main() -> None:
    """Run everything asked for and write the table."""
    import anndata as ad

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["pbmc3k", "mouse_bladder", "celseq2_5cl"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    rows = []
    for data in args.data:
        adata = ad.read_h5ad(DATA / f"{data}.h5ad")
        labels = adata.obs["label"].astype(str).to_numpy() if "label" in adata.obs else None
        for seed in args.seeds:
            for method in args.methods:
                start = time.perf_counter()
                code = METHODS[method](adata, seed)
                seconds = time.perf_counter() - start
                rows.append(
                    {"data": data, "method": method, "seed": seed, **score(code, labels, seed), "seconds": seconds}
                )
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "embed.csv", index=False, float_format="%.4g")
    mean = table.groupby(["data", "method"], sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    lines = ["| " + " | ".join(mean.columns) + " |", "|" + "---|" * len(mean.columns)]
    for values in mean.itertuples(index=False):
        cells = ["" if v != v else f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
        lines.append("| " + " | ".join(cells) + " |")
    (RESULTS / "embed.md").write_text("`python benchmarks/embed.py`, see there.\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
