"""Tumour cohorts: codes of patients never seen in training, ours beside other methods.

    python benchmarks/cohorts.py --methods aeverse pca

Five folds: a method is fitted to four and encodes the fifth; scaling, choice of features and groups are learned there
too. (SNF has no code for new patients: it sees them all, without their labels.) benchmarks/results/cohorts.csv has a row for
every fold; cohorts.md and cohorts.png are their means.

ari, nmi   k-means on the held-out codes against the published subtypes
knn        balanced accuracy of the ten nearest training patients
lr         balanced accuracy of logistic regression on the code
c          concordance of a ridge Cox model on the code, its penalty chosen in three folds of the training patients (needs
           lifelines; its Cox model has the same objective and takes a hundred times as long as the one taken)
ibs        integrated Brier score of the same model (0 is perfect); dcal: p-value of its D-calibration, over all folds
logrank    -log10 p of the log-rank test between groups of held-out patients (k-means of the training codes)
less       ari with one modality missing in every held-out patient, mean over the modalities; patients who had no other
           are left out
only       ari with all modalities but one missing, likewise (with two modalities the same as `less`)
seconds    wall time of a fit, the shortest of the folds of a cohort
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import harness
import mudata as md
import numpy as np
import pandas as pd
import scipy.sparse as sp

COHORTS = ["tcga_brca", "tcga_kirc", "brca_mixomics", "cll_mofa"]
COLUMNS = ["ari", "nmi", "knn", "lr", "c", "ibs", "dcal", "logrank", "less", "only", "seconds"]
UNKNOWN = ("NA", "nan", "None")


# ---- methods: training patients to a function that encodes -----------------------------------------------------
def aeverse(train, seed):
    """The default call."""
    import aeverse as ae

    return ae.models.MultimodalAutoencoder(random_state=seed).fit(train).encode


def standardized(train, modalities=None):
    """Function to all features side by side, in standard deviations of the training patients, missing ones at their mean."""
    modalities = list(train.mod) if modalities is None else modalities

    def matrix(mdata):
        blocks = []
        for m in modalities:
            block = np.full((mdata.n_obs, train[m].n_vars), np.nan)
            if m in mdata.mod:
                x = mdata[m].X
                block[mdata.obs_names.get_indexer(mdata[m].obs_names)] = x.toarray() if sp.issparse(x) else x
            blocks.append(block)
        return np.hstack(blocks)

    x = matrix(train)
    mean, sd = np.nanmean(x, 0), np.nanstd(x, 0)
    sd[sd < 1e-6] = np.inf
    return lambda mdata: np.nan_to_num((matrix(mdata) - mean) / sd)


def pca(train, seed, modalities=None):
    """32 components of all features side by side, standardized; what is missing takes the mean."""
    features_of = standardized(train, modalities)
    axes = np.linalg.svd(features_of(train), full_matrices=False)[2][:32]
    return lambda mdata: features_of(mdata) @ axes.T


def pca_first(train, seed):
    """The same of the first modality alone: expression, in cll_mofa the response to drugs."""
    return pca(train, seed, [next(iter(train.mod))])


def features(train, seed):
    """All features themselves."""
    return standardized(train)


def clinical(train, seed):
    """Age and stage; only survival is judged. A patient of unknown stage counts as one of the first."""

    def encode(mdata):
        stages = mdata.obs["stage"].astype(str)
        return np.column_stack([mdata.obs["age"].astype(float), *(stages == s for s in ("II", "III", "IV"))])

    return encode


def foreign(name):
    """A method of aeverse.methods, fitted to the training patients."""

    def method(train, seed):
        from aeverse import _slots, methods, models

        data = _slots.read_modalities(train)
        kinds = models.kinds_of(data, "auto")
        fitted = methods.MULTIMODAL[name](
            data, kinds, n_obs=train.n_obs, batches=None, n_latent=None, random_state=seed, progress=False
        )

        def encode(mdata):
            return fitted.code if mdata is train else fitted.encode(_slots.read_modalities(mdata), mdata.n_obs)

        return encode

    return method


METHODS = {
    "aeverse": aeverse,
    "pca": pca,
    "pca_first": pca_first,
    "features": features,
    "clinical": clinical,
    **{name: foreign(name) for name in ("concat_pca", "kernel_pca", "mfa", "mofa", "snf")},
}
TRANSDUCTIVE = ("snf",)
WITH_CLINICAL = ("tcga_brca", "tcga_kirc")


# ---- codes -----------------------------------------------------------------------------------------------------
def restricted(mdata, modalities):
    """The patients' modalities among some, and which of the patients have any."""
    rest = md.MuData({m: mdata[m] for m in modalities})
    there = np.isin(mdata.obs_names, rest.obs_names)
    return rest[mdata.obs_names[there]].copy(), there


