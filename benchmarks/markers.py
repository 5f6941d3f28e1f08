"""Markers of clusters that come from the same counts: false ones where there are none, and how many real ones are found.

    python benchmarks/markers.py

Two tables and a picture:

markers   Counts without types. *profile*: negative binomial counts of one profile, with the profile, the dispersions and the
          depths of the 1,000 most abundant genes of real counts. *shuffled*: one cell line, in which the counts of each gene
          are shuffled among cells of similar depth, so that no two genes go together. *line*: the cell line itself, which is
          one type, but whose cells cycle. Clusters, markers (adjusted p below 0.05 and more in the cluster), and the share of
          the p-values below 0.05, of genes with 20 molecules. Methods: scanpy (Leiden on principal components, then
          ``sc.tl.rank_genes_groups`` with Wilcoxon's test, on all molecules); poisson halves and negative binomial halves (one
          split: clusters of the first half, tested on the second, without asking whether they agree with others); aeverse
          (``ae.tl.markers``).
types     Published types (markers_types). The cells are divided in two sets. The truth: markers of the published types in the second set
          (adjusted p below 0.05, at least twice as much). Of these, the share found in the first set by scanpy, which is given
          the published types, and by ``ae.tl.markers(groupby=...)``; and the share of all that each finds (adjusted p below
          0.05) which differs in the same direction in the second set (adjusted p below 0.05).
picture   docs/_static/markers_qq.png: p-values of *profile* of celseq2_5cl against uniform ones; made by --picture.

Data are read from ../shared/data. Written are benchmarks/results/markers.csv, markers_types.csv and markers.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import harness
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from tables import markdown

import aeverse as ae
from aeverse.tl import _marker_tests, _markers
from aeverse.tl._multiple_testing import benjamini_hochberg

LINES = {"celseq2_5cl": "H2228", "dropseq_3cl": "H1975"}
TYPES = ("celseq2_5cl", "dropseq_3cl", "pbmc68k")
ABUNDANT = 1000  # genes of the counts of one profile
N_SPLITS = 5
FEWEST = 20  # molecules of a gene, whose p-values are counted


def read(name: str) -> ad.AnnData:
    """Counts with ``obs["label"]``, and the genes that have molecules."""
    if name == "pbmc68k":
        adata = ae.datasets.pbmc68k_counts()
        adata.obs["label"] = adata.obs["bulk_labels"].astype(str)
    else:
        adata = ad.read_h5ad(harness.DATA / f"{name}.h5ad")
    adata = ad.AnnData(sp.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs, var=adata.var[[]])
    sc.pp.filter_genes(adata, min_counts=FEWEST)
    return adata


# ---- counts without types ----------------------------------------------------------------------------------------
def line(name: str) -> ad.AnnData:
    """One cell line."""
    adata = read(name)
    adata = adata[adata.obs["label"] == LINES[name]].copy()
    sc.pp.filter_genes(adata, min_counts=FEWEST)
    return adata


def profile(name: str, seed: int) -> ad.AnnData:
    """One profile; dispersions within the clusters of the real cells."""
    rng, real = np.random.default_rng(seed), read(name)
    real = real[:, np.argsort(-np.asarray(real.X.sum(0)).ravel())[:ABUNDANT]].copy()
    [clusters] = _markers._clusterings(real.X, "pca", [1.0], 0)
    size = 1 / np.maximum(_marker_tests.dispersions(real.X, clusters), 1e-3)
    depth, total = np.asarray(real.X.sum(1)).ravel(), np.asarray(real.X.sum(0)).ravel()
    mean = depth[:, None] * total / total.sum()
    return ad.AnnData(sp.csr_matrix(rng.poisson(rng.gamma(size, 1 / size, mean.shape) * mean), dtype=np.float32))


def shuffled(name: str, seed: int) -> ad.AnnData:
    """Each gene shuffled among ten cells of similar depth."""
    rng, real = np.random.default_rng(seed), line(name)
    counts, order = real.X.toarray(), np.argsort(np.asarray(real.X.sum(1)).ravel())
    for cells in np.array_split(order, max(len(order) // 10, 1)):
        counts[cells] = rng.permuted(counts[cells], axis=0)
    return ad.AnnData(sp.csr_matrix(counts))


def by_scanpy(adata: ad.AnnData, groups) -> pd.DataFrame:
    """Wilcoxon's test on log-normalized counts."""
    normalized = ad.AnnData(adata.X.copy(), obs=pd.DataFrame({"group": pd.Categorical(groups)}, adata.obs_names))
    normalized.var_names = adata.var_names
    sc.pp.normalize_total(normalized, target_sum=1e4)
    sc.pp.log1p(normalized)
    sc.tl.rank_genes_groups(normalized, "group", method="wilcoxon")
    return sc.get.rank_genes_groups_df(normalized, None)


