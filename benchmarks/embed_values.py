"""The default call of tl.embed beside PCA and kernel PCA on the modalities of cohorts, whose values are no counts.

    python benchmarks/embed_values.py
    python benchmarks/embed_values.py --data "tcga_brca: rna" --methods pca aeverse

Samples are split in five; a method is fitted to four parts and embeds the fifth, which it never saw:

knn, lr    balanced accuracy of the ten nearest training samples, and of logistic regression, on the held-out samples
mean       of the two; se is its standard error over the five splits
ari        k-means on the held-out embedding against the labels
seconds    wall time of one fit

PCA has as many dimensions as our default embedding of such data, 32: of binary data and fractions it is that of the centered, of
continuous data that of the standardized matrix; pca_centered is never standardized. Written are
benchmarks/results/embed_values.csv, .md and .png. benchmarks/embed.py does the same for counts.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import harness
import numpy as np
import pandas as pd
from tables import markdown

LAYERS = {
    "tcga_brca": ("cnv", "rna"),
    "tcga_kirc": ("cnv", "mirna", "rna"),
    "brca_mixomics": ("mirna", "prot", "rna"),
    "cll_mofa": ("drugs", "mut"),
    "pancan_mut": ("mut",),
}  # with 30 features or more
DIMENSIONS = 32


def read(layer: str):
    """AnnData with ``obs["label"]`` of the samples that were measured."""
    import anndata as ad
    import mudata as md

    data, name = layer.split(": ")
    mdata = md.read_h5mu(harness.DATA / f"{data}.h5mu")
    column, adata = "label" if "label" in mdata.obs else "cell_type", mdata[name]
    x = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
    own = ad.AnnData(x, var=adata.var[[]], obs=pd.DataFrame(index=adata.obs_names))
    own.obs["label"] = mdata.obs[column].reindex(adata.obs_names).astype(str)
    return own[~np.isnan(own.X).all(1)].copy()


# ---- methods: (training samples, further samples, seed) -> their codes -----------------------------------------
def aeverse(train, test, seed):
    """The default call; its model, since new samples are to be coded."""
    import aeverse as ae

    model = ae.models.Autoencoder(regularizer="auto", random_state=seed, share_calibration=0.0).fit(
        train
    )  # as tl.embed
    return model.encode(train), model.encode(test)


def matrix(train, test, seed, method, kind=None):
    """A method of `aeverse.methods`."""
    from aeverse import _slots, methods, models

    seen, new = ({"X": _slots.as_modality(adata, None, "auto")} for adata in (train, test))
    kinds = {"X": kind or models.kind_of(train.X, train.var_names)}
    options = {"n_obs": train.n_obs, "batches": None, "n_latent": DIMENSIONS, "random_state": seed, "progress": False}
    fitted = methods.MATRIX[method](seen, kinds, **options)
    return fitted.code, fitted.encode(new, test.n_obs)


METHODS = {
    "aeverse": aeverse,
    "pca": functools.partial(matrix, method="pca"),
    "pca_centered": functools.partial(matrix, method="pca", kind="fractions"),
    "kernel_pca": functools.partial(matrix, method="kernel_pca"),
}


def score(data: str, method: str, seed: int) -> dict:
    """Scores on samples that were not seen, means over five splits."""
    sys.path.insert(0, str(harness.DATA.parent))
    from scoring import cohort_folds, cohort_scores

    adata, rows = read(data), []
    labels = adata.obs["label"].to_numpy()
    for train, test in cohort_folds(labels):
        with harness.timed():
            a, b = METHODS[method](adata[train].copy(), adata[test].copy(), seed)
        scores = cohort_scores(a, b, labels[train], labels[test])
        rows.append({**scores, "mean": (scores["knn"] + scores["lr"]) / 2, **harness.cost()})
    table = pd.DataFrame(rows)
    row = {"n": adata.n_obs, "features": adata.n_vars, "dimensions": a.shape[1]}
    row |= {k: table[k].mean() for k in ("knn", "lr", "mean", "ari", "seconds")}
    return {**row, "se": table["mean"].std(ddof=1) / len(table) ** 0.5}


NAMES = [f"{data}: {layer}" for data, layers in LAYERS.items() for layer in layers]
QUICK = ["cll_mofa: mut"], ["pca", "pca_centered", "kernel_pca"]
CASES = [harness.Cases("embed_values", NAMES, METHODS, score, quick=QUICK)]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """All rows, and a picture."""
    columns = ["data", "n", "features", "method", "dimensions", "knn", "lr", "mean", "se", "ari", "seconds"]
    picture(tables["embed_values"], folder)
    return markdown(tables["embed_values"][columns])


def picture(table: pd.DataFrame, folder: Path) -> None:
    """Mean of the two held-out accuracies, with standard errors, one row a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table = table.dropna(subset=["mean"])
    names = list(dict.fromkeys(table["data"]))
    colors = {"aeverse": "#c2410c", "pca": "#334155", "pca_centered": "#94a3b8", "kernel_pca": "#7dd3fc"}
    figure, ax = plt.subplots(figsize=(7, 0.42 * len(names) + 1.2), layout="constrained")
    for method, own in table.groupby("method", sort=False):
        shift = 0.14 * (list(colors).index(method) - 1.5)
        y = [names.index(name) + shift for name in own["data"]]
        ax.errorbar(own["mean"], y, xerr=own["se"], fmt="o", ms=4.5, lw=1, color=colors[method], label=method)
    ax.set(yticks=range(len(names)), xlabel="mean of kNN and linear probe on held-out samples (balanced accuracy)")
    ax.set_yticklabels(names)
    ax.invert_yaxis()
    ax.grid(axis="x", color="#e2e8f0", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(folder / "embed_values.png", dpi=150)


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
