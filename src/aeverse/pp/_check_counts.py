"""`pp.check_counts`: refuse what is not counts, warn of what is unusual."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aeverse import _slots
from aeverse._arguments import checked

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def check_counts(adata: AnnData, *, layer: str | None = None) -> None:
    """Check that a matrix holds raw counts, as the count likelihoods need them.

    Writes nothing.

    Parameters
    ----------
    adata
        Cells x genes.
    layer
        Layer to look at; `None` is ``adata.X``. ``adata.raw`` is never used.

    Raises
    ------
    KeyError
        The layer does not exist.
    TypeError
        The matrix does not hold numbers.
    ValueError
        It holds negative, NaN, infinite or non-integer values; the message names the place and a layer that may be meant.

    Warns
    -----
    UserWarning
        Cells or genes without a single count, duplicated gene names, library sizes that are all alike, counts that are all
        multiples of a number, or genes in rows.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.pp.check_counts(adata)
    """
    counts = _slots.read_counts(adata, layer)
    empty_cells = int((np.diff(counts.indptr) == 0).sum())
    empty_genes = int((np.bincount(counts.indices, minlength=counts.shape[1]) == 0).sum())
    where = _slots.matrix_name(layer)
    if empty_cells:
        _slots.warn(f"{where}: {empty_cells} cells have no counts; their denoised values will be zero.")
    if empty_genes:
        _slots.warn(f"{where}: {empty_genes} genes have no counts; their denoised values will be zero.")
    _slots.warn_of_unusual_counts(counts, adata, layer)
    if not adata.var_names.is_unique:
        _slots.warn("adata.var_names are not unique; call adata.var_names_make_unique() to address genes by name.")
