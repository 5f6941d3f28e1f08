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

from pathlib import Path

import harness
import numpy as np
import pandas as pd
from tables import markdown

N_TEST = 500


def cells():
    """(source, target) of the first pair."""
    import mudata as md

    mdata = md.read_h5mu(harness.DATA / "mosaic_pbmc15k.h5mu")
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

    mdata = md.read_h5mu(harness.DATA / "pancan_mut.h5mu")
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


PAIRS = {"PBMC 10k to 5k": "mosaic_pbmc15k", "tumors to BRCA": "pancan_mut"}
NUMBERS = (50, 100, 200)


def score(data: str, method: str, seed: int) -> list[dict]:
    """A row for every number of samples and every start."""
    import aeverse as ae

    if PAIRS[data] == "mosaic_pbmc15k":
        (source, target), judge, options = cells(), judge_cells, {"likelihood": "nb", "n_models": 1}
    else:
        options = {"likelihood": "bernoulli", "regularizer": "denoising"}
        (source, target), judge = tumors(data.split()[-1]), judge_tumors
    other, rows = ae.models.Autoencoder(**options).fit(source), []
    order = np.random.default_rng(seed).permutation(target.n_obs)
    test = target[np.sort(order[-min(N_TEST, target.n_obs - 200) :])].copy()
    for n in NUMBERS:
        few = target[np.sort(order[:n])].copy()
        scratch = ae.models.Autoencoder(**options, random_state=seed).fit(few)
        started = ae.models.Autoencoder(random_state=seed).fit(few, init=other)
        best = max(scratch.history["heldout"])
        for start, model in (("scratch", scratch), ("source", other), ("init", started)):
            row = {"n": n, "start": start, "d2": judge(model, few, test, seed)}
            if start != "source":
                history = model.history
                row["steps"] = history["step"][int(np.argmax(history["heldout"]))]
                row["same"] = first_passing(history, best)
            rows.append(row)
    return rows


CASES = [harness.Cases("transfer", list(PAIRS), {"aeverse": None}, score, (0, 1, 2))]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the seeds, and the standard deviation of d2."""
    groups = tables["transfer"].groupby(["data", "n", "start"], sort=False)
    mean = groups[["d2", "steps", "same"]].mean()
    mean.insert(1, "sd", groups["d2"].std())
    return markdown(mean.round({"steps": 0, "same": 0}).reset_index(), decimals=4)


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