def by_aeverse(adata: ad.AnnData, groupby: str | None) -> pd.DataFrame:
    """``ae.tl.markers``, with ``group`` also where there is one group only."""
    ae.tl.markers(adata, groupby=groupby, n_splits=N_SPLITS)
    names = adata.uns["markers"]["names"].dtype.names
    return pd.concat([sc.get.rank_genes_groups_df(adata, g, key="markers").assign(group=g) for g in names])


def halves(counts: sp.csr_matrix, dispersion: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and p-values of the clusters of the first half in the second half."""
    first, second = _marker_tests.split_counts(counts, dispersion, np.random.default_rng(seed))
    [clusters] = _markers._clusterings(first, "pca", [1.0], seed)
    member = sp.csr_matrix(clusters == np.arange(clusters.max() + 1)[:, None], dtype=np.float32)
    return _marker_tests.group_scores(second, member, 2 * dispersion)


def by_halves(adata: ad.AnnData, dispersion: np.ndarray) -> pd.DataFrame:
    """One split."""
    parts = [
        pd.DataFrame({"names": adata.var_names, "scores": z, "pvals": p, "pvals_adj": benjamini_hochberg(p)})
        for z, p in zip(*halves(adata.X, dispersion, 0), strict=True)
    ]
    return pd.concat(parts)


def nothing(data: str, method: str, seed: int) -> dict:
    """Markers where there are none."""
    kind, name = data.split(" of ")
    adata = {"profile": profile, "shuffled": shuffled}[kind](name, seed) if kind != "line" else line(name)
    [clusters] = _markers._clusterings(adata.X, "pca", [1.0], 0)
    dispersion = _marker_tests.dispersions(adata.X, clusters)
    with harness.timed():
        table = NOTHING[method](adata, clusters, dispersion)
    markers = table[(table["pvals_adj"] < 0.05) & (table["scores"] > 0)]
    row = {"cells": adata.n_obs, "genes": adata.n_vars, "clusters": int(clusters.max()) + 1}
    return {**row, "markers": markers["names"].nunique(), "share of p < 0.05": float((table["pvals"] < 0.05).mean())}


NOTHING = {
    "scanpy": lambda adata, clusters, dispersion: by_scanpy(adata, clusters.astype(str)),
    "poisson halves": lambda adata, clusters, dispersion: by_halves(adata, 0 * dispersion),
    "negative binomial halves": lambda adata, clusters, dispersion: by_halves(adata, dispersion),
    "aeverse": lambda adata, clusters, dispersion: by_aeverse(adata, None),
}


# ---- published types ---------------------------------------------------------------------------------------------
def types(data: str, method: str, seed: int) -> dict:
    """Markers of published types in one half of the cells, compared with those in the other half."""
    adata = read(data)
    adata.obs["label"] = adata.obs["label"].astype(str)
    first = np.random.default_rng(seed).random(adata.n_obs) < 0.5
    large = adata.obs["label"].value_counts()
    kept = adata.obs["label"].isin(large.index[large >= 20]).to_numpy()
    a, b = adata[first & kept].copy(), adata[~first & kept].copy()
    truth = by_scanpy(b, b.obs["label"]).set_index(["group", "names"])
    real = truth[(truth["pvals_adj"] < 0.05) & (truth["logfoldchanges"] > 1)].index
    significant = truth["pvals_adj"] < 0.05
    up, down = truth.index[significant & (truth["scores"] > 0)], truth.index[significant & (truth["scores"] < 0)]
    with harness.timed():
        table = by_scanpy(a, a.obs["label"]) if method == "scanpy" else by_aeverse(a, "label")
    table = table[table["pvals_adj"] < 0.05].set_index(["group", "names"])
    higher, lower = table.index[table["scores"] > 0], table.index[table["scores"] < 0]
    agreeing = higher.isin(up).sum() + lower.isin(down).sum()
    row = {"types": a.obs["label"].nunique(), "types found": None, "real markers": len(real)}
    if method == "aeverse":
        row["types found"] = int((a.uns["ae"]["markers"]["groups"]["found"] > 0.5).sum())
    return {**row, "found": float(real.isin(higher).mean()), "agreeing": float(agreeing / max(len(table), 1))}


# ---- picture -----------------------------------------------------------------------------------------------------
def p_values(adata: ad.AnnData) -> dict[str, np.ndarray]:
    """Of all clusters and genes, of all molecules or of five splits."""
    counts = adata.X
    [clusters] = _markers._clusterings(counts, "pca", [1.0], 0)
    dispersion = _marker_tests.dispersions(counts, clusters)
    found = {"scanpy, same molecules": by_scanpy(adata, clusters.astype(str))["pvals"].to_numpy()}
    for label, used in (
        ("halves, split as Poisson", 0 * dispersion),
        ("halves, split as negative binomial", dispersion),
    ):
        found[label] = np.concatenate([halves(counts, used, seed)[1].ravel() for seed in range(5)])
    return found


def picture(adata: ad.AnnData, path: Path) -> None:
    """Quantiles of the p-values against those of a uniform distribution."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    for label, p in p_values(adata).items():
        p = np.sort(p[np.isfinite(p)])
        uniform = (np.arange(len(p)) + 0.5) / len(p)
        shown = np.unique(np.geomspace(1, len(p), 400).astype(int)) - 1
        ax.plot(-np.log10(uniform[shown]), -np.log10(np.maximum(p[shown], 1e-20)), ".", ms=3, label=label)
    ax.axline((0, 0), slope=1, color="0.5", lw=1)
    ax.set(xlabel="expected  -log10 p", ylabel="observed  -log10 p", ylim=(0, 20), title="Counts without clusters")
    ax.legend(frameon=False, markerscale=3, fontsize="small")
    fig.savefig(path, dpi=150)


SETS = ["profile of pbmc3k", "profile of celseq2_5cl", "shuffled of celseq2_5cl", "line of celseq2_5cl"]
BY_TYPE = {"scanpy": None, "aeverse": None}
CASES = [
    harness.Cases("markers", [*SETS, "line of dropseq_3cl"], NOTHING, nothing, quick=(SETS[3:], ["scanpy"])),
    harness.Cases("markers_types", TYPES, BY_TYPE, types, quick=(TYPES[2:], ["scanpy"])),
]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Both tables, and the picture of p-values."""
    lines = []
    for name, heading in (("markers", "Counts without types"), ("markers_types", "Published types")):
        shown = tables[name].drop(columns=["seed", "seconds", "cpu_seconds", "memory_mb"], errors="ignore")
        lines += [f"### {heading}", "", *markdown(shown), ""]
    return lines


if __name__ == "__main__":
    if "--picture" in sys.argv:
        picture(profile("celseq2_5cl", 1), harness.ROOT / "docs" / "_static" / "markers_qq.png")
    else:
        harness.main(__file__, __doc__, CASES, write)
