"""`pl.denoised`: raw counts beside denoised values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from aeverse import _slots, get
from aeverse.pl._axes import (
    COLORS,
    MISSING,
    finish,
    log_counts_axis,
    panels,
    point_size,
    scatter_categories,
    scatter_values,
    tidy,
)
from aeverse.pl._values import column, gene_values, is_categorical, scanpy_colors, tidy_view, view

if TYPE_CHECKING:
    from anndata import AnnData


def denoised(
    adata: AnnData,
    x: str,
    y: str | None = None,
    *,
    color: str | None = None,
    key: str = "denoised",
    layer: str | None = None,
    basis: str = "X_ae",
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> np.ndarray:
    """Raw counts beside denoised values, of one gene or of two.

    One gene is drawn as the colour of the cells in the view of `aeverse.pl.latent`; two genes are drawn against each
    other, on axes spaced by ``log1p``. Raw counts are spread by up to a third of a molecule, so that cells with equal
    counts do not hide one another. Denoised genes share what the model knows: that two of them go together is no
    independent evidence that they do. Where `aeverse.tl.denoise` wrote standard deviations (``uncertainty=True``), lines
    through the denoised points of two genes reach one of them to either side.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.denoise` was run.
    x, y
        Names of genes. Those that the layer does not hold are decoded (`aeverse.get.denoised`).
    color
        Column of ``adata.obs`` or gene (in the layer with the counts) that colours the cells of a plot of two genes.
    key
        The `key_added` of that run.
    layer
        Layer with the raw counts; None: where `aeverse.tl.denoise` found them.
    basis
        Key of the code in ``adata.obsm``, for the view of one gene.
    ax
        Two Axes to draw on.
    show
        Call `matplotlib.pyplot.show`; None: unless `ax` or `save` is given.
    save
        File to write; the ending says the format.

    Returns
    -------
    Array of two Axes: raw, denoised.

    Raises
    ------
    KeyError
        The result, a gene or a column does not exist.
    ValueError
        There are no raw counts in the layer any more, or `color` is given with one gene.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> axes = ae.pl.denoised(adata, "LYZ", "CST3", show=False)
    """
    params = _slots.read_record(adata, key)["params"]
    layer = params.get("layer") if layer is None else layer
    if y is None:
        if color is not None:
            raise ValueError(f"color={color!r} is for two genes; one gene is the colour itself. See aeverse.pl.latent.")
        return _one_gene(adata, x, key, params, layer, basis, ax, show, save)
    return _two_genes(adata, (x, y), color, key, params, layer, ax, show, save)


def _one_gene(adata, gene, key, params, layer, basis, ax, show, save) -> np.ndarray:
    both = _raw(adata, gene, params, layer), _denoised(adata, gene, key, params)
    high = max(float(np.max(values, initial=1e-9)) for values in both)  # one scale, so that colours can be compared
    xy, labels = view(adata, basis)
    axes = panels(2, ax, size=(4.6, 3.8))
    for each, title, values in zip(axes, ("raw", "denoised"), both, strict=True):
        scatter_values(each, xy, values, _unit(params, title), log=True, high=high)
        tidy_view(each, f"{gene}, {title}", labels)
    return finish(axes, own=ax is None, show=show, save=save)


def _two_genes(adata, genes, color, key, params, layer, ax, show, save) -> np.ndarray:
    raw = np.stack([_raw(adata, gene, params, layer) for gene in genes], axis=1)
    model = np.stack([_denoised(adata, gene, key, params) for gene in genes], axis=1)
    values = None if color is None else column(adata, color, layer)
    high = np.maximum(raw.max(0, initial=0), model.max(0, initial=0))
    if params.get("target_sum") is None:
        raw = raw + np.random.default_rng(0).uniform(-0.33, 0.33, raw.shape)
    axes = panels(2, ax, size=(5.6 if values is not None else 4.2, 3.8))
    _error_lines(axes[1], adata, genes, key, params, model)
    for each, title, xy in zip(axes, ("raw", "denoised"), (raw, model), strict=True):
        if values is None:
            each.scatter(
                xy[:, 0], xy[:, 1], s=point_size(len(xy)), color=COLORS[0], alpha=0.5, linewidths=0, rasterized=True
            )
        elif is_categorical(values):
            scatter_categories(each, xy, values, scanpy_colors(adata, color, values))
        else:
            scatter_values(each, xy, values.to_numpy(), color, log=color not in adata.obs)
        if values is not None and title == "raw" and (legend := each.get_legend()) is not None:
            legend.remove()  # one legend, beside the right panel, serves both
        log_counts_axis(each, "x", float(high[0]))
        log_counts_axis(each, "y", float(high[1]))
        unit = _unit(params, title)
        tidy(each, f"{genes[0]} and {genes[1]}, {title}", f"{genes[0]} ({unit})", f"{genes[1]} ({unit})")
    return finish(axes, own=ax is None, show=show, save=save)


def _raw(adata: AnnData, gene: str, params: Mapping, layer: str | None) -> np.ndarray:
    """Counts of a gene, on the scale of the denoised values."""
    counts = gene_values(adata, gene, layer)
    _slots.check_count_values(counts, adata, layer)
    target_sum = params.get("target_sum")
    if target_sum is None:
        return counts.astype(np.float64)
    library = np.asarray(_slots.read_counts(adata, layer).sum(1), np.float64).ravel()
    return counts * float(target_sum) / np.where(library > 0, library, 1)


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


def _unit(params: Mapping, which: str) -> str:
    target_sum = params.get("target_sum")
    if target_sum is not None:
        return f"counts per {float(target_sum):,.0f}"
    return "counts" if which == "raw" else "expected counts"
