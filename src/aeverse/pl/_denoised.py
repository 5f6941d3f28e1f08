"""`pl.denoised`: raw counts beside denoised values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from aeverse import _slots, get
from aeverse._arguments import checked
from aeverse.pl._axes import (
    COLORS,
    MISSING,
    Palette,
    colormap,
    finish,
    log_counts_axis,
    panels,
    point_size,
    scatter_categories,
    scatter_values,
    tidy,
    titles,
)
from aeverse.pl._docs import with_shared_parameters
from aeverse.pl._values import category_colors, column, gene_values, is_categorical, tidy_view, view

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MOST_SHOWN = 99  # percentile up to which colors go


@checked
@with_shared_parameters
def denoised(
    adata: AnnData,
    x: str | Sequence[str],
    y: str | None = None,
    *,
    color: str | None = None,
    key: str = "denoised",
    layer: str | None = None,
    basis: str = "X_ae",
    palette: Palette = None,
    cmap: str | Colormap | None = None,
    size: float | None = None,
    ncols: int = 4,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> np.ndarray | Figure:
    """Raw counts beside denoised values: of one or several genes as colors, or of two genes against each other.

    Genes as `x` are drawn as the color of the cells in the view of `aeverse.pl.latent`, on a logarithmic scale. Each panel
    has its own color bar, up to the 99th percentile: denoised values are closer together than raw counts, and single
    cells must not hide the others. With `y`, two genes are drawn against each other, on axes spaced by ``log1p``. Raw counts
    are then spread by up to a third of a molecule, so that cells with equal counts do not hide one another. Denoised
    genes share what the model knows: that two of them go together is no independent evidence that they do. Where
    `aeverse.tl.denoise` wrote standard deviations (``uncertainty=True``), lines through the denoised points of two genes
    reach one of them to either side.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.denoise` was run.
    x
        Name of a gene, or of several. Those that the layer does not hold are decoded (`aeverse.get.denoised`).
    y
        Name of a second gene, to draw `x` against.
    color
        Column of ``adata.obs`` or gene (in the layer with the counts) that colors the cells of a plot of two genes.
    key
        The `key_added` of that run.
    layer
        Layer with the raw counts; None: where `aeverse.tl.denoise` found them.
    basis
        Key of the embedding in ``adata.obsm``, for genes as colors.
    palette, cmap, size
        As in `aeverse.pl.latent`.
    ncols
        Panels in a row; each gene has two.
    title
        Title of each panel, in a list.
    figsize
        Width and height of the whole figure, in inches.
    ax
        Axes to draw on: two for each gene, or two for a pair of genes.
    show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Array of Axes (raw and denoised for each gene in turn), or the figure.

    Raises
    ------
    KeyError
        The result, a gene or a column does not exist.
    ValueError
        There are no raw counts in the layer any more, or `color` is given without `y`.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> axes = ae.pl.denoised(adata, ["CCR7", "CD8A"], show=False)
    >>> axes = ae.pl.denoised(adata, "LYZ", "CST3", color="bulk_labels", show=False)
    """
    params = _slots.read_record(adata, key)["params"]
    layer = params.get("layer") if layer is None else layer
    genes = [*_slots.name_list(x), *([] if y is None else [y])]
    if y is None and color is not None:
        raise ValueError(f"color={color!r} is for two genes; one gene is the color itself. See aeverse.pl.latent.")
    if not genes or (y is not None and len(genes) != 2):
        raise ValueError(f"x={x!r} must name one gene where y is given, and at least one gene otherwise.")
    raw = np.stack([_raw(adata, gene, params, layer) for gene in genes], axis=1)
    model = np.stack([_denoised(adata, gene, key, params) for gene in genes], axis=1)
    names = genes if y is None else [f"{genes[0]} and {genes[1]}"]
    panel_titles = titles(title, [f"{name}, {state}" for name in names for state in ("raw", "denoised")])
    if y is None:
        numbers = colormap(cmap)
        cells = view(adata, basis)
        axes = panels(2 * len(genes), ax, size=(4.6, 3.8), ncols=max(2, ncols - ncols % 2), figsize=figsize)
        _as_colors(axes, cells, raw, model, panel_titles, params, size, numbers)
    else:
        draw = _point_drawer(adata, color, layer, palette, cmap, size)
        wide = color is not None
        axes = panels(2, ax, size=(5.6 if wide else 4.2, 3.8), figsize=figsize)
        _error_lines(axes[1], adata, genes, key, params, model)
        _against(axes, genes, raw, model, panel_titles, params, draw)
    return finish(axes, "denoised", own=ax is None, show=show, save=save, return_fig=return_fig)


def _as_colors(axes, cells, raw, model, panel_titles, params: Mapping, size, cmap: Colormap) -> None:
    """Genes as the color of cells, each panel on its own scale, which a few cells cannot stretch."""
    xy, labels = cells
    for i in range(raw.shape[1]):
        for j, state in enumerate(("raw", "denoised")):
            each, values = axes[2 * i + j], (raw, model)[j][:, i]
            log = not params.get("log1p")
            high = float(np.percentile(values, MOST_SHOWN)) or float(np.max(values, initial=1e-9))
            scatter_values(each, xy, values, _unit(params, state), log=log, high=high, size=size, cmap=cmap)
            tidy_view(each, panel_titles[2 * i + j], labels)


def _point_drawer(adata, color, layer, palette, cmap, size) -> Callable[[Axes, np.ndarray], Any]:
    """What draws cells at their places, in the colors that were asked for."""
    values = None if color is None else column(adata, color, layer)
    if values is None:
        plain: dict[str, Any] = {"color": COLORS[0], "alpha": 0.5, "linewidths": 0, "rasterized": True}
        return lambda ax, xy: ax.scatter(xy[:, 0], xy[:, 1], s=point_size(len(xy)) if size is None else size, **plain)
    if is_categorical(values):
        colors = category_colors(adata, color, values, palette)
        return lambda ax, xy: scatter_categories(ax, xy, values, colors, size=size)
    numbers = colormap(cmap)
    log = color not in adata.obs
    return lambda ax, xy: scatter_values(ax, xy, values.to_numpy(), color, log=log, size=size, cmap=numbers)


def _against(axes, genes, raw, model, panel_titles, params: Mapping, draw) -> None:
    """Two genes against each other, raw and denoised."""
    high = np.maximum(raw.max(0, initial=0), model.max(0, initial=0))
    if params.get("target_sum") is None:
        raw = raw + np.random.default_rng(0).uniform(-0.33, 0.33, raw.shape)
    for each, state, xy, name in zip(axes, ("raw", "denoised"), (raw, model), panel_titles, strict=True):
        draw(each, xy)
        if state == "raw" and (legend := each.get_legend()) is not None:
            legend.remove()  # one legend, beside the right panel, serves both
        if not params.get("log1p"):
            log_counts_axis(each, "x", float(high[0]))
            log_counts_axis(each, "y", float(high[1]))
        tidy(each, name, *(f"{gene} ({_unit(params, state)})" for gene in genes))


def _raw(adata: AnnData, gene: str, params: Mapping, layer: str | None) -> np.ndarray:
    """Counts of a gene, on the scale of the denoised values."""
    counts = gene_values(adata, gene, layer)
    _slots.check_count_values(counts, adata, layer)
    target_sum = params.get("target_sum")
    if target_sum is None:
        return counts.astype(np.float64)
    library = np.asarray(_slots.read_counts(adata, layer).sum(1), np.float64).ravel()
    values = counts * float(target_sum) / np.where(library > 0, library, 1)
    return np.log1p(values) if params.get("log1p") else values


def _denoised(adata: AnnData, gene: str, key: str, params: Mapping) -> np.ndarray:
    """Denoised values of a gene: from the layer if it holds them, else decoded."""
    held = params.get("genes")
    if key in adata.layers and (held is None or gene in set(np.atleast_1d(held))):
        return gene_values(adata, gene, key).astype(np.float64)
    return get.denoised(adata, gene, key=key)[gene].to_numpy(np.float64)


def _error_lines(ax: Axes, adata: AnnData, genes, key: str, params: Mapping, mean: np.ndarray) -> None:
    """A standard deviation to either side of the denoised values, where the layer with them holds both genes."""
    held = params.get("genes")
    if f"{key}_sd" not in adata.layers or (held is not None and not set(genes) <= set(np.atleast_1d(held))):
        return
    sd = np.stack([gene_values(adata, gene, f"{key}_sd") for gene in genes])
    low = np.minimum(sd, mean.T)  # expected counts are not negative
    x, y = ([low[i], sd[i]] for i in (0, 1))
    lines = ax.errorbar(*mean.T, xerr=x, yerr=y, fmt="none", ecolor=MISSING, elinewidth=0.5, alpha=0.6, zorder=0)  # type: ignore[misc]
    for collection in lines[2]:
        collection.set_rasterized(True)


def _unit(params: Mapping, state: str) -> str:
    target_sum = params.get("target_sum")
    if target_sum is not None:
        return f"{'log1p of ' if params.get('log1p') else ''}counts per {float(target_sum):,.0f}"
    return "counts" if state == "raw" else "expected counts"
