"""Writing results and their record, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse._arguments import check_name


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
    uns: dict[str, Any] = field(default_factory=dict)

    def slots(self) -> list[tuple[str, str, Any]]:
        """(slot, key, value) of everything to write."""
        return [
            (slot, key, value)
            for slot in ("layers", "obsm", "varm", "obsp", "obs", "var", "uns")
            for key, value in getattr(self, slot).items()
        ]


def check_keys(data, keys: Sequence[tuple[str, str]], name: str, *, tables: bool = False) -> None:
    """Refuse, before any work is done, to overwrite an object that aeverse did not write.

    Results of nothing but `tables` live in ``uns["ae"][name]`` alone, and replace only their like.
    """
    store = data.uns.get("ae", {})
    if not isinstance(store, Mapping) or not all(isinstance(entry, Mapping) for entry in store.values()):
        raise ValueError("uns['ae'] holds something that aeverse did not write; rename it first.")
    check_name("key_added", name)
    if ("uns", "ae") in keys:
        raise ValueError("key_added='ae': uns['ae'] holds the records of aeverse; pass another name.")
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
    check_name("key_added", results.name)
    slots = results.slots()
    if slots:
        check_keys(data, [(slot, key) for slot, key, _ in slots], results.name, tables=True)
    if data.is_view:
        data._init_as_actual(data.copy())  # as scanpy does; anndata would warn and do the same
    slot_names = [f"{slot}/{key}" for slot, key, _ in slots]
    store = data.uns.get("ae", {})
    stale = [entry.split("/", 1) for entry in sorted(_written(store.get(results.name, {})) - set(slot_names))]
    other_records = {
        name: {**entry, "writes": writable(sorted(_written(entry) - set(slot_names)))} for name, entry in store.items()
    }
    record = writable({**results.record, "writes": slot_names})
    put_back = _snapshot(data, [(slot, key) for slot, key, *_ in [*slots, *stale]])
    try:
        for slot, key, value in slots:
            getattr(data, slot)[key] = value
        data.uns["ae"] = {**other_records, results.name: record}
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


def scatter_values(values: np.ndarray, columns: np.ndarray | slice, n: int) -> np.ndarray:
    """Values at the given positions of an otherwise missing (NaN) series."""
    series = np.full(n, np.nan)
    series[columns] = values
    return series


def scatter_rows(values: np.ndarray | sp.csr_matrix, rows: np.ndarray, n: int) -> np.ndarray | sp.csr_matrix:
    """Values as the given rows of an otherwise empty matrix, sparse or dense as they are."""
    place = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), shape=(n, len(rows)))
    return sp.csr_matrix(place @ values) if sp.issparse(values) else np.asarray(place @ values)


def scatter_columns(values: Any, columns: np.ndarray, n_vars: int) -> Any:
    """Values as the given columns of an otherwise empty CSR matrix; of a dask array, a dask array of such blocks."""
    if hasattr(values, "map_blocks"):
        meta = sp.csr_matrix((0, 0), dtype=values.dtype)
        chunks = (values.chunks[0], (n_vars,))
        return values.map_blocks(scatter_columns, columns, n_vars, dtype=values.dtype, chunks=chunks, meta=meta)
    entries = sp.coo_matrix(values)
    return sp.csr_matrix((entries.data, (entries.row, columns[entries.col])), shape=(values.shape[0], n_vars))


def side_key(key_added: str, suffix: str) -> str:
    """Name of what a tool writes beside a code: ``"ae_weights"`` beside ``"X_ae"``, ``"mine_weights"`` beside ``"mine"``."""
    return f"{key_added.removeprefix('X_')}_{suffix}"


def numbered(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its rows numbered by strings, which anndata can write."""
    return table.set_axis([str(i) for i in range(len(table))], axis=0)
