"""tl.map_query: is a new cell like the training data, and what is it? Beside the label transfer that is usual.

    python benchmarks/mapping.py

A random half of the cells is learned from, the other half is mapped. Methods:

aeverse    a default `aeverse.models.Autoencoder` with one member, and tl.map_query
knn        the 15 nearest cells in 50 principal components (scanpy's recipe, fitted to the training half)
logistic   logistic regression on the same components
scanvi     scANVI on scVI's model of 2,000 highly variable genes, both with the settings of their tutorial

flagged    share of the held-out cells with a typicality of at most 0.05; 0.05 is right
flagged01  the same at 0.01
accuracy   of the transferred labels; `sure`: share of cells with a confidence above 0.9, `accuracy_sure` among them; `balanced`:
           mean over the labels
cover      share of the cells whose prediction set at alpha=0.1 holds their label; 0.9 is right. `rarest`: the lowest such
           share of a label with 30 held-out cells, `size`: labels in a set, `none`: share of empty sets
left_out   a type of which training saw no cell; `auroc` of its typicality against the other held-out cells', `power`: share
           of its cells with a typicality of at most 0.05, `power_set`: share of empty prediction sets. The score of the peers is
           the distance to the 15th nearest training cell (knn) or the largest probability (logistic, scanvi)

Written are benchmarks/results/mapping.csv and mapping.md.
"""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pandas as pd
from tables import markdown

import aeverse as ae

DATA_SETS = ("pbmc3k", "mouse_bladder", "celseq2_5cl", "mosaic_pbmc15k")
LEFT_OUT = {"mosaic_pbmc15k": ["B"], "celseq2_5cl": ["A549", "H838", "H2228"]}  # one for each seed, in turn
N_NEIGHBORS, N_COMPONENTS = 15, 50


def read(name: str):
    """Counts with ``obs["label"]`` where there are labels; cells without a known one are left out."""
    import anndata as ad
    import mudata as md

    if name != "mosaic_pbmc15k":
        return ad.read_h5ad(harness.DATA / f"{name}.h5ad")
    mdata = md.read_h5mu(harness.DATA / f"{name}.h5mu")
    rna = mdata["rna"].copy()
    rna.obs["label"] = mdata.obs.loc[rna.obs_names, "cell_type"].astype(str).to_numpy()
    return rna[rna.obs["label"] != "unknown"].copy()


# ---- methods: (training cells, new cells, seed) -> columns for the new cells ---------------------------------------------
def aeverse(train, test, seed: int) -> pd.DataFrame:
    """predicted, confidence, typicality and, where there are labels, label_set."""
    model = ae.models.Autoencoder(n_models=1, random_state=seed).fit(train)
    ae.tl.map_query(test, model, transfer=["label"] if "label" in train.obs else [], alpha=0.1)
    names = {"ae_typicality": "typicality", "label_predicted": "predicted", "label_confidence": "confidence"}
    return test.obs.rename(columns=names)


def components(train, test) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of both, learned from the training cells."""
    import scanpy as sc
    from sklearn.decomposition import PCA

    train, test = train.copy(), test.copy()
    for adata in (train, test):
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(train, n_top_genes=min(2000, train.n_vars))
    genes = train.var["highly_variable"].to_numpy()
    x, new = (np.asarray(adata.X[:, genes].todense()) for adata in (train, test))
    pca = PCA(N_COMPONENTS, random_state=0).fit(x)
    return pca.transform(x), pca.transform(new)


def knn(train, test, seed: int) -> pd.DataFrame:
    """Vote of the nearest training cells."""
    from sklearn.neighbors import KNeighborsClassifier

    x, new = components(train, test)
    classifier = KNeighborsClassifier(N_NEIGHBORS).fit(x, train.obs["label"].astype(str))
    distance = classifier.kneighbors(new)[0][:, -1]
    return from_probabilities(classifier.predict_proba(new), classifier.classes_, test).assign(typicality=-distance)


def logistic(train, test, seed: int) -> pd.DataFrame:
    """Logistic regression with scikit-learn's defaults."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, new = components(train, test)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
        x, train.obs["label"].astype(str)
    )
    return from_probabilities(classifier.predict_proba(new), classifier.classes_, test)


