"""What the plots share: Axes to draw on, showing and saving, and scatter plots in colours that all can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

# Okabe and Ito's colours, without yellow and black; with the markers they tell 28 categories apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "^", "s", "D")
MISSING = "#D9D9D9"
LEGEND_ROWS = 15


def panels(n: int, ax: Axes | Sequence[Axes] | None, *, size: tuple[float, float] = (4.4, 3.8)) -> list[Axes]:
    """The user's Axes, if they are as many as needed, else a row of new ones."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(1, n, figsize=(size[0] * n, size[1]), layout="constrained", squeeze=False)
        return list(axes[0])
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) != n or not all(isinstance(a, Axes) for a in given):
        raise ValueError(f"ax must be {n} matplotlib Axes for this plot, found {len(given)} object(s).")
    return given


def finish(axes: list[Axes], *, own: bool, show: bool | None, save: str | Path | None) -> Any:
    """Save and show a figure as asked; return one Axes, or an array of several."""
    if save is not None:
        figure: Any = axes[0].figure  # or a part of one, which cannot be saved
        figure.savefig(save, dpi=200, bbox_inches="tight")
    if show or (show is None and own and save is None):
        import matplotlib.pyplot as plt

        plt.show()
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def tidy(ax: Axes, title: str, x: str, y: str) -> None:
    """Title, axis labels, and no frame where there is nothing to read."""
    ax.set_title(title, fontsize=11, loc="left")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)


def point_size(n: int) -> float:
    """Area of a point, such that many cells do not hide one another and few can be seen."""
    return float(np.clip(12_000 / max(n, 1), 1.0, 24.0))


def scatter_categories(ax: Axes, xy: np.ndarray, values: pd.Series, colors: Sequence[str] | None) -> None:
    """Points in the colours of their categories, rare ones on top, with a legend beside the Axes."""
    values = pd.Series(pd.Categorical(values)).cat.remove_unused_categories()
    codes, names = values.cat.codes.to_numpy(), list(values.cat.categories)
    size = point_size(len(xy))
    if (codes < 0).any():
        ax.scatter(
            xy[codes < 0, 0], xy[codes < 0, 1], s=size, c=MISSING, linewidths=0, label="missing", rasterized=True
        )
    handles = {}
    for code in np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable"):
        if colors is None:
            color, marker = COLORS[code % len(COLORS)], MARKERS[code // len(COLORS) % len(MARKERS)]
        else:
            color, marker = colors[code], "o"
        points = xy[codes == code]
        handles[code] = ax.scatter(
            points[:, 0],
            points[:, 1],
            s=size,
            color=color,
            marker=marker,
            linewidths=0,
            alpha=0.85,
            label=str(names[code]),
            rasterized=True,
        )
    ax.legend(
        handles=[handles[code] for code in sorted(handles)],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.02),
        ncols=1 + (len(names) - 1) // LEGEND_ROWS,
        frameon=False,
        fontsize=8,
        markerscale=float(np.sqrt(30 / size)),
        handletextpad=0.3,
    )


def scatter_values(
    ax: Axes, xy: np.ndarray, values: np.ndarray, label: str, *, log: bool, high: float | None = None
) -> None:
    """Points coloured by a number (up to `high`), the largest on top, with a colour bar; `log` is ``log1p``."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    low = float(finite.min()) if finite.size else 0.0
    high = max(float(finite.max()) if finite.size else 1.0, low + 1e-9) if high is None else high
    log = log and low >= 0
    norm = FuncNorm((np.log1p, np.expm1), vmin=0, vmax=high) if log else Normalize(low, high)
    order = np.argsort(np.where(np.isfinite(values), values, -np.inf), kind="stable")
    shown = np.ma.masked_invalid(values[order])
    points = ax.scatter(
        xy[order, 0],
        xy[order, 1],
        s=point_size(len(xy)),
        c=shown,
        cmap=colormaps["viridis"].with_extremes(bad=MISSING),
        norm=norm,
        linewidths=0,
        rasterized=True,
        plotnonfinite=True,
    )
    bar = ax.figure.colorbar(points, ax=ax, pad=0.02, fraction=0.05)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if log:
        bar.set_ticks(count_ticks(high))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        bar.ax.minorticks_off()
    else:
        bar.ax.yaxis.set_major_locator(MaxNLocator(5))


def log_counts_axis(ax: Axes, which: str, high: float) -> None:
    """Space an axis of counts by ``log1p``, with ticks at round counts, zero included."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("function", functions=(_log1p, np.expm1))
    (ax.set_xlim if which == "x" else ax.set_ylim)(-0.35 if high > 1 else -0.1 * max(high, 1e-9), max(high, 1e-9) * 1.1)
    axis.set_major_locator(FixedLocator(count_ticks(high)))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def count_ticks(high: float) -> list[float]:
    """Zero and round counts up to `high`: 0, 1, 3, 10, 30, …; finer where all values are small."""
    if high < 1:
        return [float(t) for t in MaxNLocator(4).tick_values(0, high) if 0 <= t <= high * 1.001]
    steps = [s * 10**power for power in range(8) for s in (1, 3)]
    return [0.0, *(float(s) for s in steps if s <= high)]


def _log1p(values: np.ndarray) -> np.ndarray:
    return np.log1p(np.maximum(values, -0.99))
