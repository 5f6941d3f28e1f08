"""Fingerprints of what a result came from: equal for equal content, whatever its dtype, storage or order of cells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from aeverse._slots._read import read_categories, read_counts, read_mask
from aeverse._slots._stored import count_blocks, stored_counts

ODD = np.uint64(0x9E3779B97F4A7C15)  # a product with it, modulo 2**64, can be undone: no two hashes become one


def fingerprint_of_fit(adata, layer: str | None, mask_var, batch_key: str | None, described: str) -> str:
    """Hash of all that a fit to counts depends on: counts, names, mask, batches, and what describes the model."""
    digest = hashlib.blake2b(digest_size=16)
    mask, batches = read_mask(adata, mask_var), read_categories(adata, batch_key)
    if stored_counts(adata, layer) is None:
        counts = read_counts(adata, layer)
        parts, values = [np.asarray(counts.shape), counts.indptr, counts.indices], counts.data
    else:  # too large for the memory: a number for each cell
        parts, values = [np.asarray(adata.shape)], _hash_counts(adata, layer, adata.var_names.astype(str))
    parts += [] if batches is None else [np.asarray(batches.codes)]
    parts = [np.asarray(part, np.int64) for part in parts]
    for part in (*parts, values, np.asarray([] if mask is None else mask, bool)):
        digest.update(np.ascontiguousarray(part).tobytes())
    categories = None if batches is None else [str(name) for name in batches.categories]
    digest.update(repr((list(adata.var_names.astype(str)), batch_key, categories, described)).encode())
    return digest.hexdigest()


def hashes_of_cells(
    adata, layer: str | None, names: pd.Index, batch_key: str | None, code: np.ndarray | None
) -> dict[str, np.ndarray]:
    """A number for each cell from its counts of the genes in `names`, and from these with its batch and its code."""
    cells = _hash_counts(adata, layer, names)
    hashes = {"counts": cells}
    batches = read_categories(adata, batch_key)
    if batches is not None:
        hashes["batch"] = cells * ODD + _hash_words(batches.categories)[batches.codes]
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


def _hash_words(words) -> np.ndarray:
    digests = [hashlib.blake2b(str(word).encode(), digest_size=8).digest() for word in words]
    return np.asarray([int.from_bytes(word, "little") for word in digests], np.uint64)


def check_cells(
    adata, layer: str | None, names: pd.Index, source: Mapping[str, Any], code: np.ndarray, key: str
) -> None:
    """Raise a ValueError that names what changed unless every cell is as it was when the result `key` was made."""
    batch_key = source.get("batch_key")
    if batch_key is not None and batch_key not in adata.obs:
        raise ValueError(f"the batches of {key!r} in obs[{batch_key!r}] were deleted; put them back. {_remedy(key)}")
    now = hashes_of_cells(adata, layer, names, batch_key, code)
    for part in ("counts", "batch", "embedding"):
        if part not in now:
            continue
        changed = ~np.isin(now[part], source[part])
        if changed.any():
            place = {
                "counts": f"the counts in {'adata.X' if layer is None else f'adata.layers[{layer!r}]'}, or the names of genes,",
                "batch": f"the batches in obs[{batch_key!r}]",
                "embedding": "the embedding in obsm['X_ae']",
            }[part]
            raise ValueError(
                f"{place} of {int(changed.sum())} of {len(changed)} cells are not those that {key!r} was made from: they "
                f"were changed or replaced, or objects were concatenated. {_remedy(key)}"
            )


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
