"""`pl.benchmark`: scores of methods side by side, with their spread over the folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, finish, panels, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = ("fit_seconds", "encode_seconds", "memory_mb")  # less is better
NO_SCORES = ("split", "n_dims", "n_clusters", "saw_test", *COSTS)  # neither more nor less is better, or costs


@checked
@with_shared_parameters
def benchmark(
    table: pd.DataFrame,
    *,
    scores: Sequence[str] | str | None = None,
    ncols: int = 4,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | np.ndarray | Figure:
    """Scores of methods side by side: one panel for each score, one row for each method.

    Small points are folds, large ones their means; the best mean of each score is filled. Methods that saw the test
    samples are marked with a star and are never the best. Costs, if asked for in `scores`, are on a logarithmic axis.

    Parameters
    ----------
    table
        What `aeverse.tl.benchmark` returned.
    scores
        Columns to draw; None: all scores, no costs.
    ncols, title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, an array of several, or the figure.

    Raises
    ------
    KeyError, ValueError
        The table is no benchmark, or a score is missing.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(150, 60, n_types=3)
    >>> table = ae.tl.benchmark(adata, ["ae", "pca"], label_key="cell_type", n_splits=2, n_latent=4)
    >>> axes = ae.pl.benchmark(table, scores=["knn", "ari"], show=False)
    """
    if not isinstance(table, pd.DataFrame) or not {"method", "split"} <= set(table.columns):
        raise ValueError("table must be what aeverse.tl.benchmark returned, with the columns 'method' and 'split'.")
    numbers = [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
    available = [c for c in numbers if c not in NO_SCORES and table[c].notna().any()]
    selection = available if scores is None else _slots.name_list(scores)
    if unknown := [c for c in selection if c not in numbers]:
        raise KeyError(f"scores={unknown} are no columns of the table; there are {[*available, *COSTS]}.")
    if "modalities" in table:
        names = table["method"] + np.where(table["modalities"] == "all", "", ", " + table["modalities"])
        table = table.assign(method=names)
    methods = list(dict.fromkeys(table["method"]))
    cheats = set(table.loc[table["saw_test"].astype(bool), "method"]) if "saw_test" in table else set()
    panel_titles = titles(title, [score.replace("_", " ") for score in selection])
    axes = panels(len(selection), ax, size=(2.0, 0.9 + 0.32 * len(methods)), ncols=ncols, figsize=figsize)
    columns = min(len(selection), ncols) if ax is None else 1
    for i, (panel, score) in enumerate(zip(axes, selection, strict=True)):
        _panel(panel, table, score, methods, cheats)
        panel.set_title(panel_titles[i], fontsize=10, loc="left")
        labels = [f"{m} *" if m in cheats else m for m in methods] if i % columns == 0 else [""] * len(methods)
        panel.set_yticks(range(len(methods)), labels)
        panel.invert_yaxis()
    return finish(axes, "benchmark", own=ax is None, show=show, save=save, return_fig=return_fig)


def _panel(ax: Axes, table: pd.DataFrame, score: str, methods: list[str], cheats: set[str]) -> None:
    means = table.groupby("method")[score].mean().reindex(methods)
    honest = means.drop(list(cheats)).dropna()
    best = None if honest.empty or score == "n_clusters" else honest.idxmin() if score in COSTS else honest.idxmax()
    for i, method in enumerate(methods):
        values = table.loc[table["method"] == method, score].dropna()
        ax.scatter(values, np.full(len(values), i), s=12, color="#AAAAAA", linewidths=0, zorder=2)
        face = COLORS[0] if method == best else "white"
        ax.scatter(means[method], i, s=52, facecolor=face, edgecolor=COLORS[0], linewidth=1.6, zorder=3)
    if score in COSTS and (table[score].dropna() > 0).all():
        ax.set_xscale("log")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.set_ylim(-0.6, len(methods) - 0.4)
    ax.grid(axis="y", color="#ECECEC", zorder=0)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
