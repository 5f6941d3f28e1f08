"""`pl.kaplan_meier`: survival of groups of patients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, Palette, finish, palette_colors, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from mudata import MuData

LINES = ("-", "--", ":")  # with the colors they tell 21 groups apart
TOP, ROW = -44, 12  # of the table below the curves: its first line and the height of a line, in points


@checked
@with_shared_parameters
def kaplan_meier(
    data: AnnData | MuData,
    *,
    key: str = "survival",
    palette: Palette = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Kaplan-Meier curves with 95 % confidence bands, censored patients, numbers at risk and the log-rank test.

    Parameters
    ----------
    data
        Cohort in which `aeverse.tl.survival` was run with `groupby`.
    key
        The `key_added` of that run.
    palette
        Colors of the groups: the name of a matplotlib colormap, a list, or a dict from group to color.
    title, figsize
        As in `aeverse.pl.latent`.
    ax
        Axes to draw on; the numbers at risk are written below its time axis.
    show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError, ValueError
        There is no such result, or it has no groups.

    Examples
    --------
    >>> import aeverse as ae
    >>> import numpy as np
    >>> adata = ae.datasets.simulate_counts(200, 50, n_types=2)
    >>> adata.obs["months"] = np.random.default_rng(0).exponential(30, 200)
    >>> adata.obs["dead"] = adata.obs["months"] < 40
    >>> ae.tl.survival(adata, time_key="months", event_key="dead", groupby="cell_type")
    >>> ax = ae.pl.kaplan_meier(adata, show=False)
    """
    record = _slots.read_record(data, key)
    if "kaplan_meier" not in record:
        raise ValueError(f"uns['ae'][{key!r}] has no curves: run aeverse.tl.survival with groupby=.")
    table, params = record["kaplan_meier"], record["params"]
    groups = list(dict.fromkeys(table["group"].astype(str)))
    [panel_title] = titles(title, [f"Survival by {params['groupby']}"])
    colors = palette_colors(palette, groups) or COLORS
    [panel] = panels(1, ax, size=(6.0, 4.2), figsize=figsize)
    end = float(table["time"].max())
    ticks = [t for t in MaxNLocator(6, steps=[1, 2, 2.5, 5, 6, 10]).tick_values(0, end) if 0 <= t <= end]
    for i, group in enumerate(groups):
        curve = table[table["group"].astype(str) == group]
        _draw(panel, curve, group, colors[i % len(colors)], LINES[i // len(COLORS) % len(LINES)])
    tidy(panel, panel_title, str(params["time_key"]), "alive")
    panel.set_xlim(-0.01 * end, end * 1.02)
    panel.set_ylim(0, 1.03)
    panel.set_xticks(ticks)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend = {"title": "events of patients", "title_fontsize": 8, "alignment": "left", "bbox_to_anchor": (1.0, 1.02)}
    panel.legend(loc="upper left", frameon=False, fontsize=8, handlelength=1.6, **legend)
    if "logrank" in record:
        p = float(record["logrank"]["p"])
        text = f"log-rank p = {p:.2g}" if p >= 1e-4 else "log-rank p < 0.0001"
        panel.text(1.0, 1.02, text, transform=panel.transAxes, ha="right", va="bottom", fontsize=9)
    _numbers_at_risk(panel, table, groups, ticks, colors)
    return finish([panel], "kaplan_meier", own=ax is None, show=show, save=save, return_fig=return_fig)


def _draw(ax: Axes, curve: pd.DataFrame, group: str, color: str, line: str) -> None:
    """One group: the steps, their band, and a tick where patients were censored."""
    time, survival = curve["time"].to_numpy(), curve["survival"].to_numpy()
    n, events = int(curve["at_risk"].iloc[0]), int(curve["events"].sum())
    ax.step(time, survival, where="post", color=color, ls=line, lw=1.8, label=f"{group} ({events} of {n})")
    lower, upper = curve["lower"].to_numpy(), curve["upper"].to_numpy()
    ax.fill_between(time, lower, upper, step="post", color=color, alpha=0.12, lw=0)
    censored = curve["censored"].to_numpy() > 0
    ax.plot(time[censored], survival[censored], ls="none", marker="|", ms=5, mew=0.8, color=color)


def _numbers_at_risk(ax: Axes, table: pd.DataFrame, groups: list[str], ticks: list[float], colors) -> None:
    """Write below the time axis how many of each group are still observed."""

    def write(x: float, text: str, color: str, **place) -> None:
        where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", **place}
        ax.annotate(text, (x, 0), va="center", fontsize=8, color=color, annotation_clip=False, **where)

    names = {"xycoords": "axes fraction", "ha": "right"}
    write(0, "at risk", "#555555", xytext=(-12, TOP), **names)
    for i, group in enumerate(groups):
        curve = table[table["group"].astype(str) == group]
        time, at_risk = curve["time"].to_numpy(), np.append(curve["at_risk"].to_numpy(int), 0)
        y, color = TOP - ROW * (i + 1), colors[i % len(colors)]
        write(0, group, color, xytext=(-12, y), **names)
        for tick in ticks:
            write(tick, str(at_risk[np.searchsorted(time, tick)]), color, xytext=(0, y), ha="center")
