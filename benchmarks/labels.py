"""tl.embed with label_key: what known types do for cells whose type is not known, beside scANVI.

    python benchmarks/labels.py                    # everything; scANVI takes most of the time

Half of the cells keep their published type, drawn at random; of the others, the hidden ones, all scores are taken. Each method
is given all counts and the known types, and embeds all cells:

aeverse               without the types
aeverse_labels        with label_key
aeverse_wrong         the same, where a tenth of the known types were changed for those of other cells
scanvi, scanvi_wrong  scVI (2,000 variable genes, its defaults, early stopping), trained further by scANVI as its tutorial does

knn, balanced   accuracy, and mean over the types, of the type that most of a hidden cell's 15 nearest known cells have (their
                true types, so that only the embedding is judged)
ari, nmi, n_clusters   of scanpy's default call on the hidden cells; purity: balanced accuracy of the labels of a cell's 15
                       nearest hidden cells
cpu_seconds     of the embedding, on one thread

Written are benchmarks/results/labels.csv and labels.md.
"""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pandas as pd
from embed import read
from scores import default_scores
from tables import markdown

import aeverse as ae

SETS = ("pbmc68k", "celseq2_5cl", "cite_teaseq", "mouse_bladder", "snare_cortex")
N_NEIGHBORS, SHARE_WRONG = 15, 0.1
SCORES = ("knn", "balanced", "ari", "nmi", "purity", "n_clusters")


# ---- methods: (counts with obs["known"], seed) -> embedding --------------------------------------------------------
def aeverse(adata, seed: int, **options) -> np.ndarray:
    """One call."""
    return ae.tl.embed(adata, random_state=seed, progress=False, copy=True, **options).obsm["X_ae"]


def aeverse_labels(adata, seed: int) -> np.ndarray:
    """One call, with the types that are known."""
    return aeverse(adata, seed, label_key="known")


def scanvi(adata, seed: int) -> np.ndarray:
    """The latent space of scANVI after scVI."""
    import scanpy as sc
    import scvi as scvi_tools

    scvi_tools.settings.seed = seed
    normalized = adata.copy()
    sc.pp.normalize_total(normalized)
    sc.pp.log1p(normalized)
    sc.pp.highly_variable_genes(normalized, n_top_genes=min(2000, adata.n_vars))
    adata = adata[:, normalized.var["highly_variable"]].copy()
    adata.obs["known"] = adata.obs["known"].fillna("unknown")
    scvi_tools.model.SCVI.setup_anndata(adata, labels_key="known")
    base = scvi_tools.model.SCVI(adata)
    base.train(early_stopping=True, enable_progress_bar=False)
    model = scvi_tools.model.SCANVI.from_scvi_model(base, unlabeled_category="unknown")
    model.train(max_epochs=20, n_samples_per_label=100, enable_progress_bar=False)
    return model.get_latent_representation()


METHODS = {
    "aeverse": aeverse,
    "aeverse_labels": aeverse_labels,
    "aeverse_wrong": aeverse_labels,
    "scanvi": scanvi,
    "scanvi_wrong": scanvi,
}


# ---- one case ----------------------------------------------------------------------------------------------------
def score(data: str, method: str, seed: int) -> dict:
    """Scores of the cells whose type is hidden."""
    adata, rng = read(data), np.random.default_rng(seed)
    labels = adata.obs["label"].astype(str).to_numpy()
    typed = ~pd.Series(labels).str.lower().isin(["unknown", "nan"]).to_numpy()
    known = typed & (rng.random(len(labels)) < 0.5)
    given = np.where(rng.random(len(labels)) < SHARE_WRONG, rng.permutation(labels), labels)
    given = given if method.endswith("_wrong") else labels
    adata.obs["known"] = pd.Series(given, adata.obs_names, dtype=object).where(known)
    with harness.timed():
        embedding = METHODS[method](adata, seed)
    hidden = typed & ~known
    accuracy, balanced = nearest_known(embedding, labels, known, hidden)
    return {"knn": accuracy, "balanced": balanced, **default_scores(embedding[hidden], labels[hidden])}


def nearest_known(embedding: np.ndarray, labels: np.ndarray, known: np.ndarray, hidden: np.ndarray):
    """Accuracy, and its mean over the types, of what most of the nearest known cells are."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(N_NEIGHBORS).fit(embedding[known], labels[known])
    predicted = classifier.predict(embedding[hidden])
    return float((predicted == labels[hidden]).mean()), float(balanced_accuracy_score(labels[hidden], predicted))


def applies(data: str, method: str, seed: int) -> bool:
    """Three seeds of ours, one of scANVI."""
    return method.startswith("aeverse") or seed == 0


QUICK = ["pbmc68k"], ["aeverse", "aeverse_labels"]
CASES = [harness.Cases("labels", SETS, METHODS, score, (0, 1, 2), QUICK, applies)]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the seeds, and over the data sets."""
    table = tables["labels"]
    mean = table.groupby(["data", "method"], sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    complete = mean.groupby("method")["data"].transform("nunique") == mean["data"].nunique()
    whole = mean[complete].groupby("method", sort=False).mean(numeric_only=True).reset_index()
    whole.insert(0, "data", "mean")
    return markdown(pd.concat([mean, whole]).reindex(columns=["data", "method", *SCORES, "cpu_seconds"]))


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
