"""Values on demand, from what a result left in the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots, models
from aeverse._arguments import checked

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["denoised", "model"]


@checked
def model(adata: AnnData, *, key: str | None = None) -> models.Autoencoder:
    """The fitted model that a tool left in the object, encoder and all: to encode, denoise or save it.

    Works after a round trip through a file, too.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.denoise`, `aeverse.tl.embed` or `aeverse.tl.dropouts` was run.
    key
        The `key_added` of that run. None: the only model that there is; records of the same model count as one.

    Returns
    -------
    A fitted `aeverse.models.Autoencoder`.

    Raises
    ------
    KeyError
        There is no such record, or it holds no model.
    ValueError
        There are several models and `key` is None, or the record is not as it was written.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> ae.get.model(adata).encode(adata).shape
    (700, 32)
    """
    if key is not None:
        return _model_of(_slots.read_record(adata, key), key)
    store = adata.uns.get("ae", {})
    if not isinstance(store, Mapping):
        raise ValueError("uns['ae'] holds something that aeverse did not write; rename it first.")
    candidates = {name: record for name, record in store.items() if "model" in record}
    if not candidates:
        raise KeyError("uns['ae'] holds no model; run aeverse.tl.denoise or aeverse.tl.embed first.")
    if len({str(record["model"].get("checksum")) for record in candidates.values()}) > 1:
        raise ValueError(f"uns['ae'] holds several models; pass key=, one of {sorted(candidates)}.")
    name, record = next(iter(candidates.items()))
    return _model_of(record, name)


def _model_of(record: Mapping[str, Any], key: str) -> models.Autoencoder:
    if "model" not in record:
        raise KeyError(f"uns['ae'][{key!r}] holds no model; records of tl.denoise, tl.embed and tl.dropouts do.")
    try:
        return models.Autoencoder.from_record(record["model"])
    except ValueError as error:
        raise ValueError(f"uns['ae'][{key!r}]: {error}") from error


@checked
def denoised(adata: AnnData, genes: Sequence[str] | str, *, key: str = "denoised") -> pd.DataFrame:
    """Denoised values of some genes, decoded from the embedding and the model that `aeverse.tl.denoise` left.

    Works on subsets of the cells, and after a round trip through a file; the counts are needed, since the denoised value is a
    posterior given the cell's own count.

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
        The embedding in ``obsm["X_ae"]``, the counts, names of genes or batches are no longer those of that run (also where
        objects were concatenated), or genes that the model needs (for the library size) were taken out of the object.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1, genes=["LYZ"])
    >>> ae.get.denoised(adata, ["LYZ", "CD79A"]).shape
    (700, 2)
    """
    record = _slots.read_record(adata, key)
    fitted = _model_of(record, key)
    params, source = record.get("params", {}), record.get("source", {})
    genes = _slots.name_list(genes)
    if not {"genes_found", "writes"} <= set(record):
        raise ValueError(f"uns['ae'][{key!r}] is not whole, as after anndata.concat; call aeverse.tl.denoise again.")
    if "embedding" not in source or "X_ae" not in adata.obsm:
        raise ValueError(
            f"the embedding of {key!r} in obsm['X_ae'] was replaced by a later run or deleted; denoise again."
        )
    n_missing = int(record["genes_found"]) - int(fitted.var_names.isin(adata.var_names).sum())
    if n_missing > 0:
        raise ValueError(
            f"{n_missing} genes were taken out of adata since {key!r} was made, so library sizes are no longer known; take "
            "denoised values before you subset genes, or denoise again."
        )
    code = np.asarray(adata.obsm["X_ae"], np.float32)
    _slots.check_cells(adata, params.get("layer"), fitted.var_names, source, code, key)
    target_sum = params.get("target_sum")
    values = fitted.denoise(
        adata,
        layer=params.get("layer"),
        genes=genes,
        target_sum=None if target_sum is None else float(target_sum),
        transform_batch=params.get("transform_batch"),
        code=code,
    )
    if params.get("log1p"):
        values = np.log1p(values)
    return pd.DataFrame(values, index=adata.obs_names, columns=genes)
