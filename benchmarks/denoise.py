"""Denoising: aeverse beside its peers, by held-out molecules.

    python benchmarks/denoise.py --methods aeverse pca magic

A tenth of the molecules of each entry is held out; a method sees the other nine tenths.

D2           Poisson deviance of the held-out molecules explained beyond library size x gene mean; higher is better
mse_pred     squared error on log1p(counts per 10,000), of its expectation under Poisson(mean); lower is better
ari          agreement of Leiden clusters (30 PCs of the log of the denoised matrix) with the labels, where there are any
seconds      wall time from the counts to the denoised matrix, imports not counted; cpu_seconds the same of the processor
memory_mb    peak of the process; beyond what it held before the call in rows that have cpu_seconds

Written are benchmarks/results/denoise.csv, denoise.md and denoise.png, and the table that the report of the package shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import scipy.sparse as sp
from tables import markdown

LABELS = {"mouse_bladder": "label", "celseq2_5cl": "label"}
DATA_SETS = ("pbmc3k", "mouse_bladder", "celseq2_5cl")


# ---- methods: counts (CSR) to a denoised matrix ------------------------------------------------------------------
def gene_means(counts):
    """Library size x gene mean."""
    return np.asarray(counts.sum(1)) * np.asarray(counts.sum(0)) / counts.sum()


def aeverse(counts):
    """The default call."""
    import aeverse as ae

    adata = _adata(counts)
    ae.tl.denoise(adata)
    return adata.layers["denoised"]


def aeverse_one(counts):
    """One member instead of an ensemble."""
    import aeverse as ae

    adata = _adata(counts)
    ae.tl.denoise(adata, n_models=1)
    return adata.layers["denoised"]


def aeverse_prior(counts):
    """The decoder's mean instead of the posterior mean."""
    import aeverse as ae

    model = ae.models.Autoencoder().fit(_adata(counts))
    return model.decode(model.encode(_adata(counts)), library=np.asarray(counts.sum(1)).ravel())


def pca(counts, n_comps=30):
    """Reconstruction of log-normalized counts (scanpy's normalize_total and log1p) from 30 components, back to counts."""
    from sklearn.utils.extmath import randomized_svd

    library = np.maximum(np.asarray(counts.sum(1), np.float32), 1)
    x = np.log1p(counts.toarray() / library * np.median(library))
    mean = x.mean(0)
    u, s, v = randomized_svd(x - mean, n_comps, random_state=0)
    return np.maximum(np.expm1((u * s) @ v + mean), 0) * library / np.median(library)


def knn_smoothing(counts, k=15):
    """Sums over the 15 nearest cells on 30 components (as Wagner et al., 2018, one round)."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.utils.extmath import randomized_svd

    root, _ = _root(counts)
    u, s, _ = randomized_svd(root - root.mean(0), 30, random_state=0)
    graph = NearestNeighbors(n_neighbors=k).fit(u * s).kneighbors_graph(u * s)
    return (graph @ counts).toarray()


def magic(counts):
    """MAGIC with its recommended settings: library-size normalized, square root, t='auto'... and back."""
    import magic as magic_impute

    root, library = _root(counts)
    operator = magic_impute.MAGIC(random_state=0, verbose=0, n_jobs=1)
    return np.maximum(operator.fit_transform(root, genes="all_genes"), 0) ** 2 * library


def alra(counts):
    """ALRA (Linderman et al., 2022): low rank of log-normalized values, thresholded and rescaled per gene; back to counts."""
    from sklearn.utils.extmath import randomized_svd

    library = np.maximum(np.asarray(counts.sum(1)), 1)
    x = np.log1p(counts.toarray() / library * 1e4)
    _, s, _ = randomized_svd(x, 100, random_state=0)
    gaps = -np.diff(s)
    noise = gaps[79:]
    k = int(np.flatnonzero((gaps - noise.mean()) / noise.std() > 6).max()) + 1
    u, s, v = randomized_svd(x, k, random_state=0)
    low = (u * s) @ v
    low[low <= np.abs(low.min(0))] = 0
    for g in range(x.shape[1]):
        here, there = low[:, g] > 0, x[:, g] > 0
        if here.sum() > 1 and there.sum() > 1 and low[here, g].std() > 0:
            scaled = (low[here, g] - low[here, g].mean()) / low[here, g].std() * x[there, g].std() + x[there, g].mean()
            low[here, g] = np.maximum(scaled, 0)
    low[(low == 0) & (x > 0)] = x[(low == 0) & (x > 0)]
    return np.expm1(low) * library / 1e4


def cellmapper(counts):
    """CellMapper as on Open Problems: three steps along UMAP's kernel over the components of highly variable genes."""
    import scanpy as sc
    from cellmapper import CellMapper

    adata = _adata(counts)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata)
    sc.pp.pca(adata)
    mapper = CellMapper(adata)
    mapper.compute_neighbors(use_rep="X_pca")
    mapper.compute_mapping_matrix(kernel_method="umap")
    mapper.map_layers(key="counts", t=3)
    smoothed = mapper.query_imputed.X
    return smoothed.toarray() if sp.issparse(smoothed) else np.asarray(smoothed)


