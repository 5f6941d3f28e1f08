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
from aeverse.pl._axes import COLORS, MISSING, finish, panels, tidy
from aeverse.pl._values import gene_values

if TYPE_CHECKING:
    from anndata import AnnData

PARTS = {"counts": COLORS[0], "zero, missed": COLORS[5], "zero, absent": MISSING}


def dropouts(
    adata: AnnData,
    genes: Sequence[str] | str,
    *,
    groupby: str,
    key: str = "dropout_prob",
    layer: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | np.ndarray:
    """What the zeros of a gene mean, by group of cells.

    A bar for each group: the share of its cells that have counts, the share that have none but probably missed the
    transcript (the sum of the probabilities of its zeros), and the rest, from which the gene is probably absent.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.dropouts` was run with `genes`.
    genes
        Names of genes, a panel each.
    groupby
        Column of ``adata.obs``: a bar for each of its values.
    key
        The `key_added` of that run.
    layer
        Layer with the raw counts; None: where `aeverse.tl.dropouts` found them.
    ax
        Axes to draw on, as many as there are genes.
    show
        Call `matplotlib.pyplot.show`; None: unless `ax` or `save` is given.
    save
        File to write; the ending says the format.

    Returns
    -------
    Axes, or an array of several where `genes` is a list of several.

    Raises
    ------
    KeyError
        The result, a gene or the column does not exist.
    ValueError
        The probabilities of all zeros are not there, since the run left out the small ones or other genes; there are no
        raw counts in the layer any more; `groupby` has missing values; or `genes` is empty.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.dropouts(adata, genes=["LYZ", "CD79A"])
    >>> axes = ae.pl.dropouts(adata, ["LYZ", "CD79A"], groupby="bulk_labels", show=False)
    """
    genes = _slots.name_list(genes)
    if not genes:
        raise ValueError("genes is empty; name at least one.")
    _slots.positions(genes, adata.var_names)
    params = _slots.read_record(adata, key)["params"]
    _require_all_zeros(genes, key, params)
    groups = _groups(adata, groupby)
    layer = params.get("layer") if layer is None else layer
    shares = [_shares(adata, gene, groups, key, layer) for gene in genes]
    axes = panels(len(genes), ax, size=(4.2, 1.3 + 0.24 * len(groups.categories)))
    for each, gene, parts in zip(axes, genes, shares, strict=True):
        left = np.zeros(len(parts))
        for name, color in PARTS.items():
            each.barh(parts.index, parts[name], left=left, color=color, label=name)
            left += parts[name].to_numpy()
        tidy(each, gene, "share of the cells", "")
        each.set_xlim(0, 1)
        each.xaxis.set_major_formatter(PercentFormatter(1))
        each.invert_yaxis()
        if ax is None and each is not axes[0]:
            each.set_yticklabels([])  # those of the first panel serve all
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8)
    return finish(axes, own=ax is None, show=show, save=save)


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


def _groups(adata: AnnData, groupby: str) -> pd.Categorical:
    """The groups of the cells, in the user's order."""
    groups = _slots.read_categories(adata, groupby)
    assert groups is not None  # as groupby is a name
    column = adata.obs[groupby]
    if isinstance(column.dtype, pd.CategoricalDtype):
        groups = groups.reorder_categories([c for c in column.cat.categories.astype(str) if c in groups.categories])
    return groups


def _shares(adata: AnnData, gene: str, groups: pd.Categorical, key: str, layer: str | None) -> pd.DataFrame:
    """For each group the shares of cells with counts, with a zero that was missed, and with a zero that is one."""
    counts = gene_values(adata, gene, layer)
    _slots.check_count_values(counts, adata, layer)
    seen, missed = counts > 0, gene_values(adata, gene, key)
    parts = pd.DataFrame({"counts": seen, "zero, missed": np.where(seen, 0, missed)}, dtype=float)
    parts["zero, absent"] = 1 - parts.sum(axis=1)
    return parts.groupby(groups, observed=True).mean()
