"""The only reader and writer of AnnData: features in, results out, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse._settings import warn

FEWEST_COMMON = 5  # cells that two modalities must share to be embedded together
MAX_EXACT_COUNT = 2**24  # beyond it float32 no longer holds every integer

# What cBioPortal, Xena and the GDC write where a clinical value is unknown.
UNKNOWN = {"", "na", "n/a", "nan", "none", "null", "unknown", "not available", "not applicable", "not evaluated"}
UNKNOWN |= {f"[{word}]" for word in UNKNOWN} | {"[discrepancy]", "[completed]", "not reported", "--", "'--", "<na>"}

EVENT = {"1", "1.0", "true", "yes", "dead", "deceased", "died", "death", "event", "recurred/progressed", "recurred"}
NO_EVENT = {"0", "0.0", "false", "no", "alive", "living", "censored", "no event", "diseasefree", "disease free"}


# ---- reading ---------------------------------------------------------------------------------------------------
def target(adata, copy: bool):
    """The object that results go into: `adata` itself or, for ``copy=True``, a copy of it in memory."""
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise TypeError(f"expected an AnnData, found {type(adata).__name__}.")
    if copy:
        return adata.to_memory() if adata.isbacked else adata.copy()
    if adata.isbacked and adata.is_view:
        raise ValueError(
            "adata is a view of a file, which nothing can be written to; pass copy=True or adata.to_memory()."
        )
    return adata


def cohort(data, copy: bool):
    """As `target`, for tools that need observations only and so take an AnnData or a MuData."""
    from anndata import AnnData
    from mudata import MuData

    if isinstance(data, AnnData):
        return target(data, copy)
    if not isinstance(data, MuData):
        raise TypeError(f"expected an AnnData or a MuData, found {type(data).__name__}.")
    return data.copy() if copy else data


def read_code(data, use_rep: str) -> np.ndarray:
    """Return ``data.obsm[use_rep]`` as float64, (observations, dimensions), without missing values."""
    if use_rep not in data.obsm:
        raise KeyError(
            f"use_rep={use_rep!r} is not in obsm; codes are: {sorted(data.obsm) or 'none: run aeverse.tl first'}."
        )
    code = data.obsm[use_rep]
    code = np.asarray(code.toarray() if sp.issparse(code) else code)
    if code.ndim != 2 or code.shape[1] == 0 or not (np.issubdtype(code.dtype, np.number) or code.dtype == bool):
        raise ValueError(
            f"obsm[{use_rep!r}] must be numbers, observations x dimensions; found {code.dtype}, {code.shape}."
        )
    code = code.astype(np.float64)
    broken = ~np.isfinite(code).all(1)
    if broken.any():
        raise ValueError(
            f"obsm[{use_rep!r}] has missing or infinite values in {int(broken.sum())} of {len(code)} observations, such "
            f"as {data.obs_names[broken][0]!r}; leave those out or encode them again."
        )
    return code


def place(layer: str | None) -> str:
    """Name of the matrix as a user would write it."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def layer_names(adata) -> list[str]:
    """Names of the layers; anndata 0.13 counts X among them, as None."""
    return sorted(name for name in adata.layers if name is not None)


