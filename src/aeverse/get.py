"""Values on demand, from what a result left in the object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aeverse import _slots, models

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["denoised"]


def denoised(adata: AnnData, genes: Sequence[str] | str, *, key: str = "denoised") -> pd.DataFrame:
    """Denoised values of some genes, decoded from the code and the decoder that `aeverse.tl.denoise` left.

    Works on subsets of the cells, and after a round trip through a file; the model is not needed, but the counts are,
    since the denoised value is a posterior given the cell's own count.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.denoise` was run.
    genes
        Names of genes.
    key
        The `key_added` of that run.

    Returns
    -------
    Cells x genes, on the scale of that run.

    Raises
    ------
    KeyError
        There is no such result, or a gene is unknown to it.
    ValueError
        A later run replaced the code in ``obsm["X_ae"]``, the counts are no longer where they were, or genes that the
        model needs (for the library size) were taken out of the object.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1, genes=["LYZ"])
    >>> ae.get.denoised(adata, ["LYZ", "CD79A"]).shape
    (700, 2)
    """
    record = _slots.read_record(adata, key)
    model = models.Autoencoder.from_record(record["decoder"])
    params = record["params"]
    genes = _slots.name_list(genes)
    if "obsm/X_ae" not in record["writes"] or "X_ae" not in adata.obsm:
        raise ValueError(f"the code of {key!r} in obsm['X_ae'] was replaced by a later run or deleted; denoise again.")
    lost = int(record["genes_found"]) - int(model.var_names.isin(adata.var_names).sum())
    if lost > 0:
        raise ValueError(
            f"{lost} genes were taken out of adata since {key!r} was made, so library sizes are no longer known; take "
            "denoised values before you subset genes, or denoise again."
        )
    target_sum = params.get("target_sum")
    values = model.denoise(
        adata,
        layer=params.get("layer"),
        genes=genes,
        target_sum=None if target_sum is None else float(target_sum),
        code=np.asarray(adata.obsm["X_ae"], np.float32),
    )
    return pd.DataFrame(values, index=adata.obs_names, columns=genes)
