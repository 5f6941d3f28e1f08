"""Fingerprints of what a result came from: equal for equal content, whatever its dtype, storage or order of cells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aeverse._slots._read import name_list, read_counts, read_covariate, read_labels, read_mask
from aeverse._slots._stored import count_blocks, stored_counts

ODD = np.uint64(0x9E3779B97F4A7C15)  # a product with it, modulo 2**64, can be undone: no two hashes become one


def fingerprint_of_fit(
    adata,
    layer: str | None,
    mask_var,
    batch_key: str | None,
    covariates: Sequence[str] | str | None,
    label_key: str | None,
    described: str,
) -> str:
    """Hash of all that a fit to counts depends on: counts, names, mask, covariates, labels, and what describes the model."""
    digest = hashlib.blake2b(digest_size=16)
    mask, others = read_mask(adata, mask_var), [] if covariates is None else name_list(covariates)
    if stored_counts(adata, layer) is None:
        counts = read_counts(adata, layer)
        parts, values = [np.asarray(counts.shape), counts.indptr, counts.indices], counts.data
    else:  # too large for the memory: a number for each cell
        parts, values = [np.asarray(adata.shape)], _hash_counts(adata, layer, adata.var_names.astype(str))
    parts = [np.asarray(part, np.int64) for part in parts]
    for part in (*parts, values, np.asarray([] if mask is None else mask, bool)):
        digest.update(np.ascontiguousarray(part).tobytes())
    for key in others if batch_key is None else [batch_key, *others]:
        digest.update(_hash_column(adata, key).tobytes())
    if label_key is not None:
        labels = read_labels(adata, label_key)
        digest.update(np.append(_hash_words(labels.categories), np.uint64(0))[labels.codes].tobytes())
    digest.update(repr((list(adata.var_names.astype(str)), batch_key, others, described)).encode())
    return digest.hexdigest()


def hashes_of_cells(
    adata, layer: str | None, names: pd.Index, covariates: Sequence[str], code: np.ndarray | None
) -> dict[str, np.ndarray]:
    """A number for each cell from its counts of the genes in `names`, and from these with its covariates and its code."""
    cells = _hash_counts(adata, layer, names)
    hashes = {"counts": cells}
    for key in covariates:
        hashes["covariates"] = hashes.get("covariates", cells) * ODD + _hash_column(adata, key)
    if code is not None:
        rows = np.ascontiguousarray(code, np.float32)
        integers = [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows]
        hashes["embedding"] = cells * ODD + np.asarray(integers, np.uint64)
    return hashes


def _hash_counts(adata, layer: str | None, names: pd.Index) -> np.ndarray:
    """Sum over the genes of count times the hash of the gene's name, so that no order matters."""
    var_names = adata.var_names.astype(str)
    weights = np.where(var_names.isin(names), _hash_words(var_names), np.uint64(0))
    return np.concatenate([counts.astype(np.uint64) @ weights for _, counts in count_blocks(adata, layer)])


def _hash_column(adata, key: str) -> np.ndarray:
    """A number for each cell from its category or number in a column of ``obs``."""
    values = read_covariate(adata, key)
    if isinstance(values, pd.Categorical):
        return _hash_words(values.categories)[values.codes]
    return values.astype(np.float32).view(np.uint32).astype(np.uint64)  # equal for single and double precision


def _hash_words(words) -> np.ndarray:
    digests = [hashlib.blake2b(str(word).encode(), digest_size=8).digest() for word in words]
    return np.asarray([int.from_bytes(word, "little") for word in digests], np.uint64)


def check_cells(
    adata, layer: str | None, names: pd.Index, source: Mapping[str, Any], code: np.ndarray, key: str
) -> None:
    """Raise a ValueError that names what changed unless every cell is as it was when the result `key` was made."""
    covariates = [str(name) for name in source.get("covariates_read", ())]
    if deleted := [name for name in covariates if name not in adata.obs]:
        raise ValueError(f"the covariates of {key!r} in {_places(deleted)} were deleted; put them back. {_remedy(key)}")
    now = hashes_of_cells(adata, layer, names, covariates, code)
    for part in ("counts", "covariates", "embedding"):
        if part not in now:
            continue
        changed = ~np.isin(now[part], source[part])
        if changed.any():
            place = {
                "counts": f"the counts in {'adata.X' if layer is None else f'adata.layers[{layer!r}]'}, or the names of genes,",
                "covariates": f"the covariates in {_places(covariates)}",
                "embedding": "the embedding in obsm['X_ae']",
            }[part]
            raise ValueError(
                f"{place} of {int(changed.sum())} of {len(changed)} cells are not those that {key!r} was made from: they "
                f"were changed or replaced, or objects were concatenated. {_remedy(key)}"
            )


def _places(columns: Sequence[str]) -> str:
    return " and ".join(f"obs[{name!r}]" for name in columns)


def _remedy(key: str) -> str:
    return f"Call aeverse.tl.denoise(adata, key_added={key!r}) again, with model= to keep a model."


def checksum(header: str, arrays: Mapping[str, Any]) -> str:
    """Hash of a model in a record."""
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.ndim == 0:
            array = np.asarray(array, np.float64)  # as files keep single numbers
        array = np.asarray(array, order="C")
        digest.update(f"{name}{array.dtype.kind}{array.dtype.itemsize}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
