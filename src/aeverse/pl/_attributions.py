"""`pl.attributions`: the features behind groups of samples or dimensions of the embedding, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import colormap, finish, panels, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from mudata import MuData

STABLE = 0.8
MOST_GROUPS = 10  # shown where the caller does not say which


@checked
@with_shared_parameters
def attributions(
    data: AnnData | MuData,
    *,
    key: str = "ae_attributions",
    groups: Sequence[str] | str | None = None,
    n_top: int = 5,
    sign: Literal["positive", "negative", "both"] = "positive",
    modality: str | None = None,
    cmap: str | Colormap | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Heat map of what `aeverse.tl.attribute` found: the strongest features of each group, and their values in all groups.

    Groups (or dimensions of the embedding) are rows, features columns, as in `scanpy.pl.matrixplot`. Red: large values of the
    feature lead towards the group; blue: small ones do. Names in gray belong to features that come back in less than 80 %
    of the resamples.

    Parameters
    ----------
    data
        Object with attributions.
    key
        The `key_added` of `aeverse.tl.attribute`.
    groups
        Groups or dimensions to show; None: all, at most the first 10.
    n_top
        Features of each group.
    sign
        ``"positive"``, ``"negative"`` or ``"both"``: of which the strongest are shown.
    modality
        For MuData: of which modality.
    cmap, title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError, ValueError
        There is no such result, group, modality or sign.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(200, 60, n_types=3)
    >>> model = ae.models.Autoencoder(n_models=1, n_latent=8).fit(adata)
    >>> ae.tl.attribute(adata, model, groupby="cell_type")
    >>> ax = ae.pl.attributions(adata, n_top=3, show=False)
    """
    values, stability = _tables(data, key, modality)
    columns = list(values.columns[:MOST_GROUPS]) if groups is None else _slots.name_list(groups)
    if unknown := [g for g in columns if g not in values]:
        raise KeyError(f"groups={unknown} have no attributions; groups are: {list(values.columns)}.")
    top = [(g, f) for g in columns for f in _strongest(values[g], n_top, sign)]
    features = [f for _, f in top]
    matrix = values[columns].to_numpy().T[:, features]
    size = (max(3.0, 1.6 + 0.22 * len(features)), max(2.0, 1.3 + 0.3 * len(columns)))
    [shown_title] = titles(title, ["features that lead to each group" if modality is None else modality])
    colors = colormap(cmap, "RdBu_r")
    [panel] = panels(1, ax, size=size, figsize=figsize)
    limit = max(float(np.abs(matrix).max()), 1e-12)
    image = panel.imshow(matrix, cmap=colors, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    panel.set_yticks(range(len(columns)), columns)
    panel.set_xticks(range(len(features)), [str(values.index[f]) for f in features], rotation=90, fontsize=8)
    for tick, (group, feature) in zip(panel.get_xticklabels(), top, strict=True):
        tick.set_color("black" if stability[group].iloc[feature] >= STABLE else "#999999")
    for edge in np.flatnonzero([a[0] != b[0] for a, b in zip(top[1:], top[:-1], strict=True)]):
        panel.axvline(edge + 0.5, color="white", lw=2.5)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_title(shown_title, fontsize=11, loc="left")
    bar = panel.figure.colorbar(image, ax=panel, pad=0.02, fraction=0.05)
    bar.set_label("attribution")
    bar.outline.set_visible(False)
    return finish([panel], "attributions", own=ax is None, show=show, save=save, return_fig=return_fig)


def _tables(data, key: str, modality: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    if hasattr(data, "mod"):
        having = [m for m, adata in data.mod.items() if key in adata.varm]
        if modality not in having:
            raise KeyError(f"modality={modality!r} has no attributions {key!r}; choose modality= among {having}.")
        data = data.mod[modality]
    elif modality is not None:
        raise KeyError(f"modality={modality!r}: an AnnData has no modalities.")
    if key not in data.varm or f"{key}_stability" not in data.varm:
        raise KeyError(f"varm[{key!r}] does not exist or is no result of aeverse.tl.attribute; run it first.")
    return data.varm[key], data.varm[f"{key}_stability"]


def _strongest(values: pd.Series, n: int, sign: str) -> list[int]:
    """Positions of the strongest features, those of the wanted sign only."""
    strength = values.to_numpy() * {"positive": 1, "negative": -1, "both": 1}[sign]
    strength = np.abs(strength) if sign == "both" else strength
    order = np.argsort(-strength, kind="stable")[:n]
    return [int(i) for i in order if strength[i] > 0]
