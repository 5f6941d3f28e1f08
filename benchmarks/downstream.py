"""Downstream of denoising, where counts are shallow: markers, clusters and a trajectory, with and without it.

    python benchmarks/downstream.py

Methods are those of benchmarks/denoise.py; raw is no denoising. What they give is scaled to 10,000 per cell and log1p is taken.

types        Half of the cells keep a fifth of their molecules, and are denoised. The truth are the markers of the published types
             in the other half of the cells at the full depth (Wilcoxon's test, adjusted p below 0.05, at least twice as much).
             On the denoised cells the same test ranks the genes of each type: `ap` is the average precision of this ranking,
             `top50` the share of its first 50 genes that are markers, means over the types. `false`: share of the genes without
             any sign of being markers in the truth (p above 0.5) that the test calls significant (adjusted p below 0.05).
             ari, nmi, n_clusters, purity: scanpy's default call on 50 components of the denoised cells, with the types.
trajectory   600 cells along a curve through five random profiles of 2,000 genes, about 400 molecules each. `order`: Spearman
             correlation of the diffusion pseudotime from the first cell (scanpy's defaults) with the true one.

Written are benchmarks/results/downstream_types.csv, downstream_trajectory.csv and downstream.md.
"""

from __future__ import annotations

from pathlib import Path

import denoise
import harness
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scores import default_scores, warm_up
from tables import markdown

DATA_SETS = ("dropseq_3cl", "celseq2_5cl", "mouse_bladder")
METHODS = {
    "raw": lambda counts: counts.toarray(),
    **{m: denoise.METHODS[m] for m in denoise.METHODS if m != "gene_means"},
}
DEPTH, FEWEST_CELLS, FEWEST_MOLECULES = 0.2, 20, 20
SEEDS = (0, 1, 2)


def read(data: str, seed: int):
    """Counts of shallow cells and of deep ones (AnnData with ``obs["label"]``), of types with enough cells in both."""
    import anndata as ad

    adata = ad.read_h5ad(harness.DATA / f"{data}.h5ad")
    adata = ad.AnnData(
        sp.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs[["label"]].astype(str), var=adata.var[[]]
    )
    rng = np.random.default_rng(seed)
    first = rng.random(adata.n_obs) < 0.5
    sizes = np.minimum(*(adata.obs["label"][half].value_counts() for half in (first, ~first)))
    kept = adata.obs["label"].isin(sizes.index[sizes >= FEWEST_CELLS]).to_numpy()
    shallow, deep = adata[first & kept].copy(), adata[~first & kept].copy()
    shallow.X.data = rng.binomial(shallow.X.data.astype(int), DEPTH).astype(np.float32)
    shallow.X.eliminate_zeros()
    genes = np.asarray(shallow.X.sum(0)).ravel() >= FEWEST_MOLECULES
    return shallow[:, genes].copy(), deep[:, genes].copy()


def tested(values, adata) -> pd.DataFrame:
    """Wilcoxon's test of each type against the other cells, indexed by type and gene."""
    import scanpy as sc

    normalized = log_normalized(values, adata)
    sc.tl.rank_genes_groups(normalized, "label", method="wilcoxon")
    return sc.get.rank_genes_groups_df(normalized, None).set_index(["group", "names"])


def log_normalized(values, adata):
    """An AnnData of log1p of counts per 10,000."""
    import anndata as ad
    import scanpy as sc

    values = values.copy() if sp.issparse(values) else np.maximum(np.asarray(values, np.float32), 0)
    normalized = ad.AnnData(values, obs=adata.obs.astype("category"), var=adata.var[[]])
    sc.pp.normalize_total(normalized, target_sum=1e4)
    sc.pp.log1p(normalized)
    return normalized


def types(data: str, method: str, seed: int) -> dict:
    """Markers and clusters of shallow cells."""
    import scanpy as sc
    from sklearn.metrics import average_precision_score

    shallow, deep = read(data, seed)
    with harness.timed():
        values = METHODS[method](shallow.X)
    truth = tested(deep.X, deep)
    result = tested(values, shallow).reindex(truth.index)
    marker = (truth["pvals_adj"] < 0.05) & (truth["logfoldchanges"] > 1)
    scores = result["scores"].fillna(-np.inf).clip(-1e6, 1e6)
    by_type = [(marker[group], scores[group]) for group in truth.index.unique("group")]
    by_type = [(is_marker, of_type) for is_marker, of_type in by_type if is_marker.any()]
    normalized = log_normalized(values, shallow)
    sc.pp.pca(normalized, n_comps=min(50, shallow.n_obs - 1), random_state=0)
    return {
        "ap": np.mean([average_precision_score(*pair) for pair in by_type]),
        "top50": np.mean([is_marker[of_type.nlargest(50).index].mean() for is_marker, of_type in by_type]),
        "false": (result["pvals_adj"] < 0.05)[truth["pvals"] > 0.5].mean(),
        **default_scores(normalized.obsm["X_pca"], shallow.obs["label"].to_numpy()),
    }


def trajectory(data: str, method: str, seed: int) -> dict:
    """Order of cells along a simulated curve."""
    import anndata as ad
    import scanpy as sc
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    time = np.sort(rng.random(600))
    base, knots = rng.normal(0, 1.5, 2000), rng.normal(0, 0.5, (5, 2000))
    place = time * (len(knots) - 1)
    before = np.minimum(place.astype(int), len(knots) - 2)
    share = (place - before)[:, None]
    rate = np.exp(base + (1 - share) * knots[before] + share * knots[before + 1])
    depth = rng.gamma(4, 100, 600)[:, None]
    counts = sp.csr_matrix(rng.poisson(depth * rate / rate.sum(1, keepdims=True)), dtype=np.float32)
    counts = counts[:, np.asarray(counts.sum(0)).ravel() > 0]
    with harness.timed():
        values = METHODS[method](counts)
    obs = pd.DataFrame({"label": ["cell"] * 600}, [str(i) for i in range(600)])
    cells = log_normalized(values, ad.AnnData(counts, obs=obs))
    warm_up()
    sc.pp.pca(cells, random_state=0)
    sc.pp.neighbors(cells, random_state=0)
    sc.tl.diffmap(cells)
    cells.uns["iroot"] = 0
    sc.tl.dpt(cells)
    pseudotime = cells.obs["dpt_pseudotime"].replace(np.inf, 1).to_numpy()
    return {"order": spearmanr(pseudotime, time)[0]}


def applies(data: str, method: str, seed: int) -> bool:
    """scVI takes long: one seed."""
    return not method.startswith("scvi") or seed == 0


QUICK = ["raw", "pca"]
CASES = [
    harness.Cases(
        "downstream_types", DATA_SETS, METHODS, types, SEEDS, (DATA_SETS[:1], QUICK), applies, denoise.UNUSUAL
    ),
    harness.Cases(
        "downstream_trajectory", ["curve"], METHODS, trajectory, SEEDS, (["curve"], QUICK), applies, denoise.UNUSUAL
    ),
]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the seeds."""
    lines = []
    for name, table in tables.items():
        groups = table.groupby(["data", "method"], sort=False)
        mean = groups.mean(numeric_only=True).drop(columns=["seed", "seconds", "memory_mb"], errors="ignore")
        mean.insert(0, "seeds", groups.size())
        lines += [f"## {name.removeprefix('downstream_')}\n", *markdown(mean.reset_index()), ""]
    return lines


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
