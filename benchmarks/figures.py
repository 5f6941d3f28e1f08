"""The figures of the README, from the committed tables: python benchmarks/figures.py writes them between its marks.

Each row is a question of a user, what ours gives, and what the best peer of the table gives. No figure is typed in by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARKS = "<!-- figures: begin (written by benchmarks/figures.py) -->", "<!-- figures: end -->"
NAMES = {
    "cellmapper": "CellMapper",
    "pca": "PCA",
    "harmony": "Harmony",
    "scvi": "scVI",
    "knn_smoothing": "kNN smoothing",
    "alra": "ALRA",
}


def rows() -> list[tuple[str, str, str]]:
    """Question, ours, best peer."""
    return [_held_out(), _clusters(), _proteins(), _batches(), _markers(), _speed()]


def _held_out() -> tuple[str, str, str]:
    means = _read("denoise").groupby(["data", "method"])["D2"].mean().unstack().mean()
    return "Deviance of held-out molecules explained, mean of three data sets", *_ours_and_best(means)


def _clusters() -> tuple[str, str, str]:
    table = _read("embed").groupby("method")[["ari", "purity"]].mean()
    ours, peer = (f"{r['ari']:.2f}, {r['purity']:.2f}" for _, r in table.loc[["aeverse", "pca"]].iterrows())
    return (
        "Clusters of `sc.tl.leiden` at its defaults, seven data sets: ARI, purity of neighbors",
        ours,
        f"{peer} (PCA)",
    )


def _proteins() -> tuple[str, str, str]:
    means = _read("proteins").groupby(["data", "method"])[["pearson", "spearman"]].mean().groupby("method").mean()
    ours, best = zip(*(_ours_and_best(means[column].drop("raw")) for column in means), strict=True)
    question = "Denoised transcript against the protein of the same cell, two data sets: correlation, that of ranks"
    raw = ", ".join(f"{value:.2f}" for value in means.loc["raw"])
    return question, ", ".join(ours), f"{', '.join(best)}; {raw} (raw counts)"


def _batches() -> tuple[str, str, str]:
    table = _read("batches")
    means = table[table["data"] == "mosaic_pbmc15k"].groupby("method")[["batch", "ari"]].mean()
    shown = {method: f"{r['batch']:.2f}, {r['ari']:.2f}" for method, r in means.iterrows()}
    peers = "; ".join(f"{shown[method]} ({NAMES[method]})" for method in ("scvi", "harmony"))
    return "Two experiments on blood, `batch_key`: batch score, ARI", shown["aeverse_batch"], peers


def _markers() -> tuple[str, str, str]:
    table = _read("markers")
    found = table[table["data"].str.startswith("line")].groupby("method")["markers"].sum()
    question = "False marker genes of clusters within one cell line, two lines"
    return question, f"{found['aeverse']:.0f}", f"{found['scanpy']:.0f} (`sc.tl.rank_genes_groups`)"


def _speed() -> tuple[str, str, str]:
    ratios = _read("step").set_index("genes")["ours / scVI"]
    return f"Cells trained per second, {' and '.join(f'{g:,}' for g in ratios.index)} genes, one thread", *(
        " and ".join(f"{value:.1f} times" for value in ratios),
        "1 (scVI)",
    )


def _ours_and_best(means: pd.Series) -> tuple[str, str]:
    peers = means[~means.index.str.startswith("aeverse")]
    return f"{means['aeverse']:.2f}", f"{peers.max():.2f} ({NAMES.get(peers.idxmax(), peers.idxmax())})"


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv")


def text() -> str:
    """The table in Markdown, between its marks."""
    lines = ["| | aeverse | best peer in the table |", "|---|---|---|"]
    lines += [f"| {question} | **{ours}** | {peer} |" for question, ours, peer in rows()]
    return "\n".join([MARKS[0], *lines, MARKS[1]])


def main() -> None:
    """Write the README."""
    path = ROOT / "README.md"
    path.write_text(
        re.sub(f"{re.escape(MARKS[0])}.*{re.escape(MARKS[1])}", lambda _: text(), path.read_text(), flags=re.S)
    )


if __name__ == "__main__":
    main()
