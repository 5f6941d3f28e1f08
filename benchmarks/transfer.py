"""What a model of other data is worth to few samples: Autoencoder.fit(init=) beside training from scratch.

    python benchmarks/transfer.py

Two pairs: blood cells of one experiment (mosaic_pbmc15k, 10k) before those of another (5k); tumors of ten types before
those of the eleventh (pancan_mut). n = 50, 100, 200 samples of the new data are learned from; judged is on samples of the new data
that neither model saw: for cells a tenth of the molecules, the denoised rest against the gene means; for tumors a tenth
of the entries, decoded from the rest against the gene frequencies of the n samples. d2 is the deviance explained.

scratch     trained on the n samples alone
source      the model of the other data, as it is
init        started from it; `steps` is where the best weights were found (0: those that it started from), `same` how many steps
            it took to pass the best of scratch on the same held-out molecules or entries

Written are benchmarks/results/transfer.csv and transfer.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
N_TEST = 500


def cells():
    """(source, target) of the first pair."""
    import mudata as md

    mdata = md.read_h5mu(DATA / "mosaic_pbmc15k.h5mu")
    rna = mdata["rna"].copy()
    batch = mdata.obs["batch"].reindex(rna.obs_names).astype(str).to_numpy()
    names = pd.Series(batch).value_counts().index
    source = (
        next(name for name in names if "10k" in name.lower()) if any("10k" in n.lower() for n in names) else names[0]
    )
    return rna[batch == source].copy(), rna[batch != source].copy()


def tumors(kind: str):
    """(source, target) of the second pair: all other types, and one."""
    import mudata as md

    mdata = md.read_h5mu(DATA / "pancan_mut.h5mu")
    mut = mdata["mut"].copy()
    mut.X = np.asarray(mut.X.toarray() if hasattr(mut.X, "toarray") else mut.X, np.float32)
    own = mdata.obs["label"].reindex(mut.obs_names).astype(str).to_numpy() == kind
    return mut[~own].copy(), mut[own].copy()


def judge_cells(model, few, test, seed) -> float:
    """Deviance explained of a tenth of the molecules of unseen cells."""
    import aeverse as ae

    seen = test.copy()
    ae.pp.thin_counts(seen, 0.9, random_state=seed)
    return ae.metrics.deviance_explained(
        model.denoise(seen, layer="thinned"), seen.layers["thinned"], seen.layers["thinned_rest"]
    )


def judge_tumors(model, few, test, seed) -> float:
    """Deviance explained of a tenth of the entries of unseen tumors, beyond the frequencies in the few."""
    import torch

    from aeverse.nn import Bernoulli

    hidden = np.random.default_rng(seed).random(test.shape) < 0.1
    shown = test.copy()
    shown.X = np.where(hidden, np.nan, test.X)
    x = torch.tensor(np.where(hidden, test.X, np.nan))
    frequency = torch.tensor((few.X.sum(0) + 0.5) / (few.n_obs + 1)).expand_as(x)
    lost, null = (Bernoulli.deviance(x, m).sum() for m in (torch.tensor(model.decode(model.encode(shown))), frequency))
    return float(1 - lost / null)


def first_passing(history: dict, level: float) -> float:
    """Steps after which the held-out score is at least `level`; NaN: never."""
    passed = [step for step, score in zip(history["step"], history["heldout"], strict=True) if score >= level]
    return passed[0] if passed else np.nan


def main() -> None:
    """Run both pairs and write the table."""
    import aeverse as ae

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=["BRCA"], help="tumor types to be the new data")
    parser.add_argument("--pairs", nargs="+", default=["cells", "tumors"], choices=["cells", "tumors"])
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    warnings.simplefilter("ignore")
    pairs = {}
    if "cells" in args.pairs:
        pairs["PBMC 10k to 5k"] = cells(), judge_cells, {"likelihood": "nb", "n_models": 1}
    for kind in args.kinds if "tumors" in args.pairs else ():
        options = {"likelihood": "bernoulli", "regularizer": "denoising"}
        pairs[f"tumors to {kind}"] = tumors(kind), judge_tumors, options
    rows = []
    for name, ((source, target), judge, options) in pairs.items():
        other = ae.models.Autoencoder(**options).fit(source)
        for seed in args.seeds:
            order = np.random.default_rng(seed).permutation(target.n_obs)
            test = target[np.sort(order[-min(N_TEST, target.n_obs - 200) :])].copy()
            for n in (50, 100, 200):
                few = target[np.sort(order[:n])].copy()
                scratch = ae.models.Autoencoder(**options, random_state=seed).fit(few)
                started = ae.models.Autoencoder(random_state=seed).fit(few, init=other)
                best = max(scratch.history["heldout"])
                for method, model in (("scratch", scratch), ("source", other), ("init", started)):
                    row = {"pair": name, "n": n, "seed": seed, "method": method, "d2": judge(model, few, test, seed)}
                    if method != "source":
                        history = model.history
                        row["steps"] = history["step"][int(np.argmax(history["heldout"]))]
                        row["same"] = first_passing(history, best)
                    rows.append(row)
                    print(row, flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / "transfer.csv", index=False, float_format="%.4g")
    mean = table.groupby(["pair", "n", "method"], sort=False)[["d2", "steps", "same"]].mean().reset_index()
    spread = table.groupby(["pair", "n", "method"], sort=False)["d2"].std().to_numpy()
    lines = ["| pair | n | method | d2 | sd | steps | same |", "|" + "---|" * 7]
    for row, sd in zip(mean.itertuples(index=False), spread, strict=True):
        steps = ["" if v != v else f"{v:.0f}" for v in (row.steps, row.same)]
        lines.append(f"| {row.pair} | {row.n} | {row.method} | {row.d2:.4f} | {sd:.4f} | {steps[0]} | {steps[1]} |")
    (RESULTS / "transfer.md").write_text("`python benchmarks/transfer.py`, see there.\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
