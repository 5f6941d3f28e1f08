"""`aeverse demo`: from raw counts to clusters and pictures, on real blood cells that come inside scanpy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

LABELS = "bulk_labels"
# Markers that are counted in few of the cells that have them, and what the labels of these cells have in common.
MARKERS = {"CD8A": "CD8", "CCR7": "Naive"}
DOTS = (
    "CCR7",
    "IL7R",
    "CD4",
    "CD8A",
    "CD8B",
    "GZMK",
    "CCL5",
    "GNLY",
    "NKG7",
    "FCGR3A",
    "MS4A1",
    "CD79A",
    "FCER1A",
    "LYZ",
)


def run(folder: Path) -> str:
    """Denoise, cluster and picture the bundled counts; write all results to `folder` and return a summary."""
    from aeverse import datasets, tl

    clock = _Clock()
    adata = datasets.pbmc68k_counts()
    adata.layers["counts"] = adata.X.copy()
    clock.stop("load")
    tl.denoise(adata, layer="counts")
    clock.stop("denoise")
    by_pca = _pca_clusters(adata)
    clock.stop("PCA and clusters")
    _cluster(adata, "X_ae")
    _umap(adata)
    clock.stop("clusters and UMAP")
    _write(adata, folder, clock.seconds["denoise"])
    clock.stop("files and pictures")
    return _summary(adata, by_pca, clock)


def _cluster(adata: AnnData, use_rep: str) -> None:
    import scanpy as sc

    sc.pp.neighbors(adata, use_rep=use_rep)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)


def _umap(adata: AnnData) -> None:
    import scanpy as sc

    sc.tl.umap(adata)


def _pca_clusters(adata: AnnData) -> AnnData:
    """The usual way, on a copy: normalize, logarithm, PCA, then the same clustering."""
    import scanpy as sc

    other = adata.copy()
    other.X = other.layers["counts"].copy()
    sc.pp.normalize_total(other, target_sum=1e4)
    sc.pp.log1p(other)
    sc.pp.pca(other)
    _cluster(other, "X_pca")
    return other


def _write(adata: AnnData, folder: Path, seconds: float) -> None:
    from matplotlib.figure import Figure

    from aeverse import _report, pl

    adata.write_h5ad(folder / "pbmc68k_denoised.h5ad", compression="gzip", compression_opts=1)

    def picture(name: str, plot, n: int, size: tuple[float, float]) -> None:
        axes = Figure(figsize=size, layout="constrained").subplots(1, n)
        plot(adata, ax=axes, save=folder / name)

    picture("umap_clusters.png", lambda a, **on: pl.latent(a, color="leiden", **on), 1, (5.4, 4.2))
    picture("umap_labels.png", lambda a, **on: pl.latent(a, color=LABELS, **on), 1, (7.0, 4.2))
    picture("markers_raw_denoised.png", lambda a, **on: pl.denoised(a, list(MARKERS), **on), 4, (18.0, 3.8))
    pl.dotplot(adata, DOTS, groupby=LABELS, save=folder / "dotplot_raw_denoised.png", show=False)
    picture("training.png", pl.history, 2, (8.4, 3.2))
    title, arguments = "700 blood cells (pbmc68k, reduced)", {"key_added": "denoised"}
    run = _report.Run("denoise", "aeverse demo", title, adata, arguments, seconds, color=LABELS)
    (folder / "report.html").write_text(_report.page(run), "utf-8")


def _summary(adata: AnnData, by_pca: AnnData, clock: _Clock) -> str:
    from sklearn.metrics import adjusted_rand_score

    from aeverse._report import heldout_deviance_explained, read_scores

    labels = adata.obs[LABELS]
    lines = [
        f"{adata.n_obs} blood cells x {adata.n_vars} genes, raw counts (pbmc68k, bundled with scanpy)",
        "",
        f"held-out deviance explained      {heldout_deviance_explained(adata, 'denoised'):.3f}",
        "Leiden clusters at scanpy's defaults against the published labels (adjusted Rand index; 1 is the same partition):",
        f"  on the embedding (X_ae)        {adjusted_rand_score(labels, adata.obs['leiden']):.3f}"
        f"  ({adata.obs['leiden'].nunique()} clusters)",
        f"  on principal components        {adjusted_rand_score(labels, by_pca.obs['leiden']):.3f}"
        f"  ({by_pca.obs['leiden'].nunique()} clusters)",
        "markers that counts miss: how well they find the cells of their type (area under the curve; 0.5 is by chance):",
        *(_marker_line(adata, by_pca, gene, part) for gene, part in MARKERS.items()),
        "held-out deviance explained in another data set (pbmc3k, benchmarks/denoise.py of aeverse):",
        "  " + ", ".join(f"{method} {score:.3f}" for method, score in read_scores()["pbmc3k"].items() if score),
        "",
        "seconds: " + ", ".join(f"{step} {seconds:.1f}" for step, seconds in clock.seconds.items()),
    ]
    return "\n".join(lines)


def _marker_line(adata: AnnData, normalized: AnnData, gene: str, part: str) -> str:
    """How well raw (normalized) and denoised values of a marker tell the cells of a type from the others."""
    from sklearn.metrics import roc_auc_score

    from aeverse import get

    cells = adata.obs[LABELS].str.contains(part).to_numpy()
    raw = normalized[:, gene].X.toarray().ravel()
    denoised = get.denoised(adata, gene)[gene].to_numpy() / np.asarray(adata.layers["counts"].sum(1)).ravel()
    return (
        f"  {gene}, counted in {(raw[cells] > 0).mean():.0%} of the {cells.sum()} cells labeled {part!r}: "
        f"raw {roc_auc_score(cells, raw):.3f}, denoised {roc_auc_score(cells, denoised):.3f}"
    )


class _Clock:
    """Seconds of each stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self.start = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.start = now - self.start, now
