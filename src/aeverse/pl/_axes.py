"""What the plots share: Axes to draw on, titles, colors, showing and saving as in scanpy, and scatter plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, FuncNorm, ListedColormap, Normalize, is_color_like
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator

from aeverse import _files

# Okabe and Ito's colors, without yellow and black; with the markers they tell 28 categories apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "^", "s", "D")
MISSING = "#D9D9D9"
LEGEND_ROWS = 15

Palette = str | Sequence[Any] | Mapping[str, Any] | None


def panels(
    n: int,
    ax: Axes | Sequence[Axes] | None,
    *,
    size: tuple[float, float] = (4.4, 3.8),
    ncols: int | None = None,
    figsize: tuple[float, float] | None = None,
) -> list[Axes]:
    """The user's Axes, if they are as many as needed, else new ones: `ncols` in a row, each of `size` inches."""
    if ax is None:
        import matplotlib.pyplot as plt

        columns = min(n, n if ncols is None else max(int(ncols), 1))
        rows = -(-n // columns)
        figsize = (size[0] * columns, size[1] * rows) if figsize is None else figsize
        figure, axes = plt.subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False)
        for unused in axes.flat[n:]:
            figure.delaxes(unused)
        return list(axes.flat[:n])
    ax_list = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(ax_list) != n or not all(isinstance(a, Axes) for a in ax_list):
        raise ValueError(f"ax must be {n} matplotlib Axes for this plot, found {len(ax_list)} object(s).")
    return ax_list


def finish(
    axes: list[Axes],
    name: str,
    *,
    own: bool,
    show: bool | None,
    save: str | Path | bool | None,
    return_fig: bool = False,
) -> Any:
    """Save and show a figure as asked; return one Axes, an array of several, or the figure."""
    figure: Any = axes[0].figure  # or a part of one, which cannot be saved
    for ax in axes:
        show_as_written(ax)
    if save:
        _save(figure, figure_file(name, save))
    if return_fig:
        return figure
    if show or (show is None and own and not save):
        import matplotlib.pyplot as plt

        plt.show()
    return axes[0] if len(axes) == 1 else np.array(axes, dtype=object)


def show_as_written(ax: Axes) -> None:
    """Show names of genes and groups as they are: a dollar in them begins no formula."""
    texts = [*ax.findobj(Text)]
    for axis in (ax.xaxis, ax.yaxis):
        if not isinstance(axis.get_major_formatter(), FixedFormatter):  # numbers, whose powers of ten are formulas
            ticks = {id(label) for tick in axis.get_major_ticks() for label in (tick.label1, tick.label2)}
            texts = [text for text in texts if id(text) not in ticks]
    for text in texts:
        text.set_parse_math(False)


def figure_file(name: str, save: str | Path | bool) -> Path:
    """Where a figure goes: a path as it is; True and ``"_x.png"`` to scanpy's folder of figures, as in scanpy."""
    suffix = save if isinstance(save, str) and save.startswith(("_", ".")) and Path(save).name == save else ""
    if not isinstance(save, bool) and not suffix:
        return Path(save)
    import scanpy as sc

    folder = Path(sc.settings.figdir)
    folder.mkdir(parents=True, exist_ok=True)
    form = "" if suffix.endswith((".png", ".pdf", ".svg")) else f".{sc.settings.file_format_figs}"
    return folder / f"{name}{suffix}{form}"


def _save(figure: Any, path: Path) -> None:
    if not path.suffix:
        path = path.with_name(f"{path.name}.{rcParams['savefig.format']}")  # as matplotlib does
    with _files.replacing(path) as new:
        try:
            figure.savefig(new, dpi=200, bbox_inches="tight")
        except ValueError as error:
            raise ValueError(f"save={str(path)!r} cannot be written: {error}") from error