def scanvi(train, test, seed: int) -> pd.DataFrame:
    """scVI, then scANVI; the new cells are of the same experiment, so that no surgery on the model is needed."""
    import scanpy as sc
    import scvi

    scvi.settings.seed = seed
    normalized = train.copy()
    sc.pp.normalize_total(normalized)
    sc.pp.log1p(normalized)
    sc.pp.highly_variable_genes(normalized, n_top_genes=min(2000, train.n_vars))
    genes = normalized.var["highly_variable"].to_numpy()
    train, test = train[:, genes].copy(), test[:, genes].copy()
    train.obs["label"] = train.obs["label"].astype(str)
    test.obs["label"] = "unknown"
    scvi.model.SCVI.setup_anndata(train, labels_key="label")
    model = scvi.model.SCVI(train, n_layers=2, n_latent=30, gene_likelihood="nb")
    model.train(enable_progress_bar=False)
    model = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category="unknown")
    model.train(max_epochs=20, n_samples_per_label=100, enable_progress_bar=False)
    probabilities = model.predict(test, soft=True)
    return from_probabilities(probabilities.to_numpy(), probabilities.columns.to_numpy(), test)


def from_probabilities(probabilities: np.ndarray, labels: np.ndarray, test) -> pd.DataFrame:
    """The most likely label; its probability is the confidence and the score of what is new."""
    best = probabilities.max(1)
    columns = {"predicted": labels[probabilities.argmax(1)], "confidence": best, "typicality": best}
    return pd.DataFrame(columns, index=test.obs_names)


METHODS = {"aeverse": aeverse, "knn": knn, "logistic": logistic, "scanvi": scanvi}


# ---- one case ----------------------------------------------------------------------------------------------------
def score(data: str, method: str, seed: int) -> list[dict]:
    """A row with all types, and one with a type that training does not see."""
    adata, types = read(data), LEFT_OUT.get(data, [])
    left_out = ["none", *types[seed % len(types) :][:1]] if types else ["none"]
    return [{"left_out": one, **mapped(adata, method, seed, one)} for one in left_out]


def mapped(adata, method: str, seed: int, left_out: str) -> dict[str, float]:
    """One half is trained on, the other mapped."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    order = np.random.default_rng(seed).permutation(adata.n_obs)
    train, test = (adata[np.sort(part)].copy() for part in np.array_split(order, 2))
    new = np.zeros(test.n_obs, bool)
    if left_out != "none":
        train = train[train.obs["label"].astype(str) != left_out].copy()
        new = (test.obs["label"].astype(str) == left_out).to_numpy()
    with harness.timed():
        result = METHODS[method](train, test.copy(), seed)
    p, row = result["typicality"].to_numpy(), {"cells": test.n_obs}
    if method == "aeverse":
        row |= {"flagged": (p[~new] <= 0.05).mean(), "flagged01": (p[~new] <= 0.01).mean()}
    if "label" in test.obs:
        truth, predicted = (column.astype(str).to_numpy()[~new] for column in (test.obs["label"], result["predicted"]))
        right, sure = truth == predicted, result["confidence"].to_numpy()[~new] > 0.9
        row |= {"accuracy": right.mean(), "balanced": balanced_accuracy_score(truth, predicted)}
        row |= {"sure": sure.mean(), "accuracy_sure": right[sure].mean()}
    if "label_set" in result:
        row |= covered(result[~new])
    if new.any():
        row["auroc"] = roc_auc_score(new, -p)
        if method == "aeverse":
            row["power"] = (p[new] <= 0.05).mean()
            row["power_set"] = (result["label_set"] == "none of these").to_numpy()[new].mean()
    return row


def covered(obs: pd.DataFrame) -> dict[str, float]:
    """How often prediction sets hold the label, and how large they are."""
    labels, sets = obs["label"].astype(str), obs["label_set"].astype(str).str.split(" | ", regex=False)
    none = obs["label_set"].astype(str) == "none of these"
    holds = pd.Series([label in words for label, words in zip(labels, sets, strict=True)], index=obs.index)
    rarest = holds.groupby(labels).mean()[labels.value_counts() >= 30].min()
    return {"cover": holds.mean(), "rarest": rarest, "size": sets.str.len().where(~none, 0).mean(), "none": none.mean()}


def applies(data: str, method: str, seed: int) -> bool:
    """pbmc3k has no labels, and scANVI takes long."""
    return method == "aeverse" or (data != "pbmc3k" and (method != "scanvi" or seed == 0))


QUICK = ["celseq2_5cl"], ["aeverse", "knn", "logistic"]
CASES = [harness.Cases("mapping", DATA_SETS, METHODS, score, (0, 1, 2), QUICK, applies)]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the seeds."""
    mean = tables["mapping"].groupby(["data", "left_out", "method"], sort=False).mean(numeric_only=True)
    columns = ["seed", "seconds", "cpu_seconds", "memory_mb"]
    return markdown(mean.drop(columns=columns, errors="ignore").reset_index())


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
