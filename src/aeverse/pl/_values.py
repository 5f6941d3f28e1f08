"""What the plots show: the coordinates of cells, columns of obs, and the values of genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from aeverse import _slots
from aeverse.pl._axes import Palette, palette_colors, tidy

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def view(adata: AnnData | MuData, basis: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Two coordinates of each cell, and what to call them."""
    if basis not in adata.obsm:
        raise KeyError(
            f"obsm[{basis!r}] does not exist; embeddings are: {sorted(adata.obsm) or 'none: run aeverse.tl first'}."
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
    centered = code - code.mean(0)
    variances, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, :-3:-1]
    axes *= np.sign(axes[np.abs(axes).argmax(0), [0, 1]])  # a fixed sign, so that pictures repeat
    shares = variances[:-3:-1] / max(variances.sum(), 1e-12)
    return centered @ axes, tuple(f"PC {i + 1} of {basis} ({share:.0%})" for i, share in enumerate(shares))  # type: ignore[return-value]


def column(adata: AnnData | MuData, name: str, layer: str | None) -> pd.Series:
    if name in adata.obs:
        return _slots.unknown_as_nan(adata.obs[name])
    modality, _, feature = name.partition(":")
    if hasattr(adata, "mod") and modality in adata.mod:
        return column(adata.mod[modality], feature, layer).reindex(adata.obs_names)
    if hasattr(adata, "mod") or name not in adata.var_names:
        alternative = f"nor 'modality:feature' of {list(adata.mod)}" if hasattr(adata, "mod") else "nor a gene"
        raise KeyError(
            f"color={name!r} is neither a column of obs {alternative}; columns are: {list(adata.obs.columns)}."
        )
    return pd.Series(gene_values(adata, name, layer), adata.obs_names)


def gene_values(adata: AnnData, gene: str, layer: str | None) -> np.ndarray:
    """One gene's values from ``X`` or a layer, without reading the others."""
    position = _slots.positions(gene, adata.var_names)
    values = _slots.read_matrix(adata[:, position], layer)
    return np.asarray(values.todense() if hasattr(values, "todense") else values).ravel()


def groups_of(adata: AnnData, groupby: str) -> pd.Categorical:
    """The groups of the cells, in the user's order."""
    groups = _slots.read_categories(adata, groupby)
    assert groups is not None  # as groupby is a name
    column = adata.obs[groupby]
    if isinstance(column.dtype, pd.CategoricalDtype):
        groups = groups.reorder_categories([c for c in column.cat.categories.astype(str) if c in groups.categories])
    return groups


def is_categorical(values: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)


def category_colors(adata: AnnData | MuData, name: str, values: pd.Series, palette: Palette) -> list[Any] | None:
    """Colors for the categories that occur: of the palette, else those that scanpy left in ``uns``; None: ours."""
    names = list(pd.Series(pd.Categorical(values)).cat.remove_unused_categories().cat.categories)
    if palette is not None:
        return palette_colors(palette, [str(name) for name in names])
    colors = adata.uns.get(f"{name}_colors")
    if colors is None or not isinstance(values.dtype, pd.CategoricalDtype) or len(colors) < len(values.cat.categories):
        return None
    return [str(c) for c, category in zip(colors, values.cat.categories, strict=False) if category in set(names)]
