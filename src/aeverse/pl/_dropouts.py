"""`pl.dropouts`: of the cells of a group, how many show a gene, miss it, or lack it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, MISSING, Palette, finish, palette_colors, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters
from aeverse.pl._values import gene_values, groups_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

PARTS = ("counts", "zero, missed", "zero, absent")
PART_COLORS = (COLORS[0], COLORS[5], MISSING)


@checked
@with_shared_parameters
def dropouts(
    adata: AnnData,
    genes: Sequence[str] | str,
    *,
    groupby: str,
    key: str = "dropout_prob",
    layer: str | None = None,
    palette: Palette = None,
    ncols: int = 4,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | np.ndarray | Figure:
    """What the zeros of a gene mean, by group of cells.

    One bar for each group: the share of its cells that have counts, the share that have none but would have some at
    the `depth` of `aeverse.tl.dropouts` (the sum of the probabilities of its zeros), and the rest, from which the gene is
    probably absent. The legend names the depth: at a greater depth more zeros count as missed, also those of ambient
    transcripts.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.dropouts` was run with `genes`.
    genes
        Names of genes, one panel for each.
    groupby
        Column of ``adata.obs``: one bar for each of its values.
    key
        The `key_added` of that run.
    layer
        Layer with the raw counts; None: where `aeverse.tl.dropouts` found them.
    palette
        Three colors: of cells with counts, of zeros that were missed, and of absent genes.
    ncols, title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, an array of several where `genes` is a list of several, or the figure.

    Raises
    ------
    KeyError
        The result, a gene or the column does not exist.
    ValueError
        The probabilities of all zeros are not there, since the run left out the small ones or other genes; there are no
        raw counts in the layer any more; or `groupby` has missing values.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.dropouts(adata, genes=["LYZ", "CD79A"])
    >>> axes = ae.pl.dropouts(adata, ["LYZ", "CD79A"], groupby="bulk_labels", show=False)
    """
    genes = _slots.name_list(genes)
    _slots.positions(genes, adata.var_names)
    params = _slots.read_record(adata, key)["params"]
    _require_all_zeros(genes, key, params)
    groups = groups_of(adata, groupby)
    layer = params.get("layer") if layer is None else layer
    shares = [_shares(adata, gene, groups, key, layer) for gene in genes]
    panel_titles = titles(title, genes)
    colors = palette_colors(palette, PARTS) or PART_COLORS
    labels = dict(zip(PARTS, _labels(float(params["depth"])), strict=True))
    columns = min(len(genes), ncols) if ax is None else 1
    rows = -(-len(genes) // columns)
    if figsize is None:  # room for the names of the groups at the left, and for the legend at the right
        figsize = (3.2 * columns + 4.6, rows * (1.3 + 0.24 * len(groups.categories)))
    axes = panels(len(genes), ax, ncols=ncols, figsize=figsize)
    for i, (each, parts) in enumerate(zip(axes, shares, strict=True)):
        left = np.zeros(len(parts))
        for name, color in zip(PARTS, colors, strict=True):
            each.barh(parts.index, parts[name], left=left, color=color, label=labels[name])
            left += parts[name].to_numpy()
        tidy(each, panel_titles[i], "share of the cells", "")
        each.set_xlim(0, 1)
        each.set_xticks([0, 0.5, 1])
        each.xaxis.set_major_formatter(PercentFormatter(1))
        each.invert_yaxis()
        if i % columns:
            each.set_yticklabels([])  # those of the first panel in the row serve all
    last = axes[columns - 1 if ax is None else -1]
    last.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8)
    return finish(axes, "dropouts", own=ax is None, show=show, save=save, return_fig=return_fig)


def _labels(depth: float) -> tuple[str, str, str]:
    """What the parts of a bar are: the probabilities of zeros are of a cell sequenced deeper."""
    return (
        "counts",
        f"zero, expected to have counts\nat {depth:g} times the depth",
        f"zero, also at {depth:g} times the depth",
    )


def _require_all_zeros(genes: list[str], key: str, params: Mapping) -> None:
    """The layer holds every probability of these genes, not only the large ones."""
    if "depth" not in params:
        raise KeyError(
            f"uns['ae'][{key!r}] was not written by aeverse.tl.dropouts; pass the key_added of that run as key=."
        )
    held = params.get("genes")
    if held is None and float(params["threshold"]) > 0:
        raise ValueError(
            f"layers[{key!r}] holds the probabilities from {float(params['threshold']):g} on only, but this plot needs "
            f"those of all zeros: run aeverse.tl.dropouts(adata, genes={genes}) first."
        )
    absent = [] if held is None else sorted(set(genes) - set(np.atleast_1d(held)))
    if absent:
        raise ValueError(
            f"layers[{key!r}] does not hold {absent}: run aeverse.tl.dropouts(adata, genes={genes}) first."
        )


def _shares(adata: AnnData, gene: str, groups: pd.Categorical, key: str, layer: str | None) -> pd.DataFrame:
    """For each group the shares of cells with counts, with a zero that was missed, and with a zero that is one."""
    counts = gene_values(adata, gene, layer)
    _slots.check_count_values(counts, adata, layer)
    counted, missed = counts > 0, gene_values(adata, gene, key)
    parts = pd.DataFrame({"counts": counted, "zero, missed": np.where(counted, 0, missed)}, dtype=float)
    parts["zero, absent"] = 1 - parts.sum(axis=1)
    return parts.groupby(groups, observed=True).mean()
