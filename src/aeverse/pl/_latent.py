"""`pl.latent`: the code of cells or patients, in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from aeverse import _slots
from aeverse.pl._axes import COLORS, finish, panels, point_size, scatter_categories, scatter_values, tidy

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
        if values is None:
            each.scatter(xy[:, 0], xy[:, 1], s=point_size(len(xy)), color=COLORS[0], linewidths=0, rasterized=True)
        elif is_categorical(values):
            scatter_categories(each, xy, values, scanpy_colors(adata, name, values))
        else:
            is_gene = name not in adata.obs
            scatter_values(each, xy, values.to_numpy(), _unit(layer) if is_gene else name, log=is_gene)
        tidy_view(each, "code of the cells" if name is None else name, labels)
    return finish(axes, own=ax is None, show=show, save=save)


def view(adata: AnnData | MuData, basis: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Two coordinates of each cell, and what to call them."""
    if basis not in adata.obsm:
        raise KeyError(
            f"obsm[{basis!r}] does not exist; codes are: {sorted(adata.obsm) or 'none: run aeverse.tl first'}."
        )
    if "X_umap" in adata.obsm and _umap_is_of(adata, basis):
        return np.asarray(adata.obsm["X_umap"], np.float64)[:, :2], ("UMAP 1", "UMAP 2")
    code = np.asarray(adata.obsm[basis], np.float64)
    if code.shape[1] <= 2:
        xy = np.pad(code, ((0, 0), (0, 2 - code.shape[1])))
        return xy, (f"{basis} 1", f"{basis} 2")
    return _principal_components(code, basis)


def tidy_view(ax: Axes, title: str, labels: tuple[str, str]) -> None:
    """Axes of a view, whose coordinates have no units and need no ticks."""
    tidy(ax, title, *labels)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_color("#BBBBBB")


def _umap_is_of(adata: AnnData | MuData, basis: str) -> bool:
    neighbors = adata.uns.get("neighbors", {})
    params = neighbors.get("params", {}) if isinstance(neighbors, Mapping) else {}
    return params.get("use_rep") == basis


def _principal_components(code: np.ndarray, basis: str) -> tuple[np.ndarray, tuple[str, str]]:
    centred = code - code.mean(0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    axes *= np.sign(axes[np.abs(axes).argmax(0), [0, 1]])  # a fixed sign, so that pictures repeat
    shares = variances[:-3:-1] / max(variances.sum(), 1e-12)
    return centred @ axes, tuple(f"PC {i + 1} of {basis} ({share:.0%})" for i, share in enumerate(shares))  # type: ignore[return-value]


def column(adata: AnnData | MuData, name: str, layer: str | None) -> pd.Series:
    if name in adata.obs:
        return _slots.known(adata.obs[name])
    modality, _, feature = name.partition(":")
    if hasattr(adata, "mod") and modality in adata.mod:
        return column(adata.mod[modality], feature, layer).reindex(adata.obs_names)
    if hasattr(adata, "mod") or name not in adata.var_names:
        what = f"nor 'modality:feature' of {list(adata.mod)}" if hasattr(adata, "mod") else "nor a gene"
        raise KeyError(f"color={name!r} is neither a column of obs {what}; columns are: {list(adata.obs.columns)}.")
    return pd.Series(gene_values(adata, name, layer), adata.obs_names)


def gene_values(adata: AnnData, gene: str, layer: str | None) -> np.ndarray:
    """One gene's values from ``X`` or a layer, without reading the others."""
    position = _slots.positions(gene, adata.var_names)
    values = _slots.read_matrix(adata[:, position], layer)
    return np.asarray(values.todense() if hasattr(values, "todense") else values).ravel()


def is_categorical(values: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)


def scanpy_colors(adata: AnnData | MuData, name: str, values: pd.Series) -> list[str] | None:
    """The user's colours, for the categories that occur."""
    colors = adata.uns.get(f"{name}_colors")
    if colors is None or not isinstance(values.dtype, pd.CategoricalDtype) or len(colors) < len(values.cat.categories):
        return None
    used = set(values.dropna())
    return [str(c) for c, category in zip(colors, values.cat.categories, strict=False) if category in used]


def _unit(layer: str | None) -> str:
    return "adata.X" if layer is None else f"layer {layer!r}"
