"""`pl.latent`: the code of cells or patients, in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from aeverse.pl._axes import COLORS, finish, panels, point_size, scatter_categories, scatter_values
from aeverse.pl._values import column, is_categorical, scanpy_colors, tidy_view, view

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def latent(
    adata: AnnData | MuData,
    *,
    color: str | Sequence[str] | None = None,
    basis: str = "X_ae",
    layer: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | np.ndarray:
    """Cells or patients by their code, in two dimensions.

    Drawn is ``obsm["X_umap"]`` where it was computed from the code (``sc.pp.neighbors(adata, use_rep="X_ae")``, then
    ``sc.tl.umap(adata)``), else the first two principal components of the code.

    Parameters
    ----------
    adata
        Object with a code in ``obsm[basis]``.
    color
        Column of ``adata.obs`` or gene, or several: a panel each; of a MuData features are named
        ``"modality:feature"``. The colours that scanpy has left in ``adata.uns[color + "_colors"]`` are used. What is
        unknown (NaN, ``"NA"``, ``"[Not Available]"``, …) is grey.
    basis
        Key of the code in ``adata.obsm``.
    layer
        Layer from which genes are taken; None is ``adata.X``. Their colours are spaced by ``log1p`` where none is
        negative.
    ax
        Axes to draw on, as many as there are colours.
    show
        Call `matplotlib.pyplot.show`; None: unless `ax` or `save` is given.
    save
        File to write; the ending says the format.

    Returns
    -------
    Axes, or an array of several where `color` is a list.

    Raises
    ------
    KeyError
        The code, a column or a gene does not exist.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.embed(adata)
    >>> ax = ae.pl.latent(adata, color="bulk_labels", show=False)
    """
    colors = [color] if color is None or isinstance(color, str) else list(color)
    columns = [None if name is None else column(adata, name, layer) for name in colors]
    xy, labels = view(adata, basis)
    wide = any(c is not None and is_categorical(c) for c in columns)
    axes = panels(len(colors), ax, size=(5.8 if wide else 4.6, 3.8))
    for each, name, values in zip(axes, colors, columns, strict=True):
        if name is None or values is None:
            each.scatter(xy[:, 0], xy[:, 1], s=point_size(len(xy)), color=COLORS[0], linewidths=0, rasterized=True)
        elif is_categorical(values):
            scatter_categories(each, xy, values, scanpy_colors(adata, name, values))
        else:
            is_gene = name not in adata.obs
            scatter_values(each, xy, values.to_numpy(), _unit(layer) if is_gene else name, log=is_gene)
        tidy_view(each, "code of the cells" if name is None else name, labels)
    return finish(axes, own=ax is None, show=show, save=save)


def _unit(layer: str | None) -> str:
    return "adata.X" if layer is None else f"layer {layer!r}"
