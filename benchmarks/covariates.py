"""tl.embed with covariates: is what they explain gone from the embedding, and are the types still there?

    python benchmarks/covariates.py

Cells of a simulation whose truth is known (three types; three donors and a number each change a third of the genes, whatever
the type; tests/test_covariates.py) and of celseq2_5cl (five cell lines, three plates, library sizes), embedded with the defaults:

aeverse               no covariates
aeverse_covariates    covariates=[category, number]

types      accuracy of the 15 nearest neighbors, five-fold
category   the same for donor or plate; most: what one gets by naming the most frequent one
number     share of the variance of percent_mito or log library size that ridge regression explains, five-fold; within: mean over
           the types of the same within a type, which a difference between types does not enter

Then the cells of the simulation and of snare_cortex (RNA, 12 batches) are denoised with the covariates, each cell as it is
(own) and as if all were average (transform_batch="average"), and log1p of counts per 10,000 is taken:

batches    share of the variance within types, over all genes, that lies between donors or batches; shuffled: the same where
           batches are drawn anew within the types, what chance alone gives
types      share of the variance over all genes that lies between types

Written are benchmarks/results/covariates.csv, covariates_denoised.csv and covariates.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import harness
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from tables import markdown

import aeverse as ae

sys.path.insert(0, str(harness.ROOT / "tests"))
METHODS = {"aeverse": False, "aeverse_covariates": True}


def simulated():
    """Cells, and the names of their type, category and number."""
    from test_covariates import simulate

    return simulate(1200, 600), "type", "donor", "percent_mito"


def cell_lines():
    """The same of CEL-seq2."""
    adata = ad.read_h5ad(harness.DATA / "celseq2_5cl.h5ad")
    adata.obs["log_library"] = np.log(np.asarray(adata.X.sum(1)).ravel())
    return adata, "label", "plate", "log_library"


def explained(embedding: np.ndarray, number: np.ndarray) -> float:
    """Held-out share of the variance that ridge regression explains."""
    return cross_val_score(RidgeCV(np.logspace(-2, 4, 7)), embedding, number, scoring="r2").mean()


def cortex():
    """Cells of snare_cortex, and the names of their type and batch."""
    import mudata as md

    mdata = md.read_h5mu(harness.DATA / "snare_cortex.h5mu")
    adata = mdata["rna"].copy()
    for column in ("cell_type", "batch"):
        adata.obs[column] = mdata.obs[column].reindex(adata.obs_names).astype(str).to_numpy()
    return adata, "cell_type", "batch"


def between(values: np.ndarray, groups: pd.Series) -> np.ndarray:
    """Mean of its group for each cell, (cells, genes)."""
    codes = groups.astype("category").cat.codes.to_numpy()
    totals = np.zeros((codes.max() + 1, values.shape[1]))
    np.add.at(totals, codes, values)
    return (totals / np.bincount(codes)[:, None])[codes]


def shares(values: np.ndarray, obs: pd.DataFrame, kind: str, batch: str) -> dict[str, float]:
    """Of the variance of denoised values."""
    means = between(values, obs[kind])
    total, within = ((v**2).sum() for v in (values - values.mean(0), values - means))
    shuffled = obs.groupby(kind, observed=True)[batch].transform(lambda v: v.sample(frac=1, random_state=0).to_numpy())
    of_batches = [
        ((between(values, obs[kind].astype(str) + names.astype(str)) - means) ** 2).sum() / within
        for names in (obs[batch], shuffled)
    ]
    return {"batches": of_batches[0], "shuffled": of_batches[1], "types": 1 - within / total}


READERS = {"simulation": simulated, "celseq2_5cl": cell_lines, "snare_cortex": cortex}


def score(data: str, method: str, seed: int) -> dict:
    """What an embedding holds of a type, a category and a number."""
    adata, kind, category, number = READERS[data]()
    with harness.timed():
        covariates = [category, number] if METHODS[method] else None
        ae.tl.embed(adata, covariates=covariates, key_added="X_own", random_state=seed, progress=False)
    embedding, values, types = adata.obsm["X_own"], adata.obs[number].to_numpy(), adata.obs[kind].to_numpy()
    knn = [cross_val_score(KNeighborsClassifier(15), embedding, adata.obs[c]).mean() for c in (kind, category)]
    return {
        "cells": adata.n_obs,
        "types": knn[0],
        "category": knn[1],
        "most": adata.obs[category].value_counts(normalize=True).max(),
        "number": explained(embedding, values),
        "within": np.mean([explained(embedding[types == t], values[types == t]) for t in np.unique(types)]),
    }


def score_denoised(data: str, method: str, seed: int) -> list[dict]:
    """Rows for cells as they are, and as average ones."""
    adata, kind, *covariates = READERS[data]()
    rows = []
    for values, transform_batch in {"own": None, "average": "average"}.items():
        options = {"covariates": covariates, "transform_batch": transform_batch, "log1p": True, "progress": False}
        with harness.timed():
            ae.tl.denoise(adata, **options, random_state=seed)
        found = shares(np.asarray(adata.layers["denoised"], np.float64), adata.obs, kind, covariates[0])
        rows.append({"cells": adata.n_obs, "values": values, **found, **harness.cost()})
    return rows


CASES = [
    harness.Cases("covariates", ["simulation", "celseq2_5cl"], METHODS, score),
    harness.Cases("covariates_denoised", ["simulation", "snare_cortex"], {"aeverse_covariates": True}, score_denoised),
]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Both tables."""
    lines = []
    for table in tables.values():
        shown = table.drop(columns=["seed", "seconds", "cpu_seconds", "memory_mb"], errors="ignore")
        lines += [*markdown(shown), ""]
    return lines


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
