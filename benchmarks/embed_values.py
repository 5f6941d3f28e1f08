"""The default call of tl.embed beside PCA and kernel PCA on the modalities of cohorts, whose values are no counts.

    python benchmarks/embed_values.py
    python benchmarks/embed_values.py --data tcga_brca --methods pca aeverse

Samples are split in five; a method is fitted to four parts and embeds the fifth, which it never saw:

knn, lr    balanced accuracy of the ten nearest training samples, and of logistic regression, on the held-out samples
mean       of the two; se is its standard error over the five splits
ari        k-means on the held-out embedding against the labels
seconds    wall time of one fit

PCA has as many dimensions as the embedding beside it: of binary data and fractions it is that of the centered, of continuous
data that of the standardized matrix; pca_centered is never standardized. Written are benchmarks/results/embed_values.csv,
.md and .png; ``--codes FOLDER`` keeps the embeddings of what takes long, to go on from there. benchmarks/embed.py does
the same for counts.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from tables import markdown, with_kept

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
COHORTS = ("tcga_brca", "tcga_kirc", "brca_mixomics", "cll_mofa", "pancan_mut")
FEWEST_FEATURES = 30  # a layer with fewer is no task for an embedding


def layers(data: str):
    """Every layer of a data set that can be embedded: (name, AnnData with obs["label"])."""
    import anndata as ad
    import mudata as md

    mdata = md.read_h5mu(DATA / f"{data}.h5mu")
    column = "label" if "label" in mdata.obs else "cell_type"
    for name, adata in mdata.mod.items():
        if adata.n_vars < FEWEST_FEATURES:
            continue
        x = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
        own = ad.AnnData(x, var=adata.var[[]], obs=pd.DataFrame(index=adata.obs_names))
        own.obs["label"] = mdata.obs[column].reindex(adata.obs_names).astype(str)
        yield f"{data}: {name}", own[~np.isnan(own.X).all(1)].copy()


# ---- methods: (training samples, further samples, seed) -> their codes -----------------------------------------
def aeverse(train, test, seed):
    """The default call; its model, since new samples are to be coded."""
    import aeverse as ae

    model = ae.models.Autoencoder(regularizer="auto", random_state=seed, share_calibration=0.0).fit(
        train
    )  # as tl.embed
    return model.encode(train), model.encode(test)


def matrix(method, train, test, seed, n_latent, kind=None):
    """A method of `aeverse.methods`."""
    from aeverse import _slots, methods, models

    seen, new = ({"X": _slots.as_modality(adata, None, "auto")} for adata in (train, test))
    kinds = {"X": kind or models.kind_of(train.X, train.var_names)}
    options = {"n_obs": train.n_obs, "batches": None, "n_latent": n_latent, "random_state": seed, "progress": False}
    fitted = methods.MATRIX[method](seen, kinds, **options)
    return fitted.code, fitted.encode(new, test.n_obs)


METHODS = {
    "aeverse": lambda train, test, seed, n: aeverse(train, test, seed),
    "pca": lambda train, test, seed, n: matrix("pca", train, test, seed, n),
    "pca_centered": lambda train, test, seed, n: matrix("pca", train, test, seed, n, kind="fractions"),
    "kernel_pca": lambda train, test, seed, n: matrix("kernel_pca", train, test, seed, n),
}
ON_ON_COHORTS = ("aeverse", "pca", "pca_centered", "kernel_pca")


class Codes:
    """Codes by name, kept in a folder where one is given."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, make):
        """(train codes, test codes, seconds), made or read."""
        path = None if self.folder is None else self.folder / f"{name.replace(': ', '_').replace(' ', '_')}.npz"
        if path is not None and path.exists():
            with np.load(path) as kept:
                return kept["train"], kept["test"], float(kept["seconds"])
        start = time.perf_counter()
        train, test = make()
        seconds = time.perf_counter() - start
        if path is not None:
            np.savez(path, train=train, test=test, seconds=seconds)
        return train, test, seconds


def held_out(name, adata, method, codes: Codes, n_latent: int | None) -> tuple[dict, int]:
    """Scores on samples that were not seen, means over five splits, and the dimensions of the code."""
    labels = adata.obs["label"].to_numpy()
    found = []
    for fold, (train, test) in enumerate(scoring().cohort_folds(labels)):
        parts = adata[train].copy(), adata[test].copy()
        a, b, seconds = codes(f"{name} {method} {fold}", lambda p=parts: METHODS[method](*p, 0, n_latent))
        scores = scoring().cohort_scores(a, b, labels[train], labels[test])
        found.append({**scores, "mean": (scores["knn"] + scores["lr"]) / 2, "seconds": seconds})
    table = pd.DataFrame(found)
    row = {k: table[k].mean() for k in ("knn", "lr", "mean", "ari", "seconds")}
    return {**row, "se": table["mean"].std(ddof=1) / len(table) ** 0.5, "dimensions": a.shape[1]}, a.shape[1]


def scoring():
    """The project's scores, which are kept with the data."""
    sys.path.insert(0, str(DATA.parent))
    import scoring as module

    return module


def main() -> None:
    """Run everything asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(COHORTS), choices=COHORTS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--codes", type=Path, help="folder in which codes are kept")
    parser.add_argument(
        "--keep", action="store_true", help="keep the table's rows of data sets and methods that are not run now"
    )
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    warnings.simplefilter("ignore")
    codes, rows = Codes(args.codes), []
    for data in args.data:
        for name, adata in layers(data):
            n_latent = None
            for method in args.methods:
                row, dimensions = held_out(name, adata, method, codes, n_latent)
                n_latent = n_latent or dimensions
                rows.append({"data": name, "n": adata.n_obs, "features": adata.n_vars, "method": method, **row})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    write(with_kept(table, RESULTS / "embed_values.csv") if args.keep else table)


def write(table: pd.DataFrame) -> None:
    """CSV, Markdown and picture."""
    columns = ["data", "n", "features", "method", "dimensions", "knn", "lr", "mean", "se", "ari", "seconds"]
    table = table.reindex(columns=columns)
    table.to_csv(RESULTS / "embed_values.csv", index=False, float_format="%.4g")
    text = [
        "`python benchmarks/embed_values.py`, see there; seconds are those of a shared machine.",
        "",
        *markdown(table),
    ]
    (RESULTS / "embed_values.md").write_text("\n".join(text) + "\n")
    picture(table)


def picture(table: pd.DataFrame) -> None:
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
    figure.savefig(RESULTS / "embed_values.png", dpi=150)


if __name__ == "__main__":
    main()
