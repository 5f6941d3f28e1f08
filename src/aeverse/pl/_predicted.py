"""`pl.predicted`: values of a modality that were predicted, against those that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, colormap, finish, panels, point_size, tidy, titles
from aeverse.pl._docs import with_shared_parameters
from aeverse.pl._values import gene_values

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from mudata import MuData

MOST = 4  # features shown where the caller names none
LOG_KINDS = ("counts", "protein")  # predicted as log1p
DENSE = 3000  # cells from which on their density is drawn
SCALES = {"counts": "log1p, normalized", "protein": "log1p of counts", "peaks": "accessible", "binary": "mutated"}


@checked
@with_shared_parameters
def predicted(
    mdata: MuData,
    target: str,
    *,
    features: Sequence[str] | str | None = None,
    key: str = "predicted",
    cmap: str | Colormap | None = None,
    size: float | None = None,
    ncols: int = 4,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | np.ndarray | Figure:
    """Predicted against measured values of a modality, for the cells in which it was measured.

    `aeverse.tl.predict_modality` predicts such a cell without its own values. Each panel shows one feature with Spearman's
    rank correlation; on the line the two are equal.

    Parameters
    ----------
    mdata
        Object in which `aeverse.tl.predict_modality` was run, and which holds the modality.
    target
        The modality that was predicted.
    features
        Features to show; None: the four whose predictions correlate most with the measurement.
    key
        The `key_added` of that run.
    cmap
        Colormap of the density of many cells.
    size, ncols, title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, an array of several, or the figure.

    Raises
    ------
    KeyError
        There is no such prediction, modality or feature.

    See Also
    --------
    aeverse.tl.predict_modality : Writes the predictions.

    Examples
    --------
    >>> import numpy as np, anndata as ad, mudata as md, aeverse as ae
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.normal(size=(60, 2))
    >>> mods = {m: ad.AnnData(factors @ rng.normal(size=(2, 20)) + rng.normal(size=(60, 20))) for m in ("rna", "protein")}
    >>> mdata = md.MuData(mods)
    >>> ae.tl.predict_modality(mdata, "protein")
    >>> axes = ae.pl.predicted(mdata, "protein", show=False)
    """
    table, record = _prediction(mdata, target, key)
    if features is None:
        candidates = [str(name) for name in table.columns if name in mdata[target].var_names]
        by_feature = {name: _pairs(mdata, target, table, name, record) for name in candidates}
        names = sorted(candidates, key=lambda name: -_correlation(*by_feature[name]))[:MOST]
    else:
        names = _slots.name_list(features)
        if unknown := [name for name in names if name not in table or name not in mdata[target].var_names]:
            raise KeyError(f"features={unknown} were not predicted, or mdata[{target!r}] does not hold them.")
        by_feature = {name: _pairs(mdata, target, table, name, record) for name in names}
    colors = colormap(cmap)
    panel_titles = titles(title, [f"{name}, Spearman {_correlation(*by_feature[name]):.2f}" for name in names])
    axes = panels(len(names), ax, size=(3.6, 3.5), ncols=ncols, figsize=figsize)
    scale = SCALES.get(str(record["kinds"].get(target)), "its own scale")
    for each, name, label in zip(axes, names, panel_titles, strict=True):
        _draw(each, *by_feature[name], size, colors)
        tidy(each, label, f"measured ({scale})", f"predicted ({scale})")
    return finish(axes, "predicted", own=ax is None, show=show, save=save, return_fig=return_fig)


def _prediction(mdata: MuData, target: str, key: str) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    if target not in mdata.mod:
        raise KeyError(
            f"target={target!r} is not a modality of mdata, so that nothing was measured; {list(mdata.mod)} are."
        )
    name = f"{key}_{target}"
    record = _slots.read_record(mdata, name)
    if name not in mdata.obsm:
        raise KeyError(f"obsm[{name!r}] does not exist; run aeverse.tl.predict_modality(mdata, {target!r}) first.")
    return mdata.obsm[name], record


def _pairs(mdata, target: str, table: pd.DataFrame, feature: str, record) -> tuple[np.ndarray, np.ndarray]:
    """Measured and predicted values of a feature, on the scale of the prediction, where both are known."""
    adata, kind = mdata[target], record["kinds"].get(target)
    layer = (record["params"].get("layer") or {}).get(target)
    measured = gene_values(adata, feature, layer).astype(np.float64)
    if kind == "counts":
        library = np.asarray(_slots.read_matrix(adata, layer).sum(1), np.float64).ravel()
        measured *= np.median(library[library > 0]) / np.where(library > 0, library, np.inf)
    measured = (
        np.log1p(measured) if kind in LOG_KINDS else (measured != 0).astype(float) if kind == "peaks" else measured
    )
    values = table.loc[adata.obs_names, feature].to_numpy(np.float64)
    both = np.isfinite(measured) & np.isfinite(values)
    return measured[both], values[both]


def _correlation(measured: np.ndarray, values: np.ndarray) -> float:
    """Spearman's; 0 where one of the two is constant."""
    if len(measured) < 2 or np.ptp(measured) == 0 or np.ptp(values) == 0:
        return 0.0
    return float(pd.Series(measured).corr(pd.Series(values), method="spearman"))


def _draw(ax: Axes, measured: np.ndarray, values: np.ndarray, size: float | None, colors: Colormap) -> None:
    ax.axline((0, 0), slope=1, color="#888888", lw=1, zorder=1)
    if len(measured) > DENSE and size is None:
        ax.hexbin(measured, values, gridsize=45, cmap=colors, bins="log", mincnt=1, linewidths=0)
        return
    area = point_size(len(measured)) if size is None else size
    ax.scatter(measured, values, s=area, color=COLORS[0], alpha=0.5, linewidths=0, rasterized=True)