def read_matrix(adata, layer: str | None = None) -> sp.csr_matrix | np.ndarray:
    """Return ``X`` or a layer in memory: CSR for anything sparse (backed files too), else a dense array. Never `.raw`."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"{place(layer)} does not exist; layers are: {layer_names(adata) or 'none'}.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        hint = f" Pass layer=, one of {layer_names(adata)}." if layer_names(adata) else ""
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
        raise TypeError(f"{place(layer)} holds {values.dtype}, not numbers; convert it or pass another layer=.")
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
    if found is None and float(values.max()) > MAX_EXACT_COUNT:
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


def read_mask(adata, mask_var: str | np.ndarray | bool | None = "auto") -> np.ndarray | None:
    """Boolean mask of the features that the encoder reads, or None. ``"auto"``: ``highly_variable`` where present."""
    if mask_var is None or mask_var is False:
        return None
    if isinstance(mask_var, str):
        if mask_var == "auto":
            if "highly_variable" not in adata.var:
                return None
            mask_var = "highly_variable"
        if mask_var not in adata.var:
            raise KeyError(
                f"mask_var={mask_var!r} is not a column of adata.var; columns are: {list(adata.var.columns)}."
            )
        values = adata.var[mask_var]
        if not pd.api.types.is_bool_dtype(values) or values.isna().any():
            raise TypeError(f"adata.var[{mask_var!r}] must hold booleans, all of them, found {values.dtype}.")
        mask = values.to_numpy(bool)
    else:
        mask = np.asarray(mask_var)
        if mask.dtype != bool or mask.shape != (adata.n_vars,):
            raise ValueError(
                f"mask_var must be a column of adata.var or {adata.n_vars} booleans, found {mask.dtype}, shape {mask.shape}."
            )
    if not mask.any():
        raise ValueError("mask_var selects no feature.")
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


def known(values: pd.Series) -> pd.Series:
    """The same values, with NaN for words that say that nothing is known, such as ``"NA"`` or ``"[Not Available]"``."""
    if values.dtype != object and not isinstance(values.dtype, (pd.CategoricalDtype, pd.StringDtype)):
        return values
    unknown = values.astype(object).map(lambda v: isinstance(v, str) and v.strip().lower() in UNKNOWN).astype(bool)
    return values.where(~unknown)


def happened(value: object) -> float:
    """1 or 0 for a value that says that an event happened or that the patient was censored, NaN for any other.

    True, 1, ``"Dead"``, ``"DECEASED"``, cBioPortal's ``"1:DECEASED"``; False, 0, ``"Alive"``, ``"0:LIVING"``.
    """
    word = f"{float(value):g}" if isinstance(value, (bool, np.bool_, int, float, np.number)) else str(value)
    word = word.strip().lower()
    word = word[0] if word[:2] in ("0:", "1:") else word
    return 1.0 if word in EVENT else 0.0 if word in NO_EVENT else np.nan


def name_list(names: Iterable[str] | str) -> list[str]:
    """Names as a list without repetitions; a single name is a list of one."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def positions(names: Iterable[str] | str, index: pd.Index, what: str = "genes") -> np.ndarray:
    """Positions of names in an index of unique names, refusing unknown ones."""
    names = [names] if isinstance(names, str) else list(names)
    unknown = [n for n in names if n not in index]
    if unknown:
        raise KeyError(
            f"{what} not found: {unknown[:5]}{' …' if len(unknown) > 5 else ''} ({len(unknown)} of {len(names)})."
        )
    if not index.is_unique:
        doubled = [n for n in names if (index == n).sum() > 1]
        if doubled:
            raise ValueError(f"{what} {doubled[:5]} occur more than once; call adata.var_names_make_unique() first.")
    return index.get_indexer(names) if index.is_unique else np.array([index.get_loc(n) for n in names])


# ---- reading MuData --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Modality:
    """What one modality of a MuData measured: rows that are there, float32; entries that are missing are NaN."""

    x: sp.csr_matrix | np.ndarray
    rows: np.ndarray  # positions in mdata.obs
    names: pd.Index
    mask: np.ndarray | None  # features that the encoder reads; None: the model decides


def target_mudata(mdata, copy: bool):
    """The MuData that results go into, after checking that its cells are those of its modalities."""
    from mudata import MuData

    if not isinstance(mdata, MuData):
        raise TypeError(f"expected a MuData, found {type(mdata).__name__}; for one matrix there is aeverse.tl.embed.")
    if mdata.axis != 0:
        raise ValueError(f"the modalities share axis {mdata.axis}, not cells; build MuData(..., axis=0).")
    if not mdata.mod:
        raise ValueError("the MuData holds no modality.")
    if not mdata.obs_names.is_unique:
        raise ValueError(
            "mdata.obs_names are not unique; make the names of cells unique in every modality, then mdata.update()."
        )
    seen = np.zeros(mdata.n_obs, bool)
    for name, adata in mdata.mod.items():
        if not adata.obs_names.is_unique:
            raise ValueError(
                f"mdata[{name!r}].obs_names are not unique; call obs_names_make_unique() on it, then mdata.update()."
            )
        where = mdata.obs_names.get_indexer(adata.obs_names)
        if (where < 0).any():
            raise ValueError(
                f"{(where < 0).sum()} cells of mdata[{name!r}] are not in mdata.obs: it is out of date. Call mdata.update()."
            )
        seen[where] = True
    if not seen.all():
        raise ValueError(
            f"{(~seen).sum()} cells of mdata.obs are in no modality: it is out of date. Call mdata.update()."
        )
    return mdata.copy() if copy else mdata


