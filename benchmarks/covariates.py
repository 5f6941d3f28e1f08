"""tl.embed with covariates: is what they explain gone from the embedding, and are the types still there?

    python benchmarks/covariates.py

Cells of a simulation whose truth is known (three types; three donors and a number each change a third of the genes, whatever
the type; tests/test_covariates.py) and of celseq2_5cl (five cell lines, three plates, library sizes), embedded with the defaults:

without       no covariates
covariates    covariates=[category, number]

types      accuracy of the 15 nearest neighbors, five-fold
category   the same for donor or plate; in brackets what one gets by naming the most frequent one
number     share of the variance of percent_mito or log library size that ridge regression explains, five-fold; within: mean over
           the types of the same within a type, which a difference between types does not enter
seconds    of CPU, one thread

Written are benchmarks/results/covariates.csv and covariates.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from tables import markdown

import aeverse as ae

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT / "tests"))


def simulated():
    """Cells, and the names of their type, category and number."""
    from test_covariates import simulate

    return simulate(1200, 600), "type", "donor", "percent_mito"


def cell_lines():
    """The same of CEL-seq2."""
    adata = ad.read_h5ad(ROOT.parent / "shared" / "data" / "celseq2_5cl.h5ad")
    adata.obs["log_library"] = np.log(np.asarray(adata.X.sum(1)).ravel())
    return adata, "label", "plate", "log_library"


def explained(embedding: np.ndarray, number: np.ndarray) -> float:
    """Held-out share of the variance that ridge regression explains."""
    return cross_val_score(RidgeCV(np.logspace(-2, 4, 7)), embedding, number, scoring="r2").mean()


def main() -> None:
    """Run everything, and write the table."""
    rows = []
    for name, read in {"simulation": simulated, "celseq2_5cl": cell_lines}.items():
        adata, kind, category, number = read()
        for method, covariates in {"without": None, "covariates": [category, number]}.items():
            start = time.process_time()
            ae.tl.embed(adata, covariates=covariates, key_added="X_own", progress=False)
            seconds, embedding = time.process_time() - start, adata.obsm["X_own"]
            knn = {
                c: cross_val_score(KNeighborsClassifier(15), embedding, adata.obs[c]).mean() for c in (kind, category)
            }
            values, types = adata.obs[number].to_numpy(), adata.obs[kind].to_numpy()
            within = [explained(embedding[types == t], values[types == t]) for t in np.unique(types)]
            most = adata.obs[category].value_counts(normalize=True).max()
            rows.append(
                {
                    "data": name,
                    "cells": adata.n_obs,
                    "method": method,
                    "types": knn[kind],
                    "category": f"{knn[category]:.3f} ({most:.3f})",
                    "number": explained(embedding, values),
                    "within": np.mean(within),
                    "seconds": seconds,
                }
            )
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / "covariates.csv", index=False)
    lines = ["`python benchmarks/covariates.py`, see there.", "", *markdown(table), ""]
    (RESULTS / "covariates.md").write_text("\n".join(lines))
    print(table.to_string())


if __name__ == "__main__":
    main()
