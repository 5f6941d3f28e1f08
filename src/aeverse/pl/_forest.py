"""`pl.forest`: hazard ratios of Cox models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, finish, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from mudata import MuData

STYLES = {"alone": ("o", "white"), "together": ("s", None)}  # marker, and its face; None: filled
WIDEST = 100.0  # limits beyond this factor from 1 are drawn as arrows


@checked
@with_shared_parameters
def forest(
    data: AnnData | MuData,
    *,
    key: str = "survival",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Forest plot: the hazard ratio of each predictor of survival, with its 95 % interval.

    Open circles: the predictor alone in a Cox model; filled squares: together with all others. Right of the line patients
    die sooner. An interval that crosses the line is compatible with no effect.

    Parameters
    ----------
    data
        Cohort in which `aeverse.tl.survival` was run.
    key
        The `key_added` of that run.
    title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError, ValueError
        There is no such result, or it has no hazard ratios.

    See Also
    --------
    aeverse.pl.kaplan_meier : Survival of groups of patients.

    Examples
    --------
    >>> import aeverse as ae
    >>> import numpy as np
    >>> adata = ae.datasets.simulate_counts(200, 50, n_types=2)
    >>> adata.obs["months"] = np.random.default_rng(0).exponential(30, 200)
    >>> adata.obs["dead"] = adata.obs["months"] < 40
    >>> adata.obs["age"] = np.random.default_rng(1).uniform(40, 80, 200)
    >>> ae.tl.survival(adata, time_key="months", event_key="dead", groupby="cell_type", covariates="age")
    >>> ax = ae.pl.forest(adata, show=False)
    """
    record = _slots.read_record(data, key)
    if len(record.get("cox", ())) == 0:
        raise ValueError(f"uns['ae'][{key!r}] has no hazard ratios: run aeverse.tl.survival.")
    table = record["cox"]
    terms = list(dict.fromkeys(table["term"].astype(str)))
    models = [model for model in STYLES if (table["model"] == model).any()]
    [panel_title] = titles(title, ["Survival"])
    [panel] = panels(1, ax, size=(8.0, 1.6 + 0.5 * len(terms)), figsize=figsize)
    for i, model in enumerate(models):
        rows = table[table["model"] == model]
        y = np.array([terms.index(term) for term in rows["term"].astype(str)]) + 0.24 * (i - (len(models) - 1) / 2)
        ratio, lower, upper = (
            rows[name].to_numpy(float).clip(1 / WIDEST, WIDEST) for name in ("hazard_ratio", "lower", "upper")
        )
        marker, face = STYLES[model]
        color = COLORS[i]
        panel.hlines(y, lower, upper, color=color, lw=1.6)
        panel.plot(ratio, y, ls="none", marker=marker, color=color, mfc=face or color, ms=6, label=model)
        for at, values in (("<", lower <= 1 / WIDEST), (">", upper >= WIDEST)):
            end = 1 / WIDEST if at == "<" else WIDEST
            panel.plot(np.full(values.sum(), end), y[values], ls="none", marker=at, color=color, ms=5)
        for height, row in zip(y, rows.itertuples(), strict=True):
            text = f"{row.hazard_ratio:.2f} ({row.lower:.2f} to {row.upper:.2f})"
            panel.text(1.02, height, text, transform=panel.get_yaxis_transform(), va="center", fontsize=8, color=color)
    tidy(panel, panel_title, "hazard ratio, 95 % interval", "")
    panel.set_title(panel_title, fontsize=11, loc="left", y=1.02)  # matplotlib's own place is far above the terms
    _axes_of_ratios(panel, terms)
    if len(models) > 1:
        panel.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8)
    return finish([panel], "forest", own=ax is None, show=show, save=save, return_fig=return_fig)


def _axes_of_ratios(ax: Axes, terms: list[str]) -> None:
    """A logarithmic axis around 1, and the terms from top to bottom."""
    ax.axvline(1, color="#999999", lw=1, zorder=0)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_yticks(range(len(terms)), terms)
    ax.set_ylim(len(terms) - 0.4, -0.6)
