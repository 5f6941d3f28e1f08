"""`pl.history`: how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, finish, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from mudata import MuData


@checked
@with_shared_parameters
def history(
    adata: AnnData | MuData,
    *,
    key: str | None = None,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> np.ndarray | Figure:
    """Training curves: the loss, and the deviance of held-out molecules (or entries) that the model explained.

    The best moment is marked; its weights are those that were kept.

    Parameters
    ----------
    adata
        Object in which a tool trained a model: `aeverse.tl.denoise`, `aeverse.tl.embed`,
        `aeverse.tl.multimodal_embed`, ...
    key
        The `key_added` of that run; None: the only training there was.
    title, figsize
        As in `aeverse.pl.latent`.
    ax
        Two Axes to draw on.
    show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Array of two Axes (loss, held-out deviance explained), or the figure.

    Raises
    ------
    KeyError
        There is no such result, or it has no training history.
    ValueError
        There are several trainings and `key` is None.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> axes = ae.pl.history(adata, show=False)
    """
    curves = {name: np.asarray(values, np.float64) for name, values in _curves(adata, key).items()}
    unit = "step" if "step" in curves else "epoch"
    when, loss, heldout = curves[unit], curves["loss"], curves["heldout"]
    panel_titles = titles(title, ["Training loss", "Held-out molecules or entries"])
    left, right = axes = panels(2, ax, size=(4.2, 3.2), figsize=figsize)
    left.plot(when, loss, marker="o", ms=4, color=COLORS[0])
    tidy(left, panel_titles[0], unit, "loss")
    best = int(np.argmax(heldout))
    right.plot(when, heldout, marker="o", ms=4, color=COLORS[0])
    right.plot(when[best], heldout[best], marker="o", ms=9, mfc="none", mew=1.8, color=COLORS[3], ls="none")
    label = f"kept: {unit} {when[best]:.0f}, {heldout[best]:.4f}"
    right.text(0.98, 0.06, label, transform=right.transAxes, ha="right", color=COLORS[3])
    tidy(right, panel_titles[1], unit, "deviance explained")
    for each in axes:
        each.margins(y=0.12)
        each.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        each.grid(axis="y", color="#ECECEC", zorder=0)
        each.set_axisbelow(True)
    return finish(axes, "history", own=ax is None, show=show, save=save, return_fig=return_fig)


def _curves(adata: AnnData | MuData, key: str | None) -> Mapping[str, Any]:
    """The history of a record, or of the only training that the records are of."""
    records = adata.uns.get("ae", {}) if key is None else {key: _slots.read_record(adata, key)}
    histories = {name: record["history"] for name, record in records.items() if "history" in record}
    if not histories:
        problem = "no training history" if key is None else f"no training history in the record {key!r}"
        raise KeyError(f"uns['ae'] holds {problem}; run a tool that trains, such as aeverse.tl.denoise, first.")
    first, *further = histories.values()
    if not all(set(o) == set(first) and all(np.array_equal(o[k], first[k]) for k in first) for o in further):
        raise ValueError(f"uns['ae'] holds several trainings; pass key=, one of {sorted(histories)}.")
    return first