def read_modalities(
    mdata,
    modalities: Sequence[str] | None = None,
    layer: Mapping[str, str | None] | None = None,
    mask_var: Mapping[str, str | np.ndarray | None] | None = None,
) -> dict[str, Modality]:
    """Read some modalities of a MuData (None: all) without their empty rows (NaN in every feature)."""
    layer, mask_var = dict(layer or {}), dict(mask_var or {})
    wanted = list(mdata.mod) if modalities is None else name_list(modalities)
    for what, names in (("modalities", wanted), ("layer", layer), ("mask_var", mask_var)):
        if unknown := [name for name in names if name not in mdata.mod]:
            raise KeyError(f"{what} names {unknown}, but the modalities are {list(mdata.mod)}.")
    if not wanted:
        raise ValueError(f"modalities is empty; choose among {list(mdata.mod)}, or None for all.")
    return {name: _read_modality(mdata, name, layer.get(name), mask_var.get(name, "auto")) for name in wanted}


def require_linked(data: Mapping[str, Modality]) -> None:
    """Refuse modalities that no cells in common link to each other (diagonal data), saying what is needed."""
    linked, waiting = {next(iter(data))}, set(data) - {next(iter(data))}
    while waiting:
        near = {b for b in waiting for a in linked if len(np.intersect1d(data[a].rows, data[b].rows)) >= FEWEST_COMMON}
        if not near:
            raise ValueError(
                f"modalities {sorted(linked)} and {sorted(waiting)} have fewer than {FEWEST_COMMON} cells in common: nothing "
                "tells which cells of the one are like which of the other. Add cells measured in both (a bridge), with the "
                "same obs_names in both modalities, or embed them one by one with modalities=."
            )
        linked, waiting = linked | near, waiting - near


def _read_modality(mdata, name: str, layer: str | None, mask_var) -> Modality:
    adata = mdata.mod[name]
    try:
        x = read_matrix(adata, layer)
        mask = read_mask(adata, mask_var)
        if np.isinf(x.data if sp.issparse(x) else x).any():
            raise ValueError(f"{place(layer)} holds infinite values; set what is missing to NaN.")
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f"modality {name!r}: {error.args[0]}") from error
    if x.shape[1] == 0:
        raise ValueError(f"modality {name!r} has no feature; leave it out with modalities=.")
    if sp.issparse(x) and np.isnan(x.data).any():
        x = x.toarray()
    x = sp.csr_matrix(x, dtype=np.float32) if sp.issparse(x) else np.asarray(x, np.float32)
    rows = mdata.obs_names.get_indexer(adata.obs_names)
    if not sp.issparse(x) and (empty := np.isnan(x).all(1)).any():
        x, rows = x[~empty], rows[~empty]
    return Modality(x, rows, pd.Index(adata.var_names.astype(str)), mask)


def known_features(adata, known: pd.Index) -> list[str] | None:
    """The features of `adata` that a model knows, in the order of `adata`; None: all, in the model's own order."""
    names = adata.var_names.astype(str)
    if names.equals(known):
        return None
    found = list(names[names.isin(known)])
    if len(found) < len(names):
        warn(f"the model knows {len(found)} of the {len(names)} features; the others are left empty.")
    return found


def in_series(values: np.ndarray, columns: np.ndarray | slice, n: int) -> np.ndarray:
    """Values at the given positions of an otherwise missing (NaN) series."""
    series = np.full(n, np.nan)
    series[columns] = values
    return series


def in_rows(values: np.ndarray | sp.csr_matrix, rows: np.ndarray, n: int) -> np.ndarray | sp.csr_matrix:
    """Values as the given rows of an otherwise empty matrix, sparse or dense as they are."""
    place = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), shape=(n, len(rows)))
    return sp.csr_matrix(place @ values) if sp.issparse(values) else np.asarray(place @ values)


def in_columns(values: np.ndarray | sp.csr_matrix, columns: np.ndarray, n_vars: int) -> sp.csr_matrix:
    """Values as the given columns of an otherwise empty matrix."""
    entries = sp.coo_matrix(values)
    return sp.csr_matrix((entries.data, (entries.row, columns[entries.col])), shape=(values.shape[0], n_vars))


# ---- writing ---------------------------------------------------------------------------------------------------
@dataclass
class Results:
    """What one call wants to write, by slot and key, and its record for ``uns["ae"][name]``."""

    name: str
    record: dict[str, Any]
    layers: dict[str, Any] = field(default_factory=dict)
    obsm: dict[str, np.ndarray] = field(default_factory=dict)
    varm: dict[str, np.ndarray] = field(default_factory=dict)
    obsp: dict[str, np.ndarray] = field(default_factory=dict)
    obs: dict[str, Any] = field(default_factory=dict)
    var: dict[str, Any] = field(default_factory=dict)

    def slots(self) -> list[tuple[str, str, Any]]:
        """(slot, key, value) of everything to write."""
        return [
            (slot, key, value)
            for slot in ("layers", "obsm", "varm", "obsp", "obs", "var")
            for key, value in getattr(self, slot).items()
        ]


