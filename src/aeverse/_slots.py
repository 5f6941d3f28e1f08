"""The only reader and writer of AnnData: features in, results out, all or nothing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

MAX_EXACT_COUNT = 2**24  # beyond it float32 no longer holds every integer


# ---- reading ---------------------------------------------------------------------------------------------------
def place(layer: str | None) -> str:
    """Name of the matrix as a user would write it."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def read_matrix(adata, layer: str | None = None) -> sp.csr_matrix | np.ndarray:
    """Return ``X`` or a layer in memory: CSR for anything sparse (backed files too), else a dense array. Never `.raw`."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"{place(layer)} does not exist; layers are: {sorted(adata.layers) or 'none'}.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        hint = f" Pass layer=, one of {sorted(adata.layers)}." if len(adata.layers) else ""
        raise ValueError(f"{place(layer)} is empty.{hint}")
    if hasattr(matrix, "to_memory"):  # a sparse matrix on disk
        matrix = matrix.to_memory()
    elif hasattr(matrix, "compute"):  # a dask array
        matrix = matrix.compute()
    if sp.issparse(matrix):
        matrix = matrix.tocsr()
        values = matrix.data
    else:
        matrix = np.asarray(matrix)
        values = matrix
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool) or np.iscomplexobj(values):
        raise TypeError(f"{place(layer)} holds {values.dtype}, not numbers.")
    return matrix


def read_counts(adata, layer: str | None = None) -> sp.csr_matrix:
    """Return checked counts as a new float32 CSR matrix with sorted indices and no stored zeros."""
    matrix = read_matrix(adata, layer)
    check_count_values(matrix.data if sp.issparse(matrix) else matrix, adata, layer)
    counts = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def check_count_values(values: np.ndarray, adata, layer: str | None) -> None:
    """Raise a ValueError that names the place, what was found and what to do, unless all values are counts."""
    if values.size == 0:
        return
    found = None
    if not np.isfinite(values).all():
        found = "NaN or infinite values"
    elif values.min() < 0:
        found = f"negative values (minimum {values.min():.4g})"
    elif np.issubdtype(values.dtype, np.floating):
        broken = values[values != np.rint(values)]
        if broken.size:
            found = f"values that are not integers (such as {broken.flat[0]:.4g})"
    if found is None and values.max() > MAX_EXACT_COUNT:
        found = f"values above {MAX_EXACT_COUNT} (maximum {values.max():.4g})"
    if found is not None:
        raise ValueError(f"{place(layer)} holds {found}, but this needs raw counts. {_counts_hint(adata, layer)}")


def _counts_hint(adata, layer: str | None) -> str:
    for name in ("counts", "raw_counts", "raw", "spliced"):
        if name in adata.layers and name != layer:
            return f"Pass layer={name!r}, which exists here."
    if layer is not None and adata.X is not None:
        return "Choose another layer=, or layer=None for adata.X."
    return "Keep a copy before you normalise, adata.layers['counts'] = adata.X.copy(), and pass layer='counts'."


def read_mask(adata, mask_var: str | np.ndarray | None | bool = "auto") -> np.ndarray | None:
    """Boolean mask of the features that the encoder reads, or None. ``"auto"``: ``highly_variable`` where present."""
    if mask_var is None or mask_var is False:
        return None
    if isinstance(mask_var, str):
        if mask_var == "auto":
            if "highly_variable" not in adata.var:
                return None
            mask_var = "highly_variable"
        if mask_var not in adata.var:
            raise KeyError(f"mask_var={mask_var!r} is not a column of adata.var; columns are: {list(adata.var.columns)}.")
        values = adata.var[mask_var]
        if values.dtype != bool:
            raise TypeError(f"adata.var[{mask_var!r}] must hold booleans, found {values.dtype}.")
        mask = values.to_numpy()
    else:
        mask = np.asarray(mask_var)
        if mask.dtype != bool or mask.shape != (adata.n_vars,):
            raise ValueError(
                f"mask_var must be a column of adata.var or {adata.n_vars} booleans, found {mask.dtype}, shape {mask.shape}."
            )
    if not mask.any():
        raise ValueError(f"mask_var={mask_var!r} selects no feature.")
    return mask


def read_categories(adata, key: str | None) -> pd.Categorical | None:
    """Categories of ``adata.obs[key]`` without unused levels; None for ``key=None``."""
    if key is None:
        return None
    if key not in adata.obs:
        raise KeyError(f"{key!r} is not a column of adata.obs; columns are: {list(adata.obs.columns)}.")
    values = adata.obs[key]
    missing = int(values.isna().sum())
    if missing:
        raise ValueError(f"adata.obs[{key!r}] has {missing} missing values; fill them or leave those cells out.")
    return pd.Categorical(values.astype(str))


def positions(names: Sequence[str] | str, index: pd.Index, what: str = "genes") -> np.ndarray:
    """Positions of names in an index of unique names, refusing unknown ones."""
    names = [names] if isinstance(names, str) else list(names)
    unknown = [n for n in names if n not in index]
    if unknown:
        raise KeyError(f"{what} not found: {unknown[:5]}{' …' if len(unknown) > 5 else ''} ({len(unknown)} of {len(names)}).")
    if not index.is_unique:
        doubled = [n for n in names if (index == n).sum() > 1]
        if doubled:
            raise ValueError(f"{what} {doubled[:5]} occur more than once; call adata.var_names_make_unique() first.")
    return index.get_indexer(names) if index.is_unique else np.array([index.get_loc(n) for n in names])


# ---- writing ---------------------------------------------------------------------------------------------------
@dataclass
class Results:
    """What one call wants to write, by slot and key, and its record for ``uns["ae"][name]``."""

    name: str
    record: dict[str, Any]
    layers: dict[str, Any] = field(default_factory=dict)
    obsm: dict[str, np.ndarray] = field(default_factory=dict)
    varm: dict[str, np.ndarray] = field(default_factory=dict)
    obs: dict[str, Any] = field(default_factory=dict)
    var: dict[str, Any] = field(default_factory=dict)

    def slots(self) -> list[tuple[str, str, Any]]:
        """(slot, key, value) of everything to write."""
        return [
            (slot, key, value)
            for slot in ("layers", "obsm", "varm", "obs", "var")
            for key, value in getattr(self, slot).items()
        ]


def check_keys(data, keys: Sequence[tuple[str, str]], name: str) -> None:
    """Refuse, before any work is done, to overwrite an object that aeverse did not write."""
    store = data.uns.get("ae", {})
    if not isinstance(store, Mapping):
        raise ValueError(f"uns['ae'] holds a {type(store).__name__} that aeverse did not write; rename it first.")
    ours = {str(k) for entry in store.values() if isinstance(entry, Mapping) for k in entry.get("writes", ())}
    for slot, key in keys:
        if key in getattr(data, slot) and f"{slot}/{key}" not in ours:
            raise ValueError(
                f"{slot}[{key!r}] exists and was not written by aeverse; pass another key_added= (this call: {name!r}) "
                f"or delete it: del adata.{slot}[{key!r}]."
            )


def write(data, results: Results) -> None:
    """Write everything or nothing: on any error the object is put back as it was."""
    slots = results.slots()
    check_keys(data, [(slot, key) for slot, key, _ in slots], results.name)
    if data.is_view:
        data._init_as_actual(data.copy())  # as scanpy does; anndata would warn and do the same
    absent = object()
    before = [(slot, key, getattr(data, slot).get(key, absent)) for slot, key, _ in slots]
    store_before = data.uns.get("ae", absent)
    record = writable({**results.record, "writes": [f"{slot}/{key}" for slot, key, _ in slots]})
    try:
        for slot, key, value in slots:
            getattr(data, slot)[key] = value
        data.uns["ae"] = {**(store_before if store_before is not absent else {}), results.name: record}
    except BaseException:
        for slot, key, value in before:
            if value is not absent:
                getattr(data, slot)[key] = value
            elif key in getattr(data, slot):
                del getattr(data, slot)[key]
        if store_before is absent:
            data.uns.pop("ae", None)
        else:
            data.uns["ae"] = store_before
        raise


def writable(value: Any) -> Any:
    """Reduce a record to what h5ad and zarr can hold: dicts, arrays, strings and numbers; None is left out."""
    if isinstance(value, Mapping):
        return {str(k): writable(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        if all(isinstance(v, (bool, int, float, np.number)) for v in value):
            return np.asarray(value)
        if all(isinstance(v, str) for v in value):
            return np.asarray(value, dtype=object)
        return json.dumps(value, default=str)
    if isinstance(value, (np.ndarray, np.generic, str, bool, int, float)):
        return value
    return str(value)


def read_record(data, name: str) -> Mapping[str, Any]:
    """Return ``uns["ae"][name]`` or say which records exist."""
    store = data.uns.get("ae", {})
    if name not in store:
        raise KeyError(f"uns['ae'][{name!r}] does not exist; records are: {sorted(store) or 'none: run aeverse.tl first'}.")
    return store[name]


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    return {package: version(package) for package in ("aeverse", "anndata", "numpy", "scipy", "torch")}


def warn(message: str) -> None:
    """Warn the user at the line that called aeverse."""
    import sys

    depth, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("aeverse"):
        frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
    warnings.warn(message, UserWarning, stacklevel=depth - 1)
