"""`pl.subtypes`: what speaks for the subtypes that were found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, finish, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from mudata import MuData

SIGNIFICANT = 0.05


@checked
@with_shared_parameters
def subtypes(
    data: AnnData | MuData,
    *,
    key: str = "subtype",
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> np.ndarray | Figure:
    """Consensus matrix of the patients, and stability for each number of subtypes.

    Patients are in the order of their subtypes and, within these, of their confidence; blocks without shades speak for
    subtypes, shades off the blocks for patients between two. In the curve, numbers with clusters that are more compact
    than in structureless cohorts (p of at most 0.05) are filled, and a ring marks the number of subtypes.

    Parameters
    ----------
    data
        Cohort in which `aeverse.tl.subtypes` found subtypes.
    key
        The `key_added` of that run.
    title, figsize
        As in `aeverse.pl.latent`.
    ax
        Two Axes to draw on.
    show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Array of two Axes (consensus matrix, stability), or the figure.

    Raises
    ------
    KeyError, ValueError
        There is no such result, or it was assigned by another cohort's subtypes and has no consensus matrix.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(90, 50, n_types=3)
    >>> ae.tl.embed(adata, n_latent=4)
    >>> ae.tl.subtypes(adata, max_subtypes=5)
    >>> axes = ae.pl.subtypes(adata, show=False)
    """
    record = _slots.read_record(data, key)
    if f"{key}_consensus" not in data.obsp or key not in data.obs:
        raise ValueError(
            f"obsp['{key}_consensus'] does not exist: these subtypes were assigned by model=, and only the cohort in "
            "which they were found has a consensus matrix."
        )
    n_subtypes = len(record["clusters"])
    number = f"{n_subtypes} subtypes" if n_subtypes > 1 else "no subtypes"
    panel_titles = titles(title, ["Consensus of resamples", f"Stability: {number}"])
    left, right = axes = panels(2, ax, size=(4.6, 3.9), figsize=figsize)
    _consensus(left, data, key, panel_titles[0])
    _curve(right, record["curve"], n_subtypes, panel_titles[1])
    return finish(axes, "subtypes", own=ax is None, show=show, save=save, return_fig=return_fig)


def _consensus(ax: Axes, data, key: str, title: str) -> None:
    label, confidence = data.obs[key], data.obs[f"{key}_confidence"].to_numpy()
    codes, names = label.cat.codes.to_numpy(), list(label.cat.categories)
    order = np.lexsort((-confidence, codes))
    matrix = np.asarray(data.obsp[f"{key}_consensus"])[np.ix_(order, order)]
    image = ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="antialiased")
    image.set_rasterized(True)
    edges = np.concatenate([[0], np.bincount(codes, minlength=len(names)).cumsum()])
    n = max(len(codes), 1)
    for i in range(len(names)):
        start, size = edges[i] / n, (edges[i + 1] - edges[i]) / n
        band: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "transform": ax.transAxes, "clip_on": False, "lw": 0}
        ax.add_patch(Rectangle((start, 1.01), size, 0.025, **band))
        ax.add_patch(Rectangle((-0.035, 1 - start - size), 0.025, size, **band))
    nonempty = [i for i in range(len(names)) if edges[i + 1] > edges[i]]
    ax.set_yticks([(edges[i] + edges[i + 1] - 1) / 2 for i in nonempty], [str(names[i]) for i in nonempty])
    ax.set_xticks([])
    ax.tick_params(length=0, pad=10)
    tidy(ax, title, f"{len(codes)} patients", key)
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=11, loc="left", pad=14)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.03, fraction=0.05)
    bar.set_label("share of resamples together")
    bar.outline.set_visible(False)


def _curve(ax: Axes, curve: pd.DataFrame, n_subtypes: int, title: str) -> None:
    tidy(ax, title, "number of subtypes", "mean Jaccard index in resamples")
    ax.set_ylim(0, 1.05)
    if not len(curve):
        ax.text(0.5, 0.5, "too few patients", transform=ax.transAxes, ha="center", color="#555555")
        return
    number, stability = curve["n_subtypes"].to_numpy(), curve["stability"].to_numpy()
    reference, sd = curve["reference"].to_numpy(), curve["reference_sd"].to_numpy()
    low, high = np.clip(reference - 2 * sd, 0, 1), np.clip(reference + 2 * sd, 0, 1)
    ax.fill_between(number, low, high, color="#BBBBBB", alpha=0.5, lw=0, label="± 2 standard deviations")
    ax.plot(number, reference, color="#7F7F7F", lw=1.2, label="structureless cohorts")
    ax.plot(number, stability, color=COLORS[0], lw=1.8, label="this cohort", zorder=3)
    compact = curve["p_value"].to_numpy() <= SIGNIFICANT
    face = np.where(compact, COLORS[0], "white")
    ax.scatter(number, stability, s=32, c=list(face), edgecolors=COLORS[0], zorder=4)
    if n_subtypes in number:
        at = float(stability[number == n_subtypes][0])
        ax.plot(n_subtypes, at, marker="o", ms=12, mfc="none", mew=1.8, color=COLORS[3], ls="none", zorder=5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(number.min() - 0.4, number.max() + 0.4)
    ax.legend(loc="lower left", frameon=False, fontsize=8)
    ax.grid(axis="y", color="#ECECEC", zorder=0)
    ax.set_axisbelow(True)