def _scvi(counts, **train):
    import scvi

    scvi.settings.seed = 0
    adata = _adata(counts)
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(accelerator="cpu", enable_progress_bar=False, **train)
    return model.get_normalized_expression(library_size="latent", return_numpy=True)


def scvi_default(counts):
    """scVI, default number of epochs."""
    return _scvi(counts)


def scvi_early_stopping(counts):
    """scVI with early stopping."""
    return _scvi(counts, early_stopping=True)


METHODS = {
    f.__name__: f
    for f in (
        gene_means, aeverse, aeverse_one, aeverse_prior, pca, knn_smoothing, alra, magic, cellmapper, scvi_early_stopping,
        scvi_default,
    )
}  # fmt: skip
UNUSUAL = ("aeverse_one", "aeverse_prior", "scvi_default")


def _adata(counts):
    from anndata import AnnData

    return AnnData(counts.copy())


def _root(counts):
    library = np.maximum(np.asarray(counts.sum(1), np.float32), 1)
    return np.sqrt(counts.toarray() / library), library


# ---- one case ----------------------------------------------------------------------------------------------------
def score(data: str, method: str, seed: int) -> dict:
    """Score one method on one split."""
    import anndata as ad

    sys.path.insert(0, str(harness.DATA.parent))
    from scoring import deviance_explained, mse_pred, split_molecules

    adata = ad.read_h5ad(harness.DATA / f"{data}.h5ad")
    train, test, _ = split_molecules(adata.X, seed)
    METHODS[method](train[:64]) if method.startswith("aeverse") else None  # load what loads when first used
    with harness.timed():
        denoised = np.asarray(METHODS[method](train), np.float32)
    return {
        "D2": deviance_explained(denoised, train, test),
        "mse_pred": mse_pred(denoised, train, test),
        "ari": _ari(denoised, adata.obs[LABELS[data]]) if data in LABELS else None,
    }


def _ari(denoised, labels) -> float:
    import scanpy as sc
    from anndata import AnnData
    from sklearn.metrics import adjusted_rand_score

    adata = AnnData(np.maximum(denoised, 0))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=30, random_state=0)
    sc.pp.neighbors(adata, random_state=0)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, random_state=0)
    return float(adjusted_rand_score(labels.astype(str), adata.obs["leiden"]))


QUICK = ["mouse_bladder"], ["gene_means", "pca", "aeverse_one"]
CASES = [harness.Cases("denoise", DATA_SETS, METHODS, score, quick=QUICK, unusual=UNUSUAL)]


# ---- tables ------------------------------------------------------------------------------------------------------
def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the splits, their picture, and what the report of the package shows."""
    table = tables["denoise"]
    mean = table.groupby(["data", "method"]).mean(numeric_only=True).drop(columns="seed")
    mean.insert(0, "splits", table.groupby(["data", "method"]).size())
    mean = mean.sort_values(["data", "D2"], ascending=[True, False]).reset_index()
    _draw(mean, folder)
    if folder == harness.RESULTS:
        scores = mean[["data", "method", "D2"]].rename(columns={"D2": "deviance_explained"})
        scores.round(4).to_csv(harness.ROOT / "src" / "aeverse" / "_denoising_scores.csv", index=False)
    return markdown(mean, decimals=4)


def _draw(mean: pd.DataFrame, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(mean["data"]))
    fig, axes = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 3.6), layout="constrained", squeeze=False)
    for ax, data in zip(axes.flat, sets, strict=True):
        part = mean[mean["data"] == data].sort_values("D2")
        colors = ["#d95f02" if m.startswith("aeverse") else "#7f7f7f" for m in part["method"]]
        ax.barh(part["method"], part["D2"].clip(lower=-0.05), color=colors)
        ax.axvline(0, color="black", lw=0.8)
        ax.set(title=data, xlabel="D2 (cut at -0.05)", xticks=[-0.05, 0, 0.05, 0.1])
    fig.savefig(folder / "denoise.png", dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
