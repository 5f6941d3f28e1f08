"""`pl.modality_weights`: how much each modality counts, by group of samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, Palette, finish, palette_colors, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mudata import MuData

DECIMALS, NAMED = 3, 2  # to which shares are the same; groups of one bar that its label names
HATCHES = ("", "////", "....")  # beyond seven modalities


@checked
@with_shared_parameters
def modality_weights(
    mdata: MuData,
    *,
    groupby: str | None = None,
    key: str = "ae_weights",
    palette: Palette = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """How much each modality counts in the embedding, mean over the samples of each group.

    A modality counts by how much structure it holds over all samples (`aeverse.tl.multimodal_embed`), and nothing in a sample
    without it: groups in which it is missing more often show a smaller share. Nothing else makes groups differ, so those
    with the same shares are one bar. Samples without any modality are left out.

    Parameters
    ----------
    mdata
        Object in which `aeverse.tl.multimodal_embed` was run.
    groupby
        Column of ``mdata.obs``; None: all samples together.
    key
        Key of the weights in ``mdata.obsm``.
    palette
        Colors of the modalities: the name of a matplotlib colormap, a list, or a dict from modality to color.
    title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError, ValueError
        There are no weights, or no such column.

    Examples
    --------
    >>> import numpy as np, anndata as ad, mudata as md, aeverse as ae
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.normal(size=(60, 2))
    >>> mods = {m: ad.AnnData(factors @ rng.normal(size=(2, 20)) + rng.normal(size=(60, 20))) for m in ("rna", "protein")}
    >>> mdata = md.MuData(mods)
    >>> ae.tl.multimodal_embed(mdata)
    >>> ax = ae.pl.modality_weights(mdata, show=False)
    """
    if key not in mdata.obsm or not isinstance(mdata.obsm[key], pd.DataFrame):
        raise KeyError(f"obsm[{key!r}] holds no weights of modalities; run aeverse.tl.multimodal_embed(mdata) first.")
    weights = mdata.obsm[key]
    groups = pd.Series("all samples", index=weights.index)
    if groupby is not None:
        if groupby not in mdata.obs:
            raise KeyError(f"groupby={groupby!r} is not a column of mdata.obs; columns are: {list(mdata.obs.columns)}.")
        groups = mdata.obs[groupby]
    complete = (weights.sum(axis=1) > 0).to_numpy() & groups.notna().to_numpy()
    if not complete.any():
        raise ValueError(f"no sample has both a weight and a value of {groupby!r}.")
    means = weights[complete].groupby(groups[complete], observed=True).mean()
    means, labels = _one_bar_each(means, groups[complete].value_counts())
    [panel_title] = titles(title, ["modality weights"])
    [panel] = panels(1, ax, size=(5.2, max(1.6, 1.1 + 0.28 * len(means))), figsize=figsize)
    colors = palette_colors(palette, [str(m) for m in means]) or COLORS
    left = np.zeros(len(means))
    for i, modality in enumerate(means):
        share = means[modality].to_numpy()
        style: dict[str, Any] = {"color": colors[i % len(colors)], "hatch": HATCHES[i // len(COLORS) % len(HATCHES)]}
        panel.barh(range(len(means)), share, left=left, label=str(modality), edgecolor="white", **style)
        left += share
    panel.set_yticks(range(len(means)), labels)
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    tidy(panel, panel_title, "share of the embedding", "" if groupby is None else groupby)
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8)
    return finish([panel], "modality_weights", own=ax is None, show=show, save=save, return_fig=return_fig)


def _one_bar_each(means: pd.DataFrame, sizes: pd.Series) -> tuple[pd.DataFrame, list[str]]:
    """Groups with the same shares as one row, and the names of the rows with their numbers of samples."""
    alike = means.round(DECIMALS).groupby(list(means.columns), sort=False).ngroup()
    labels = []
    for row in alike.unique():
        names = [str(name) for name in means.index[alike == row]]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        labels.append(f"{', '.join(names[:NAMED])}{more} ({sizes[means.index[alike == row]].sum()})")
    return means.groupby(alike.to_numpy(), sort=False).mean(), labels
