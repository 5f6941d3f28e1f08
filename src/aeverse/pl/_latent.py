"""`pl.latent`: the embedding of cells or patients, in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from aeverse._arguments import checked
from aeverse.pl._axes import (
    COLORS,
    Palette,
    colormap,
    finish,
    panels,
    point_size,
    scatter_categories,
    scatter_values,
    titles,
)
from aeverse.pl._values import category_colors, column, is_categorical, tidy_view, view

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from mudata import MuData


@checked
def latent(
    adata: AnnData | MuData,
    *,
    color: str | Sequence[str] | None = None,
    basis: str = "X_ae",
    layer: str | None = None,
    palette: Palette = None,
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
    """Cells or patients by their embedding, in two dimensions.

    Drawn is ``obsm["X_umap"]`` where it was computed from the embedding (``sc.pp.neighbors(adata, use_rep="X_ae")``, then
    ``sc.tl.umap(adata)``), else the first two principal components of the
    embedding.

    Parameters
    ----------
    adata
        Object with an embedding in ``obsm[basis]``.
    color
        Column of ``adata.obs`` or gene, or several, one panel for each; of a MuData features are named
        ``"modality:feature"``. The colors that scanpy has left in ``adata.uns[color + "_colors"]`` are used. What is
        unknown (NaN, ``"NA"``, ``"[Not Available]"``, …) is gray.
    basis
        Key of the embedding in ``adata.obsm``.
    layer
        Layer from which genes are taken; None is ``adata.X``. Their colors are spaced by ``log1p`` where none is
        negative.
    palette
        Colors of categories: the name of a matplotlib colormap, a list, or a dict from category to color.
    cmap
        Colormap of numbers.
    size
        Area of a point.
    ncols
        Panels in a row.
    title
        Title of each panel: one, or a list.
    figsize
        Width and height of the whole figure, in inches.
    ax
        Axes to draw on, as many as there are panels.
    show
        Call `matplotlib.pyplot.show`; None: unless `ax` or `save` is given.
    save
        File to write, in the format of its ending. As in scanpy, True and a suffix such as ``"_new.png"`` write to
        ``scanpy.settings.figdir``.
    return_fig
        Return the figure and do not show it.

    Returns
    -------
    Axes, or an array of several where `color` is a list, or the figure.

    Raises
    ------
    KeyError
        The embedding, a column or a gene does not exist.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.embed(adata)
    >>> ax = ae.pl.latent(adata, color="bulk_labels", show=False)
    """
    names = [color] if color is None or isinstance(color, str) else list(color)
    columns = [None if name is None else column(adata, name, layer) for name in names]
    panel_titles = titles(title, ["embedding of the cells" if name is None else name for name in names])
    colors = [
        category_colors(adata, name, values, palette)
        if name and values is not None and is_categorical(values)
        else None
        for name, values in zip(names, columns, strict=True)
    ]
    numbers = colormap(cmap)
    xy, labels = view(adata, basis)
    wide = any(c is not None and is_categorical(c) for c in columns)
    axes = panels(len(names), ax, size=(5.8 if wide else 4.6, 3.8), ncols=ncols, figsize=figsize)
    for i, (name, values) in enumerate(zip(names, columns, strict=True)):
        if name is None or values is None:
            area = point_size(len(xy)) if size is None else size
            axes[i].scatter(xy[:, 0], xy[:, 1], s=area, color=COLORS[0], linewidths=0, rasterized=True)
        elif is_categorical(values):
            scatter_categories(axes[i], xy, values, colors[i], size=size)
        else:
            is_gene = name not in adata.obs
            unit = _unit(layer) if is_gene else name
            scatter_values(axes[i], xy, values.to_numpy(), unit, log=is_gene, size=size, cmap=numbers)
        tidy_view(axes[i], panel_titles[i], labels)
    return finish(axes, "latent", own=ax is None, show=show, save=save, return_fig=return_fig)


def _unit(layer: str | None) -> str:
    return "adata.X" if layer is None else f"layer {layer!r}"
