"""`pl.mapping`: new samples that were mapped: typicality, confidence, and labels against known ones."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, MISSING, colormap, finish, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from mudata import MuData

BINS = 20
ALPHA = 0.05
OF_LABELS = ("_predicted", "_confidence", "_set")  # endings of the columns of labels; the other one holds p-values
SIZES = ("one label", "several", "none of these")  # of prediction sets
WRITE_UP_TO = 15  # categories, up to which shares are written into the fields


@checked
@with_shared_parameters
def mapping(
    data: AnnData | MuData,
    label: str,
    *,
    truth: str | None = None,
    key: str = "X_ae",
    cmap: str | Colormap | None = None,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> np.ndarray | Figure:
    """Overview of mapped samples: p-values of typicality, confidence and prediction sets by label, confusion with known labels.

    The left panel counts samples by their p-value. If they are like the training data, all bars are about as high as the
    gray line; a first bar far above it holds samples that are unlike them. The second panel shows the confidence of each
    label, as boxes from the first to the third quartile. The third shows for each label that samples got how large their
    prediction sets are: one label, several, or none of these. The fourth, with `truth`, shows for each known label (row) the
    share of its samples that got each label (column).

    Parameters
    ----------
    data
        Samples that `aeverse.tl.map_query` mapped.
    label
        A label of `transfer` in that run.
    truth
        Column of ``data.obs`` with known labels, to compare with.
    key
        The `key_added` of that run.
    cmap, title, figsize
        As in `aeverse.pl.latent`.
    ax
        Axes to draw on: three, or four with `truth`.
    show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Array of Axes, or the figure.

    Raises
    ------
    KeyError
        There is no such result, label or column.

    See Also
    --------
    aeverse.tl.map_query : Maps the samples.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(400, 100, n_types=3)
    >>> training, query = adata[:300].copy(), adata[300:].copy()
    >>> model = ae.models.Autoencoder(n_models=1, n_latent=8).fit(training)
    >>> ae.tl.map_query(query, model, transfer="cell_type")
    >>> axes = ae.pl.mapping(query, "cell_type", truth="cell_type", show=False)
    """
    p_values, predicted, confidence, sets = _results(data, label, key)
    true_labels = None if truth is None else _slots.unknown_as_nan(_slots.read_column(data.obs, truth)).astype(object)
    names = [
        "typicality",
        f"confidence in {label}",
        f"prediction sets of {label}",
        *([] if truth is None else ["confusion matrix"]),
    ]
    panel_titles = titles(title, names)
    colors = colormap(cmap, "Blues")
    labels = {*predicted.dropna().astype(str), *(() if true_labels is None else true_labels.dropna().astype(str))}
    longest = max((len(name) for name in labels), default=0)
    below = 0.075 * longest if true_labels is not None else 0  # names of columns stand upright
    size = (3.2 + 0.08 * longest, max(3.4, 1.4 + 0.26 * len(labels)) + below)
    axes = panels(len(names), ax, size=size, ncols=2, figsize=figsize)
    _p_values(axes[0], p_values, panel_titles[0])
    _confidence(axes[1], predicted, confidence, panel_titles[1])
    _sizes_of_sets(axes[2], predicted, sets, panel_titles[2])
    if true_labels is not None:
        _confusion(axes[3], predicted, true_labels, panel_titles[3], str(truth), label, colors)
    return finish(axes, "mapping", own=ax is None, show=show, save=save, return_fig=return_fig)


def _results(data, label: str, key: str) -> tuple[np.ndarray, pd.Series, np.ndarray, pd.Series]:
    """P-values, labels, confidence and prediction sets that `aeverse.tl.map_query` wrote."""
    writes = [str(slot) for slot in np.atleast_1d(_slots.read_record(data, key)["writes"])]
    columns = [slot.removeprefix("obs/") for slot in writes if slot.startswith("obs/")]
    p_column = next((c for c in columns if not c.endswith(OF_LABELS)), None)
    if p_column is None or p_column not in data.obs:
        raise KeyError(f"uns['ae'][{key!r}] is no result of aeverse.tl.map_query, or its p-values are gone from obs.")
    if f"{label}_predicted" not in columns:
        labels = [c.removesuffix("_predicted") for c in columns if c.endswith("_predicted")]
        raise KeyError(f"label={label!r} was not transferred; labels are: {labels or 'none: pass transfer='}.")
    obs = data.obs
    predicted, confidence, sets = (obs[f"{label}{ending}"] for ending in OF_LABELS)
    return obs[p_column].to_numpy(float), predicted, confidence.to_numpy(float), sets


def _p_values(ax: Axes, p: np.ndarray, title: str) -> None:
    p = p[np.isfinite(p)]
    counts, edges = np.histogram(p, bins=BINS, range=(0, 1))
    colors = [COLORS[3] if edge < ALPHA - 1e-9 else COLORS[0] for edge in edges[:-1]]
    ax.bar(edges[:-1], counts, width=1 / BINS, align="edge", color=colors)
    ax.axhline(len(p) / BINS, color="#888888", lw=1.2)
    ax.set_xlim(0, 1)
    tidy(ax, title, "p-value (small: unlike the training data)", "samples")
    share = float((p <= ALPHA).mean()) if len(p) else float("nan")
    text = f"{share:.0%} at or below {ALPHA:g}\n({ALPHA:.0%} expected)"
    ax.text(0.97, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=9, color=COLORS[3])


def _confidence(ax: Axes, predicted: pd.Series, confidence: np.ndarray, title: str) -> None:
    groups = pd.Series(confidence).groupby(predicted.astype(str).where(predicted.notna()).to_numpy())
    parts = {name: values.dropna().to_numpy() for name, values in groups}
    rows = range(len(parts))
    style = {"color": COLORS[0], "linewidth": 1.2}
    # matplotlib has `orientation` from 3.10 on, and deprecates `vert`
    names = inspect.signature(ax.boxplot).parameters
    horizontal: dict[str, Any] = {"orientation": "horizontal"} if "orientation" in names else {"vert": False}
    ax.boxplot(
        list(parts.values()),
        positions=list(rows),
        **horizontal,
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": MISSING, **style},
        medianprops={"color": COLORS[3], "linewidth": 2},
        whiskerprops=style,
        capprops=style,
    )
    ax.set_yticks(list(rows), [f"{name} ({len(values)})" for name, values in parts.items()])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.02)
    ax.tick_params(axis="y", length=0)
    tidy(ax, title, "share of the neighbors' votes", "")


def _sizes_of_sets(ax: Axes, predicted: pd.Series, sets: pd.Series, title: str) -> None:
    several = sets.astype(str).str.contains(" | ", regex=False)  # as aeverse.tl.map_query joins them
    kind = np.where(sets.astype(str) == SIZES[2], SIZES[2], np.where(several, SIZES[1], SIZES[0]))
    known = predicted.notna().to_numpy()
    table = pd.crosstab(predicted[known].astype(str).to_numpy(), kind[known]).reindex(columns=SIZES, fill_value=0)
    left, rows = np.zeros(len(table)), range(len(table))
    for size, color in zip(SIZES, (COLORS[0], MISSING, COLORS[3]), strict=True):
        share = (table[size] / table.sum(axis=1)).to_numpy()
        ax.barh(rows, share, left=left, label=size, color=color, edgecolor="white")
        left += share
    ax.set_yticks(rows, [f"{name} ({n})" for name, n in table.sum(axis=1).items()])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=8)
    tidy(ax, title, "share of the samples", "")


def _confusion(ax: Axes, predicted, true_labels, title: str, truth: str, label: str, colors: Colormap) -> None:
    table = pd.crosstab(true_labels.astype(str).where(true_labels.notna()).to_numpy(), predicted.astype(str).to_numpy())
    shares = table.div(table.sum(axis=1), axis=0)
    common = [
        name for name in shares.index if name in shares.columns
    ]  # in one order, so that agreement is the diagonal
    shares = shares.loc[common + [n for n in shares.index if n not in common]]
    shares = shares[common + [n for n in shares.columns if n not in common]]
    image = ax.imshow(shares, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(shares.shape[1]), list(shares.columns), rotation=90)
    ax.grid(False)  # `scanpy.set_figure_params` turns it on
    ax.set_yticks(range(shares.shape[0]), [f"{name} ({table.loc[name].sum()})" for name in shares.index])
    if max(shares.shape) <= WRITE_UP_TO:
        for (row, column), share in np.ndenumerate(shares.to_numpy()):
            if share >= 0.005:
                color = "white" if share > 0.55 else "black"
                ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=color)
    tidy(ax, title, f"{label}, predicted", truth)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.outline.set_visible(False)
