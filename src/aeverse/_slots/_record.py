"""The records of earlier calls in ``uns["ae"]``, and what every new one holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# Arguments of a tool that its record leaves out: the data, the name of the record itself, and what changes no result.
NOT_RECORDED = ("adata", "mdata", "data", "key_added", "progress", "copy", "lazy", "save_model")


def read_record(data, name: str) -> Mapping[str, Any]:
    """Return ``uns["ae"][name]`` or say which records exist."""
    store = data.uns.get("ae", {})
    if not isinstance(store, Mapping) or not isinstance(store.get(name, {}), Mapping):
        raise ValueError(f"uns['ae'] or its entry {name!r} is not what aeverse wrote; run the tool again.")
    if name not in store:
        raise KeyError(
            f"uns['ae'][{name!r}] does not exist; records are: {sorted(store) or 'none: run aeverse.tl first'}."
        )
    return store[name]


def embedding_model(data, use_rep: str) -> str | None:
    """Checksum of the model that gave ``obsm[use_rep]``, where a record holds it."""
    for record in data.uns.get("ae", {}).values():
        if f"obsm/{use_rep}" in {str(key) for key in record.get("writes", ())}:
            checksum = record.get("model_checksum", record.get("model", {}).get("checksum"))
            return None if checksum is None else str(checksum)
    return None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    return {package: version(package) for package in ("aeverse", "anndata", "numpy", "scipy", "torch")}


def parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a tool, its ``locals()`` at the first line, as ``uns["ae"][key]["params"]`` keeps them.

    Models and data are named by their class, files by their path, gene sets and other mappings of lists by their names.
    """
    return {name: _described(value) for name, value in arguments.items() if name not in NOT_RECORDED}


def _described(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int, float, np.ndarray, np.generic)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, pd.DataFrame):
        return f"table of {len(value)} rows"
    if isinstance(value, Mapping):
        flat = all(v is None or isinstance(v, (str, np.ndarray)) for v in value.values())
        return dict(value) if flat else [str(name) for name in value]
    if isinstance(value, (list, tuple, set, pd.Index, pd.Series)):
        return [str(v) if not isinstance(v, (bool, int, float, np.number)) else v for v in value]
    return type(value).__name__
