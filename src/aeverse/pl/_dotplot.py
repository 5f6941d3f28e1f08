"""`pl.dotplot`: marker genes by group of cells, raw counts beside denoised values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from aeverse import _slots, get
from aeverse._arguments import checked
from aeverse.pl._axes import colormap, finish, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters
from aeverse.pl._values import gene_values, groups_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

LARGEST = 110.0  # area of the dot of a group in which all cells express a gene
SHARES = (0.25, 0.5, 1.0)  # in the legend
PER = 1e4  # counts of a cell, to which raw and denoised values are brought


@checked
@with_shared_parameters
def dotplot(
    adata: AnnData,
    var_names: Sequence[str] | str,
    *,
    groupby: str,
    expression_cutoff: float | None = None,
    key: str = "denoised",
    layer: str | None = None,
    cmap: str | Colormap | None = None,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> np.ndarray | Figure:
    """Dot plots of genes by group of cells: raw counts beside denoised values, with one legend for both.

    Both are counts per 10,000. The color is ``log1p`` of their mean in the group, as a share of the gene's largest mean in
    that panel; the size is the share of cells above `expression_cutoff`. Denoised values are never exactly zero, so that a
    dot plot needs a cutoff above zero; `scanpy.pl.dotplot` has the same parameter.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.denoise` was run.
    var_names
        Names of genes. Those that the layer does not hold are decoded (`aeverse.get.denoised`).
    groupby
        Column of ``adata.obs``: one row for each of its values.
    expression_cutoff
        Counts per 10,000 above which a cell is said to express a gene; None: half of the gene's largest mean among the
        groups, by denoised values.
    key
        The `key_added` of that run.
    layer
        Layer with the raw counts; None: where `aeverse.tl.denoise` found them.
    cmap, title, figsize
        As in `aeverse.pl.latent`.
    ax
        Two Axes to draw on.
    show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Array of two Axes (raw, denoised), or the figure.

    Raises
    ------
    KeyError, ValueError
        The result, a gene or the column does not exist, or `groupby` has missing values.

    See Also
    --------
    aeverse.pl.denoised : The same values cell by cell.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> axes = ae.pl.dotplot(adata, ["CCR7", "CD8A", "MS4A1"], groupby="bulk_labels", show=False)
    """
    genes = _slots.name_list(var_names)
    if not genes:
        raise ValueError("var_names is empty; name at least one gene.")
    params = _slots.read_record(adata, key)["params"]
    groups = groups_of(adata, groupby)
    layer = params.get("layer") if layer is None else layer
    both = _raw(adata, genes, layer), _denoised(adata, genes, key, params, layer)
    largest = both[1].groupby(groups, observed=True).mean().max()
    cutoff = largest / 2 if expression_cutoff is None else pd.Series(expression_cutoff, index=genes)
    panel_titles = titles(title, ["raw", "denoised"])
    colors = colormap(cmap, "Reds")
    longest = max(len(str(name)) for name in groups.categories)
    size = (1.2 + 0.045 * longest + 0.36 * len(genes), 1.5 + 0.27 * len(groups.categories))
    axes = panels(2, ax, size=size, figsize=figsize)
    for i, (each, values) in enumerate(zip(axes, both, strict=True)):
        points = _dots(each, values, groups, cutoff, colors)
        tidy(each, panel_titles[i], "", "")
        if i and ax is None:
            each.set_yticklabels([])  # those of the first panel serve both
    _legends(axes[1], points, expression_cutoff)
    return finish(axes, "dotplot", own=ax is None, show=show, save=save, return_fig=return_fig)


def _raw(adata: AnnData, genes: list[str], layer: str | None) -> pd.DataFrame:
    library = np.asarray(_slots.read_counts(adata, layer).sum(1), np.float64).ravel()
    counts = np.stack([gene_values(adata, gene, layer) for gene in genes], axis=1)
    return pd.DataFrame(counts * PER / np.where(library > 0, library, 1)[:, None], columns=genes)


def _denoised(adata: AnnData, genes: list[str], key: str, params, layer: str | None) -> pd.DataFrame:
    values = get.denoised(adata, genes, key=key).reset_index(drop=True)
    if params.get("log1p"):
        values = np.expm1(values)
    if params.get("target_sum") is not None:
        return values * PER / float(params["target_sum"])
    library = np.asarray(_slots.read_counts(adata, layer).sum(1), np.float64).ravel()
    return values.mul(PER / np.where(library > 0, library, 1), axis=0)


def _dots(ax: Axes, values: pd.DataFrame, groups: pd.Categorical, cutoff: pd.Series, colors: Colormap):
    """One dot for each group and gene."""
    means = np.log1p(values).groupby(groups, observed=True).mean()
    means /= means.max().where(means.max() > 0, 1)
    shares = (values > cutoff).groupby(groups, observed=True).mean()
    x, y = np.meshgrid(range(means.shape[1]), range(means.shape[0]))
    points = ax.scatter(
        x.ravel(),
        y.ravel(),
        s=LARGEST * shares.to_numpy().ravel(),
        c=means.to_numpy().ravel(),
        cmap=colors,
        vmin=0,
        vmax=1,
        edgecolors="#777777",
        linewidths=0.4,
    )
    ax.set_xticks(range(means.shape[1]), list(means.columns), rotation=90)
    ax.set_yticks(range(means.shape[0]), [str(name) for name in means.index])
    ax.set_xlim(-0.6, means.shape[1] - 0.4)
    ax.set_ylim(means.shape[0] - 0.4, -0.6)
    ax.tick_params(length=0)
    ax.grid(False)  # `scanpy.set_figure_params` turns it on, and its lines run through the dots
    return points


def _legends(ax: Axes, points, cutoff: float | None) -> None:
    """Sizes and colors, beside the right panel."""
    dots = [
        Line2D([], [], ls="none", marker="o", ms=np.sqrt(LARGEST * share), mfc="#999999", mec="#777777", mew=0.4)
        for share in SHARES
    ]
    names = [f"{share:.0%}" for share in SHARES]
    above = "half of the gene's\nlargest mean" if cutoff is None else f"{cutoff:g} counts\nper 10,000"
    options: dict[str, Any] = {"title": f"cells above {above}", "title_fontsize": 8, "alignment": "left"}
    ax.legend(dots, names, loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8, **options)
    bar = ax.figure.colorbar(points, ax=ax, location="bottom", fraction=0.04, pad=0.02, ticks=[0, 0.5, 1])
    bar.set_label("mean log1p, share of the gene's largest", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
