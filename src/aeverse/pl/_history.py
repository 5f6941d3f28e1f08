"""`pl.history`: how training went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from aeverse import _slots
from aeverse.pl._axes import COLORS, finish, panels, tidy

if TYPE_CHECKING:
    from anndata import AnnData


def history(
    adata: AnnData,
    *,
    key: str = "denoised",
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Training curves: the loss, and the deviance of held-out molecules that the model explained.

    The best moment is marked; its weights are those that were kept.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.denoise` or `aeverse.tl.embed` was run.
    key
        The `key_added` of that run (``"X_ae"`` after `aeverse.tl.embed`).
    ax
        Two Axes to draw on.
    show
        Call `matplotlib.pyplot.show`; None: unless `ax` or `save` is given.
    save
        File to write; the ending says the format.

    Returns
    -------
    Array of two Axes: loss, held-out deviance explained.

    Raises
    ------
    KeyError
        There is no such result.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> axes = ae.pl.history(adata, show=False)
    """
    record = _slots.read_record(adata, key)
    curves = {name: np.asarray(values, np.float64) for name, values in record["history"].items()}
    unit = "step" if "step" in curves else "epoch"
    when, loss, heldout = curves[unit], curves["loss"], curves["heldout"]
    left, right = axes = panels(2, ax, size=(4.2, 3.2))
    left.plot(when, loss, marker="o", ms=4, color=COLORS[0])
    tidy(left, "Training loss", unit, "loss")
    best = int(np.argmax(heldout))
    right.plot(when, heldout, marker="o", ms=4, color=COLORS[0])
    right.plot(when[best], heldout[best], marker="o", ms=9, mfc="none", mew=1.8, color=COLORS[3], ls="none")
    right.text(
        0.98,
        0.06,
        f"kept: {unit} {when[best]:.0f}, {heldout[best]:.4f}",
        transform=right.transAxes,
        ha="right",
        color=COLORS[3],
    )
    tidy(right, "Held-out molecules", unit, "deviance explained")
    for each in axes:
        each.margins(y=0.12)
        each.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        each.grid(axis="y", color="#ECECEC", zorder=0)
        each.set_axisbelow(True)
    return finish(axes, own=ax is None, show=show, save=save)
