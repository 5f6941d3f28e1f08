"""tl.embed with batch_key: are batches mixed, and are the cell types still there?

    python benchmarks/batches.py                    # everything; scVI and scANVI take most of the time

The cells of snare_cortex (RNA, 12 batches) and 4,000 of mosaic_pbmc15k (RNA, 2 batches: two experiments; cells of unknown type
are embedded, and not judged) are embedded by one call of tl.embed each, with the defaults of the method:

aeverse, aeverse_batch    ours, without and with batch_key
pca                       of scanpy's recipe, which knows nothing of batches
harmony                   harmonypy's defaults on the components of pca
scvi                      with batch_key
scanvi                    scVI's model, trained further with the published types, as its tutorial does. It is told what the
                          scores ask for: its row is no peer of the others

batch      the mean of what follows, aeverse.metrics.batch_score
ilisi      effective number of batches among 90 neighbors, scaled to 0 .. 1
kbet       share of cells whose 50 neighbors hold the batches in the proportions of all cells; within each type, where types
           are known in more than one batch (snare_cortex)
silhouette, connectivity   of the batches within each type, and of the types, likewise
ari, nmi, n_clusters       of scanpy's default call with the types, and purity: balanced accuracy of the labels of a cell's 15
                           nearest cells
seconds    of the embedding; cpu_seconds of the processor, one thread

Written are benchmarks/results/batches.csv, batches.md and batches.png.
"""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pandas as pd
from scores import default_scores
from tables import markdown

import aeverse as ae

CELLS = {"snare_cortex": 6989, "mosaic_pbmc15k": 4000}  # drawn at random; scVI takes long
SCORES = ("ari", "nmi", "n_clusters", "purity")
PARTS = ("ilisi", "kbet", "silhouette", "connectivity")


def read(name: str):
    """RNA counts with ``obs["label"]`` and ``obs["batch"]``."""
    import mudata as md

    mdata = md.read_h5mu(harness.DATA / f"{name}.h5mu")
    rna = mdata["rna"].copy()
    for column, source in (("label", "cell_type"), ("batch", "batch")):
        rna.obs[column] = mdata.obs[source].reindex(rna.obs_names).astype(str).to_numpy()
    return rna[np.sort(np.random.default_rng(0).permutation(rna.n_obs)[: CELLS[name]])].copy()


# ---- methods: (counts, seed) -> embedding --------------------------------------------------------------------------
def embedded(adata, seed: int, **options) -> np.ndarray:
    """One call."""
    ae.tl.embed(adata, **options, key_added="X", random_state=seed, progress=False)
    return adata.obsm["X"]


def harmony(adata, seed: int) -> np.ndarray:
    """The components of pca, moved by Harmony."""
    import harmonypy

    moved = np.asarray(harmonypy.run_harmony(embedded(adata, seed, method="pca"), adata.obs, "batch").Z_corr)
    return np.ascontiguousarray(moved if len(moved) == adata.n_obs else moved.T, np.float32)


def scvi_model(adata, seed: int):
    """scVI with its defaults on the 2,000 genes of scanpy's recipe; it knows of the types, and does not use them."""
    import scanpy as sc
    import scvi as scvi_tools

    scvi_tools.settings.seed = seed
    normalized = adata.copy()
    sc.pp.normalize_total(normalized)
    sc.pp.log1p(normalized)
    sc.pp.highly_variable_genes(normalized, n_top_genes=min(2000, adata.n_vars))
    adata = adata[:, normalized.var["highly_variable"]].copy()
    scvi_tools.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="label")
    model = scvi_tools.model.SCVI(adata)
    model.train(enable_progress_bar=False)
    return model


def scvi(adata, seed: int) -> np.ndarray:
    """The latent space of scVI."""
    return scvi_model(adata, seed).get_latent_representation()


def scanvi(adata, seed: int) -> np.ndarray:
    """The latent space of scANVI after scVI."""
    from scvi.model import SCANVI

    model = SCANVI.from_scvi_model(scvi_model(adata, seed), unlabeled_category="unknown")
    model.train(max_epochs=20, n_samples_per_label=100, enable_progress_bar=False)
    return model.get_latent_representation()


METHODS = {
    "aeverse": embedded,
    "aeverse_batch": lambda adata, seed: embedded(adata, seed, batch_key="batch"),
    "pca": lambda adata, seed: embedded(adata, seed, method="pca"),
    "harmony": harmony,
    "scvi": scvi,
    "scanvi": scanvi,
}


# ---- one case ----------------------------------------------------------------------------------------------------
def score(data: str, method: str, seed: int) -> dict:
    """Batch score, its parts, and what the default clusters are worth."""
    adata = read(data)
    labels, batches = adata.obs["label"].to_numpy(), adata.obs["batch"].to_numpy()
    with harness.timed():
        embedding = METHODS[method](adata, seed)
    known = labels != "unknown"
    in_two = pd.Series(batches[known]).nunique() > 1
    parts = ae.metrics.batch_score(embedding, batches, labels=labels if in_two else None, parts=True)
    row = {"cells": adata.n_obs, "batches": len(set(batches)), "batch": np.mean(list(parts.values()))}
    return {**row, **parts, **default_scores(embedding, labels)}


def applies(data: str, method: str, seed: int) -> bool:
    """Three seeds of ours, one of the others."""
    return method.startswith("aeverse") or seed == 0


QUICK = ["mosaic_pbmc15k"], ["pca", "harmony"]
CASES = [harness.Cases("batches", list(CELLS), METHODS, score, (0, 1, 2), QUICK, applies)]


# ---- tables ------------------------------------------------------------------------------------------------------
def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over seeds, and a picture."""
    table, by = tables["batches"], ["data", "cells", "batches", "method"]
    mean = table.groupby(by, sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    picture(table, folder)
    return markdown(mean.reindex(columns=[*by, "batch", *PARTS, *SCORES, "cpu_seconds"]))


def picture(table: pd.DataFrame, folder: Path) -> None:
    """ARI over mixing, one panel a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colors = {
        "aeverse": "#fdba74",
        "aeverse_batch": "#c2410c",
        "pca": "#334155",
        "harmony": "#65a30d",
        "scvi": "#7dd3fc",
        "scanvi": "#0369a1",
    }
    names = list(dict.fromkeys(table["data"]))
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), layout="constrained", squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        for method, own in table[table["data"] == name].dropna(subset=["ari"]).groupby("method", sort=False):
            ax.scatter(own["batch"], own["ari"], s=36, color=colors[method], label=method)
        ax.set(title=name, xlabel="batch score: mixed →", ylabel="ARI of the default clusters →")
        ax.grid(color="#e2e8f0", lw=0.7)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(folder / "batches.png", dpi=150)


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
