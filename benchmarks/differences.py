"""Ours less the best peer, with intervals, from the committed rows of the other benchmarks. Nothing is run.

    python benchmarks/differences.py

For each score, the best peer is the one with the highest mean over the data sets that both have. Differences are paired: by seed,
split or fold where both methods have it (a peer that ran once stands beside each of our seeds), then averaged over a data set.

all sets           mean difference over the data sets, and its 95 % interval (Student's t over the data sets, which are few)
ahead              on how many of the sets ours is ahead of that peer
where a peer leads every data set and score in which some peer, chosen after the fact, is ahead of ours; the interval (t over seeds,
                   splits or folds) says how far repeats alone would move the difference. Folds share training samples: it is
                   rather too narrow

Peers that see what they are judged by (scANVI in batches, SNF in cohorts) are left out, and so are our own variants. Written is
benchmarks/results/differences.md.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from harness import RESULTS, read
from scipy.stats import t
from tables import markdown

OURS = {"batches": "aeverse_batch"}
UNFAIR = {"batches": ("scanvi",), "cohorts": ("snf",), "denoise": ("gene_means",), "dropouts_thinned": ("gene means",)}
SCORES = {  # table: scores; a minus: lower is better
    "denoise": ("D2", "-mse_pred"),
    "embed": ("ari", "nmi", "purity"),
    "embed_halves": ("cluster_deviance",),
    "multimodal_embed": ("ari", "nmi", "purity"),
    "multimodal_predict": ("spearman", "-rmse"),
    "batches": ("batch", "ari", "nmi", "purity"),
    "mapping": ("accuracy", "auroc"),
    "proteins": ("pearson", "spearman", "within"),
    "dropouts_thinned": ("auc", "auc_gene"),
    "downstream_types": ("ap", "ari", "purity"),
    "downstream_trajectory": ("order",),
    "embed_values": ("mean",),
    "cohorts": ("ari", "knn", "lr", "c", "-ibs"),
}
PAIRED_BY = ("seed", "fold", "depth", "left_out")


def repeats(rows: pd.DataFrame, column: str, ours: str, peer: str) -> pd.Series:
    """Ours less a peer in every repeat of one data set."""
    by = [name for name in PAIRED_BY if name in rows]
    values = {m: rows[rows["method"] == m].dropna(subset=[column]).set_index(by)[column] for m in (ours, peer)}
    beside = values[peer].reindex(values[ours].index)
    if beside.isna().any() and values[peer].index.get_level_values("seed").nunique() == 1:  # it ran once
        others = [name for name in by if name != "seed"]
        once = values[peer].groupby(level=others).mean() if others else values[peer].mean()
        places = values[ours].index.droplevel("seed") if others else None
        beside = pd.Series(once.reindex(places).to_numpy() if others else once, values[ours].index)
    return (values[ours] - beside).dropna()


def interval(values: np.ndarray) -> str:
    """95 %, Student's t; empty for fewer than three values."""
    if len(values) < 3:
        return ""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values) - half:+.3f} to {np.mean(values) + half:+.3f}"


def compare(name: str, table: pd.DataFrame, score: str) -> tuple[dict, list[dict]]:
    """The row of all sets, and those of the sets where a peer leads."""
    column, sign = score.removeprefix("-"), -1 if score.startswith("-") else 1
    table = table.assign(**{column: sign * table[column]})
    ours = OURS.get(name, "aeverse")
    shown = (table["method"] == ours) | ~table["method"].str.startswith("aeverse")
    table = table[shown & ~table["method"].isin(UNFAIR.get(name, ()))]
    wide = table.groupby(["data", "method"], sort=False)[column].mean().unstack()
    wide = wide[wide[ours].notna()].dropna(axis=1, how="all")
    complete = wide.drop(columns=ours).dropna(axis=1)
    peer = complete.mean().idxmax()
    differences = {d: repeats(table[table["data"] == d], column, ours, peer) for d in wide.index}
    means = np.array([values.mean() for values in differences.values()])
    row = {
        "table": name,
        "score": column,
        "aeverse": sign * wide[ours].mean(),
        "best peer": peer,
        "its mean": sign * wide[peer].mean(),
        "difference": means.mean(),
        "95 %": interval(means),
        "ahead": f"{(means > 0).sum()} of {len(means)}",
    }
    behind = []
    for data, values in wide.iterrows():
        rival = values.drop(ours).idxmax()
        lead = repeats(table[table["data"] == data], column, ours, rival)
        if lead.mean() < 0:
            place = {"table": name, "score": column, "data": data, "aeverse": sign * values[ours]}
            own = {"peer": rival, "its score": sign * values[rival], "difference": lead.mean()}
            behind.append({**place, **own, "95 %": interval(lead.to_numpy())})
    return row, behind


def text() -> str:
    """The page."""
    rows, behind = [], []
    for name, scores in SCORES.items():
        table = read(name)
        for score in scores:
            row, losses = compare(name, table, score)
            rows.append(row)
            behind += losses
    losses = pd.DataFrame(behind).sort_values("difference")
    page = [
        "`python benchmarks/differences.py`, whose head explains the columns. A positive difference is in our favor.",
        "",
        "## Where a peer leads",
        "",
        *markdown(losses),
        "",
        "## All sets",
        "",
        *markdown(pd.DataFrame(rows)),
    ]
    return "\n".join(page) + "\n"


if __name__ == "__main__":
    (RESULTS / "differences.md").write_text(text())
