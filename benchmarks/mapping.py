"""tl.map_query: is a new cell like the training data, and what is it?

    python benchmarks/mapping.py --data pbmc3k mouse_bladder celseq2_5cl mosaic_pbmc15k --seeds 0 1 2

A model (default `aeverse.models.Autoencoder`, one member) is trained on a random half of the cells and maps the other.
Printed, and written to benchmarks/results/mapping.csv and mapping.md:

flagged    share of the held-out cells with a typicality of at most 0.05; 0.05 is right
flagged01  the same at 0.01
accuracy   of the transferred labels; `sure`: share of cells with a confidence above 0.9, `accuracy_sure` among them
cover      share of the cells whose prediction set at alpha=0.1 holds their label; 0.9 is right. `rarest`: the lowest such
           share of a label with 30 held-out cells, `size`: labels in a set, `none`: share of empty sets
left_out   a type of which training saw no cell; `auroc` of its typicality against the other held-out cells', `power`: share
           of its cells with a typicality of at most 0.05, `power_set`: share of empty prediction sets
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tables import markdown

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
LEFT_OUT = {"mosaic_pbmc15k": ["B"], "celseq2_5cl": ["A549", "H838", "H2228"]}  # one for each seed, in turn


def read(name: str):
    """Counts with ``obs["label"]`` where there are labels; cells without a known one are left out."""
    import anndata as ad
    import mudata as md

    if name != "mosaic_pbmc15k":
        return ad.read_h5ad(DATA / f"{name}.h5ad")
    mdata = md.read_h5mu(DATA / f"{name}.h5mu")
    rna = mdata["rna"].copy()
    rna.obs["label"] = mdata.obs.loc[rna.obs_names, "cell_type"].astype(str).to_numpy()
    return rna[rna.obs["label"] != "unknown"].copy()


def run(adata, seed: int, left_out: str | None) -> dict[str, float]:
    """One half is trained on, the other mapped."""
    from sklearn.metrics import roc_auc_score

    import aeverse as ae

    order = np.random.default_rng(seed).permutation(adata.n_obs)
    train, test = (adata[np.sort(part)].copy() for part in np.array_split(order, 2))
    new = np.zeros(test.n_obs, bool)
    if left_out is not None:
        train = train[train.obs["label"].astype(str) != left_out].copy()
        new = (test.obs["label"].astype(str) == left_out).to_numpy()
    model = ae.models.Autoencoder(n_models=1, random_state=seed).fit(train)
    labels = ["label"] if "label" in adata.obs else []
    ae.tl.map_query(test, model, transfer=labels, alpha=0.1)
    p = test.obs["ae_typicality"].to_numpy()
    row = {"cells": test.n_obs, "flagged": (p[~new] <= 0.05).mean(), "flagged01": (p[~new] <= 0.01).mean()}
    if labels:
        right = (test.obs["label"].astype(str) == test.obs["label_predicted"].astype(str)).to_numpy()[~new]
        sure = (test.obs["label_confidence"] > 0.9).to_numpy()[~new]
        row |= {"accuracy": right.mean(), "sure": sure.mean(), "accuracy_sure": right[sure].mean()}
        row |= covered(test[~new].obs)
    if left_out is not None:
        row |= {"auroc": roc_auc_score(new, -p), "power": (p[new] <= 0.05).mean()}
        row["power_set"] = (test.obs["label_set"] == "none of these").to_numpy()[new].mean()
    return row


def covered(obs: pd.DataFrame) -> dict[str, float]:
    """How often prediction sets hold the label, and how large they are."""
    labels, sets = obs["label"].astype(str), obs["label_set"].astype(str).str.split(" | ", regex=False)
    none = obs["label_set"].astype(str) == "none of these"
    holds = pd.Series([label in words for label, words in zip(labels, sets, strict=True)], index=obs.index)
    rarest = holds.groupby(labels).mean()[labels.value_counts() >= 30].min()
    return {"cover": holds.mean(), "rarest": rarest, "size": sets.str.len().where(~none, 0).mean(), "none": none.mean()}


def main() -> None:
    """Run everything asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["pbmc3k", "mouse_bladder", "celseq2_5cl", "mosaic_pbmc15k"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    rows = []
    for seed in args.seeds:
        for data in args.data:
            adata = read(data)
            types = LEFT_OUT.get(data, [])
            for left_out in [None, *types[seed % len(types) :][:1]] if types else [None]:
                found = run(adata, seed, left_out)
                rows.append({"data": data, "left_out": left_out or "", "seed": seed, **found})
                print(rows[-1], flush=True)
                report(rows)


def report(rows: list[dict]) -> None:
    """Write both tables."""
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "mapping.csv", index=False, float_format="%.4g")
    mean = table.groupby(["data", "left_out"], sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    lines = [f"`python benchmarks/mapping.py`, see there; mean over seeds {sorted(set(table['seed']))}.", ""]
    (RESULTS / "mapping.md").write_text("\n".join([*lines, *markdown(mean)]) + "\n")


if __name__ == "__main__":
    main()
