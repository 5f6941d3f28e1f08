"""Tumour cohorts: codes of patients never seen in training.

    python benchmarks/cohorts.py --data tcga_brca tcga_kirc brca_mixomics cll_mofa --seeds 0 1 2 --methods aeverse pca

Five folds: a method is fitted to four and encodes the fifth. Printed, and written to benchmarks/results/cohorts.csv and
cohorts.md (after every fold, so that an interrupted run leaves what it has):

ari      k-means on the held-out codes against the published subtypes
knn      balanced accuracy of the ten nearest training patients
lr       balanced accuracy of logistic regression on the code
c        concordance of a ridge Cox model on the code (needs lifelines)
less     ari with one modality missing in every held-out patient, mean over the modalities
seconds  wall time of a fit
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import mudata as md
import numpy as np
import pandas as pd
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
COHORTS = ["tcga_brca", "tcga_kirc", "brca_mixomics", "cll_mofa"]


# ---- methods: training patients to a function that encodes -----------------------------------------------------
def aeverse(train, seed):
    """The default call."""
    import aeverse as ae

    return ae.models.MultimodalAutoencoder(random_state=seed).fit(train).encode


def pca(train, seed):
    """32 components of all modalities side by side, standardised; what is missing takes the mean."""

    def matrix(mdata):
        blocks = []
        for m in train.mod:
            block = np.full((mdata.n_obs, train[m].n_vars), np.nan)
            if m in mdata.mod:
                x = mdata[m].X
                block[mdata.obs_names.get_indexer(mdata[m].obs_names)] = x.toarray() if sp.issparse(x) else x
            blocks.append(block)
        return np.hstack(blocks)

    x = matrix(train)
    mean, sd = np.nanmean(x, 0), np.nanstd(x, 0)
    sd[sd < 1e-6] = np.inf
    axes = np.linalg.svd(np.nan_to_num((x - mean) / sd), full_matrices=False)[2][:32]
    return lambda mdata: np.nan_to_num((matrix(mdata) - mean) / sd) @ axes.T


METHODS = {f.__name__: f for f in (aeverse, pca)}


# ---- scores ----------------------------------------------------------------------------------------------------
def without(mdata, modality: str):
    """The patients without one modality, all of them."""
    rest = md.MuData({m: a for m, a in mdata.mod.items() if m != modality})
    return rest if list(rest.obs_names) == list(mdata.obs_names) else None  # a patient with nothing left


def scores(encode, train, test, seconds: float, survival: bool) -> dict[str, float]:
    """All scores of one fold."""
    from scoring import cohort_scores, concordance

    labels = [d.obs["label"].astype(str).to_numpy() for d in (train, test)]
    codes = encode(train), encode(test)
    row = cohort_scores(*codes, *labels)
    less = [d for d in (without(test, m) for m in test.mod) if d is not None] if len(test.mod) > 1 else []
    row["less"] = float(np.mean([cohort_scores(codes[0], encode(d), *labels)["ari"] for d in less])) if less else np.nan
    if survival and "OS_time" in train.obs:
        events = [d.obs[c].to_numpy(float) for d in (train, test) for c in ("OS_time", "event")]
        row["c"] = concordance(*codes, *events)
    return {**row, "seconds": seconds}


def report(rows: list[dict], command: str) -> None:
    """Write both tables: every fold, and means over folds and seeds, then over cohorts."""
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "cohorts.csv", index=False, float_format="%.4g")
    columns = [c for c in ("ari", "knn", "lr", "c", "less", "seconds") if c in table]
    mean = table.groupby(["method", "data"], sort=False)[columns].mean()
    total = mean.groupby("method", sort=False).mean()
    total.index = pd.MultiIndex.from_tuples([(m, "mean") for m in total.index], names=mean.index.names)
    mean = pd.concat([mean, total]).reset_index()
    runs = table.groupby("data")["seed"].nunique()
    seeds = ", ".join(f"{data} {n}" for data, n in runs.items())
    lines = [f"`{command}`, {table['fold'].nunique()} folds; seeds run: {seeds}.", ""]
    lines += ["| " + " | ".join(mean.columns) + " |", "|" + "---|" * len(mean.columns)]
    for values in mean.itertuples(index=False):
        lines.append(
            "| " + " | ".join("" if v != v else f"{v:.3f}" if isinstance(v, float) else str(v) for v in values) + " |"
        )
    (RESULTS / "cohorts.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run everything asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=COHORTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--no-survival", action="store_true")
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    sys.path.insert(0, str(DATA.parent))
    from scoring import cohort_folds

    warnings.simplefilter("ignore")  # of lifelines and scikit-learn: convergence on some folds
    command = (
        f"python benchmarks/cohorts.py --seeds {' '.join(map(str, args.seeds))} --methods {' '.join(args.methods)}"
    )
    rows = []
    for seed in args.seeds:
        for data in args.data:
            mdata = md.read_h5mu(DATA / f"{data}.h5mu")
            events = mdata.obs["event"].to_numpy(float) if "event" in mdata.obs else None
            folds = cohort_folds(mdata.obs["label"].astype(str).to_numpy(), events)
            for fold, (train, test) in enumerate(folds):
                train, test = mdata[train].copy(), mdata[test].copy()
                for method in args.methods:
                    start = time.perf_counter()
                    encode = METHODS[method](train, seed)
                    seconds = time.perf_counter() - start
                    found = scores(encode, train, test, seconds, not args.no_survival)
                    rows.append({"method": method, "data": data, "seed": seed, "fold": fold, **found})
            report(rows, command)
            print(
                pd.DataFrame(rows).groupby(["method", "data"], sort=False).mean(numeric_only=True).round(3), flush=True
            )


if __name__ == "__main__":
    main()