def encoder(method: str, train, seed: int):
    """Function from held-out patients to the codes of the training patients and theirs."""
    if method not in TRANSDUCTIVE:
        encode = METHODS[method](train, seed)
        own = encode(train)
        return lambda mdata: (own, encode(mdata))

    def both(mdata):
        parts = {m: [d[m] for d in (train, mdata) if m in d.mod] for m in train.mod}
        joined = md.MuData({m: ad.concat(p) for m, p in parts.items()})
        code = METHODS[method](joined, seed)(joined)
        return tuple(code[joined.obs_names.get_indexer(d.obs_names)] for d in (train, mdata))

    return both


def codes_of(method: str, train, test, seed: int) -> dict[str, np.ndarray]:
    """Codes of the training and the held-out patients, of these also with modalities missing (NaN: had no other)."""
    with harness.timed():
        encode = encoder(method, train, seed)
        own, new = encode(test)
    codes = {"train": own, "test": new}
    for m in test.mod if len(test.mod) > 1 and method != "clinical" else ():
        for what, kept in (("less", [o for o in test.mod if o != m]), ("only", [m])):
            rest, there = restricted(test, kept)
            codes[f"{what} {m}"] = np.full(new.shape, np.nan)
            codes[f"{what} {m}"][there] = encode(rest)[1]
    return codes


# ---- scores ----------------------------------------------------------------------------------------------------
def scores(method: str, codes: dict[str, np.ndarray], train, test) -> dict[str, float]:
    """All scores of one fold."""
    from scoring import cohort_scores

    labels = [d.obs["label"].astype(str).to_numpy() for d in (train, test)]
    pair = codes["train"], codes["test"]
    row = {} if method == "clinical" else cohort_scores(*pair, *labels)
    n_types = len(set(np.concatenate(labels)) - set(UNKNOWN))
    for what in ("less", "only"):
        partial = [z for name, z in codes.items() if name.startswith(what)]
        if partial:
            row[what] = float(np.mean([grouped(z, labels[1], n_types) for z in partial]))
    if "OS_time" in train.obs:
        outcome = [d.obs[c].to_numpy(float) for d in (train, test) for c in ("OS_time", "event")]
        row |= predicted_survival(*pair, *outcome)
        if method != "clinical":
            row["logrank"] = log_rank(*pair, n_types, *outcome[2:])
    return row


def predicted_survival(train_code, test_code, train_time, train_event, test_time, test_event) -> dict:
    """C-index and integrated Brier score of a ridge Cox model on the standardized code, and what `calibrated` needs."""
    from lifelines.utils import concordance_index

    from aeverse.tl._cox import choose_penalty, predict
    from aeverse.tl._survival_scores import integrated_brier, survival_curves

    own, new = (
        np.isfinite(t) & np.isfinite(e) & (t > 0) for t, e in ((train_time, train_event), (test_time, test_event))
    )
    x, t, e = train_code[own].astype(np.float64), train_time[own], train_event[own]
    is_code = np.ones(x.shape[1], bool)
    penalty = choose_penalty(x, t, e, is_code, 0)
    risk = predict(x, t, e, np.vstack([x, test_code[new]]), is_code, penalty)
    risk, new_risk, new_time, new_event = risk[: len(x)], risk[len(x) :], test_time[new], test_event[new]
    curves = survival_curves(risk, t, e, new_risk)
    return {
        "c": float(concordance_index(new_time, -new_risk, new_event)),
        "ibs": integrated_brier(curves, new_time, new_event, t, e),
        "survival": curves.of_each(new_time),
        "event": new_event,
    }


def calibrated(rows: list[dict]) -> list[dict]:
    """The rows of all folds with the p-value of their D-calibration, instead of what it is made of."""
    from aeverse.tl._survival_scores import d_calibration

    if "survival" in rows[0]:
        p = d_calibration(*(np.concatenate([row.pop(name) for row in rows]) for name in ("survival", "event")))[1]
        rows = [{**row, "dcal": p} for row in rows]
    return rows