def titles(title: str | Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """A title for each panel: the user's, or the default."""
    if title is None:
        return list(default)
    texts = [title] if isinstance(title, str) else [str(t) for t in title]
    if len(texts) != len(default):
        raise ValueError(f"title must be {len(default)} for this plot, one for each panel; found {len(texts)}.")
    return texts


def colormap(cmap: str | Colormap | None, default: str = "viridis") -> Colormap:
    """The colormap, with gray for missing values."""
    colors = cmap if isinstance(cmap, Colormap) else colormaps[default] if cmap is None else colormaps.get(cmap)
    if colors is None:
        raise ValueError(f"cmap={cmap!r} is not a colormap that matplotlib knows.")
    return colors.with_extremes(bad=MISSING)


def palette_colors(palette: Palette, names: Sequence[str]) -> list[Any] | None:
    """A color for each category, from the name of a colormap, a sequence, or a mapping; None: ours."""
    if palette is None:
        return None
    if isinstance(palette, Mapping):
        _check_colors(palette.values())
        return [palette.get(name, MISSING) for name in names]
    if isinstance(palette, str):
        cmap = colormap(palette)
        for_categories = isinstance(cmap, ListedColormap) and cmap.N <= 20
        colors = list(cmap(range(cmap.N)) if for_categories else cmap(np.linspace(0, 1, max(len(names), 1))))
    elif isinstance(palette, Sequence):
        colors = list(palette)
    else:
        raise TypeError(f"palette must be the name of a colormap, a list or a dict of colors, found {palette!r}.")
    if not colors:
        raise ValueError("palette is empty; give at least one color.")
    _check_colors(colors)
    return [colors[i % len(colors)] for i in range(len(names))]


def _check_colors(colors: Iterable[Any]) -> None:
    if unknown := [color for color in colors if not is_color_like(color)]:
        raise ValueError(f"palette: found {unknown[0]!r}; pass colors of matplotlib, such as 'red' or '#1f77b4'.")


def tidy(ax: Axes, title: str, x: str, y: str) -> None:
    """Title, axis labels, and no frame where there is nothing to read."""
    ax.set_title(title, fontsize=11, loc="left")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)


def point_size(n: int) -> float:
    """Area of a point, such that many cells do not hide one another and few can be seen."""
    return float(np.clip(12_000 / max(n, 1), 1.0, 24.0))


def scatter_categories(
    ax: Axes, xy: np.ndarray, values: pd.Series, colors: Sequence[Any] | None, *, size: float | None = None
) -> None:
    """Points in the colors of their categories, rare ones on top, with a legend beside the Axes."""
    values = pd.Series(pd.Categorical(values)).cat.remove_unused_categories()
    codes, names = values.cat.codes.to_numpy(), list(values.cat.categories)
    size = point_size(len(xy)) if size is None else size
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
    ax: Axes,
    xy: np.ndarray,
    values: np.ndarray,
    label: str,
    *,
    log: bool,
    high: float | None = None,
    size: float | None = None,
    cmap: Colormap | None = None,
) -> None:
    """Points colored by a number (up to `high`), the largest on top, with a color bar; `log` is ``log1p``."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    low = float(finite.min()) if finite.size else 0.0
    high = max(float(finite.max()) if finite.size else 1.0, low + 1e-9) if high is None else high
    log = log and low >= 0
    norm = FuncNorm((np.log1p, np.expm1), vmin=0, vmax=high) if log else Normalize(low, high)
    order = np.argsort(np.where(np.isfinite(values), values, -np.inf), kind="stable")
    ordered = np.ma.masked_invalid(values[order])
    points = ax.scatter(
        xy[order, 0],
        xy[order, 1],
        s=point_size(len(xy)) if size is None else size,
        c=ordered,
        cmap=colormap(None) if cmap is None else cmap,
        norm=norm,
        linewidths=0,
        rasterized=True,
        plotnonfinite=True,
    )
    beside = ax.inset_axes((1.02, 0.0, 0.035, 1.0))  # next to the Axes, whatever legends other panels have
    more = bool(finite.size) and float(finite.max()) > high * (1 + 1e-6)
    bar = ax.figure.colorbar(points, cax=beside, extend="max" if more else "neither", extendfrac=0.03)
    bar.set_label(label)
    bar.ax.yaxis.label.set_parse_math(False)
    bar.outline.set_visible(False)  # type: ignore[operator]
    if log:
        bar.set_ticks(count_ticks(high))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        bar.ax.minorticks_off()
    else:
        bar.ax.yaxis.set_major_locator(MaxNLocator(5))


def log_counts_axis(ax: Axes, direction: str, high: float) -> None:
    """Space an axis of counts by ``log1p``, with ticks at round counts, zero included."""
    axis = ax.xaxis if direction == "x" else ax.yaxis
    (ax.set_xscale if direction == "x" else ax.set_yscale)("function", functions=(_log1p, np.expm1))
    (ax.set_xlim if direction == "x" else ax.set_ylim)(
        -0.35 if high > 1 else -0.1 * max(high, 1e-9), max(high, 1e-9) * 1.1
    )
    axis.set_major_locator(FixedLocator(count_ticks(high)))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def count_ticks(high: float) -> list[float]:
    """Zero and round counts up to `high`: 0, 1, 3, 10, 30, …; finer where all values are small."""
    if high < 3:
        return [float(t) for t in MaxNLocator(4).tick_values(0, high) if 0 <= t <= high * 1.001]
    steps = [s * 10**power for power in range(8) for s in (1, 3)]
    return [0.0, *(float(s) for s in steps if s <= high)]


def _log1p(values: np.ndarray) -> np.ndarray:
    return np.log1p(np.maximum(values, -0.99))