def check_keys(data, keys: Sequence[tuple[str, str]], name: str, *, tables: bool = False) -> None:
    """Refuse, before any work is done, to overwrite an object that aeverse did not write.

    Results of nothing but `tables` live in ``uns["ae"][name]`` alone, and replace only their like.
    """
    store = data.uns.get("ae", {})
    if not isinstance(store, Mapping) or not all(isinstance(entry, Mapping) for entry in store.values()):
        raise ValueError("uns['ae'] holds something that aeverse did not write; rename it first.")
    if "/" in name:
        raise ValueError(f"key_added={name!r} must not contain '/': h5ad and zarr could not hold it.")
    ours = {key for entry in store.values() for key in _written(entry)}
    theirs = _written(store.get(name, {}))
    if name in store and not (theirs & {f"{slot}/{key}" for slot, key in keys} or (tables and not theirs)):
        raise ValueError(f"uns['ae'][{name!r}] belongs to another result; pass another key_added=.")
    for slot, key in keys:
        if key in getattr(data, slot) and f"{slot}/{key}" not in ours:
            raise ValueError(
                f"{slot}[{key!r}] exists and was not written by aeverse; pass another key_added= (this call: {name!r}) "
                f"or delete it: del adata.{slot}[{key!r}]."
            )


def _written(record: Mapping[str, Any]) -> set[str]:
    """What a call wrote, as ``slot/key``, and no later call replaced."""
    return {str(key) for key in record.get("writes", ())}


def write(data, results: Results) -> Callable[[], None]:
    """Write everything or nothing: on any error the object is put back as it was. Returns what undoes the writing.

    What an earlier call of the same name left and this one does not replace is removed; what is taken over from calls of
    other names is struck off their records.
    """
    slots = results.slots()
    if slots:
        check_keys(data, [(slot, key) for slot, key, _ in slots], results.name, tables=True)
    if data.is_view:
        data._init_as_actual(data.copy())  # as scanpy does; anndata would warn and do the same
    taken = [f"{slot}/{key}" for slot, key, _ in slots]
    store = data.uns.get("ae", {})
    stale = [entry.split("/", 1) for entry in sorted(_written(store.get(results.name, {})) - set(taken))]
    others = {
        name: {**entry, "writes": writable(sorted(_written(entry) - set(taken)))} for name, entry in store.items()
    }
    record = writable({**results.record, "writes": taken})
    put_back = _snapshot(data, [(slot, key) for slot, key, *_ in [*slots, *stale]])
    try:
        for slot, key, value in slots:
            getattr(data, slot)[key] = value
        data.uns["ae"] = {**others, results.name: record}
        for slot, key in stale:
            if key in getattr(data, slot):
                del getattr(data, slot)[key]
    except BaseException:
        put_back()
        raise
    return put_back


def _snapshot(data, keys: Sequence[tuple[str, str]]) -> Callable[[], None]:
    """Remember what is under some keys and in ``uns["ae"]``; return what puts it back."""
    absent = object()
    before = [(slot, key, getattr(data, slot).get(key, absent)) for slot, key in keys]
    store_before = data.uns.get("ae", absent)

    def put_back() -> None:
        for slot, key, value in before:
            if value is not absent:
                getattr(data, slot)[key] = value
            elif key in getattr(data, slot):
                del getattr(data, slot)[key]
        if store_before is absent:
            data.uns.pop("ae", None)
        else:
            data.uns["ae"] = store_before

    return put_back


def write_all(parts: Sequence[tuple[Any, Results]]) -> None:
    """Write results into several objects (a MuData and its modalities), all of them or none."""
    done = []
    try:
        for data, results in parts:
            done.append(write(data, results))
    except BaseException:
        for put_back in reversed(done):
            put_back()
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
    if isinstance(value, (np.ndarray, np.generic, pd.DataFrame, str, bool, int, float)):
        return value
    return str(value)


def read_record(data, name: str) -> Mapping[str, Any]:
    """Return ``uns["ae"][name]`` or say which records exist."""
    store = data.uns.get("ae", {})
    if name not in store:
        raise KeyError(
            f"uns['ae'][{name!r}] does not exist; records are: {sorted(store) or 'none: run aeverse.tl first'}."
        )
    return store[name]


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    return {package: version(package) for package in ("aeverse", "anndata", "numpy", "scipy", "torch")}