def grouped(code: np.ndarray, labels: np.ndarray, n_types: int) -> float:
    """ARI of k-means on the codes that there are."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    there = np.isfinite(code).all(1)
    known = ~np.isin(labels[there], UNKNOWN)
    found = KMeans(n_types, n_init=20, random_state=0).fit(code[there]).labels_
    return float(adjusted_rand_score(labels[there][known], found[known]))


def log_rank(train_code, test_code, n_groups: int, months: np.ndarray, event: np.ndarray) -> float:
    """-log10 p of the log-rank test between the held-out patients of the groups found in training."""
    from lifelines.statistics import multivariate_logrank_test
    from sklearn.cluster import KMeans

    groups = KMeans(n_groups, n_init=20, random_state=0).fit(train_code).predict(test_code)
    usable = np.isfinite(months) & np.isfinite(event) & (months > 0)
    if len(set(groups[usable])) < 2:
        return 0.0
    return float(-np.log10(multivariate_logrank_test(months[usable], groups[usable], event[usable]).p_value))


# ---- one case ----------------------------------------------------------------------------------------------------
def score(data: str, method: str, seed: int) -> list[dict]:
    """A row for every fold."""
    sys.path.insert(0, str(harness.DATA.parent))
    from scoring import cohort_folds

    mdata = md.read_h5mu(harness.DATA / f"{data}.h5mu")
    events = mdata.obs["event"].to_numpy(float) if "event" in mdata.obs else None
    rows = []
    for fold, (train, test) in enumerate(cohort_folds(mdata.obs["label"].astype(str).to_numpy(), events)):
        train, test = mdata[train].copy(), mdata[test].copy()
        rows.append(
            {"fold": fold, **scores(method, codes_of(method, train, test, seed), train, test), **harness.cost()}
        )
    return calibrated(rows)


def applies(data: str, method: str, seed: int) -> bool:
    """Three seeds of ours, one of the others; age and stage are known in two cohorts."""
    return (method != "clinical" or data in WITH_CLINICAL) and (method == "aeverse" or seed == 0)


QUICK = ["brca_mixomics"], ["pca", "mfa", "snf"]
CASES = [harness.Cases("cohorts", COHORTS, METHODS, score, (0, 1, 2), QUICK, applies)]


# ---- tables ----------------------------------------------------------------------------------------------------
def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the cohorts and of each, and their picture."""
    table = tables["cohorts"]
    columns = [c for c in COLUMNS if c in table]
    runs_of = table.groupby(["method", "data"], sort=False)
    mean = runs_of[columns].mean().assign(seconds=runs_of["seconds"].min())
    everywhere = mean.drop("clinical", level="method", errors="ignore")
    n_methods = everywhere.index.get_level_values("method").nunique()
    shared = [d for d, part in everywhere.groupby("data", sort=False) if len(part) == n_methods]
    total = everywhere[everywhere.index.isin(shared, level="data")].groupby("method", sort=False).mean()
    runs = table.groupby("method", sort=False)["seed"].nunique()
    lines = []
    for data, part in [("all", total), *((d, mean.xs(d, level="data")) for d in table["data"].unique())]:
        shown = part.dropna(axis=1, how="all")
        heading = f"mean over {', '.join(shared)}" if data == "all" else data
        lines += [f"**{heading}**", "", "| method | seeds | " + " | ".join(shown.columns) + " |"]
        lines.append("|" + "---|" * (2 + shown.shape[1]))
        for method, values in shown.iterrows():
            cells = " | ".join("" if v != v else f"{v:.3f}" for v in values)
            star = " *" if method in TRANSDUCTIVE else ""
            lines.append(f"| {method}{star} | {runs[method]} | {cells} |")
        lines.append("")
    lines.append("`*` is fitted to the held-out patients too.")
    draw(mean, total, folder)
    return lines


def draw(mean: pd.DataFrame, total: pd.DataFrame, folder: Path) -> None:
    """A panel a score: the mean over the cohorts, and each cohort."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        "ari": "ARI of clusters",
        "knn": "accuracy of neighbors",
        "lr": "accuracy of a linear classifier",
        "c": "C-index",
        "less": "ARI, one layer missing",
    }
    titles = {c: t for c, t in titles.items() if c in total}
    methods = list(total.index)[::-1]
    fig, axes = plt.subplots(
        1, len(titles), figsize=(2.9 * len(titles), 0.36 * len(methods) + 1.3), layout="constrained", sharey=True
    )
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for y, method in enumerate(methods):
            color = "#D55E00" if method == "aeverse" else "#0072B2"
            each = mean.loc[method, column].dropna()
            ax.scatter(each, [y] * len(each), s=12, color=color, alpha=0.35, linewidths=0)
            ax.scatter(total.loc[method, column], y, s=55, color=color, zorder=3)
        ax.axvline(total[column].max(), color="#BBBBBB", lw=0.8, zorder=0)
        ax.set_title(title, fontsize=10, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#EEEEEE")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(methods)), [f"{m} *" if m in TRANSDUCTIVE else m for m in methods])
    fig.suptitle("Patients never seen in training: mean (large) and each cohort", fontsize=10, x=0.01, ha="left")
    fig.savefig(folder / "cohorts.png", dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
