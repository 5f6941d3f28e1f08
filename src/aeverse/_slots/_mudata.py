"""Reading a MuData: its modalities, without what they lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse._slots._read import (
    dense,
    feature_names,
    matrix_name,
    name_list,
    read_mask,
    read_matrix,
    require_float32,
    require_observations,
    stored,
)

FEWEST_COMMON = 5  # cells that two modalities must share to be embedded together


@dataclass(frozen=True)
class Modality:
    """What one modality of a MuData measured: rows that are there, float32; entries that are missing are NaN."""

    x: sp.csr_matrix | np.ndarray
    rows: np.ndarray  # positions in mdata.obs
    names: pd.Index
    mask: np.ndarray | None  # features that the encoder reads; None: the model decides


def writable_mudata(mdata, copy: bool):
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
    covered = np.zeros(mdata.n_obs, bool)
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
        covered[where] = True
    if not covered.all():
        raise ValueError(
            f"{(~covered).sum()} cells of mdata.obs are in no modality: it is out of date. Call mdata.update()."
        )
    require_observations(mdata)
    return mdata.copy() if copy else mdata


def read_modalities(
    mdata,
    modalities: Sequence[str] | None = None,
    layer: Mapping[str, str | None] | None = None,
    mask_var: Mapping[str, str | np.ndarray | None] | None = None,
) -> dict[str, Modality]:
    """Read some modalities of a MuData (None: all) without their empty rows (NaN in every feature).

    `layer` and `mask_var` say it for some modalities; the others are read from ``X``, with the mask ``"auto"``.
    """
    if isinstance(layer, str):
        raise TypeError(
            f"layer={layer!r} must be a dict from modality to layer, such as {{{next(iter(mdata.mod))!r}: {layer!r}}}."
        )
    layer, mask_var = dict(layer or {}), dict(mask_var or {})
    selection = list(mdata.mod) if modalities is None else name_list(modalities)
    for argument, names in (("modalities", selection), ("layer", layer), ("mask_var", mask_var)):
        if unknown := [name for name in names if name not in mdata.mod]:
            raise KeyError(f"{argument} names {unknown}, but the modalities are {list(mdata.mod)}.")
    return {name: _read_modality(mdata, name, layer.get(name), mask_var.get(name, "auto")) for name in selection}


def masks_of(mdata, mask_var: str | Mapping[str, str | np.ndarray | None] | None) -> dict[str, Any]:
    """What `read_modalities` takes, of a mask for every modality (``"auto"``, None: all features) or for some."""
    if isinstance(mask_var, Mapping):
        return dict(mask_var)
    if mask_var is not None and mask_var != "auto":
        raise TypeError(f"mask_var={mask_var!r} must be 'auto', None, or a dict from modality to mask.")
    return dict.fromkeys(mdata.mod, mask_var)


def as_modality(adata, layer: str | None, mask_var: str | np.ndarray | None) -> Modality:
    """An AnnData as the only modality there is, as it is stored."""
    mask, x = read_mask(adata, mask_var), read_matrix(adata, layer)
    require_float32(x, matrix_name(layer))
    if not np.isfinite(stored(x)).any():
        raise ValueError(
            f"{matrix_name(layer)} holds no value other than NaN (shape {x.shape}); there is nothing to embed."
        )
    return Modality(x, np.arange(adata.n_obs), feature_names(adata), mask)


def require_linked(data: Mapping[str, Modality]) -> None:
    """Refuse modalities that no cells in common link to each other (diagonal data), saying what is needed."""
    linked, waiting = {next(iter(data))}, set(data) - {next(iter(data))}
    while waiting:
        near = {b for b in waiting for a in linked if len(np.intersect1d(data[a].rows, data[b].rows)) >= FEWEST_COMMON}
        if not near:
            raise ValueError(
                f"modalities {sorted(linked)} and {sorted(waiting)} have fewer than {FEWEST_COMMON} cells in common: nothing "
                "says which cells of the one are like which of the other. Add cells measured in both (a bridge), with the "
                "same obs_names in both modalities, or embed them one by one with modalities=."
            )
        linked, waiting = linked | near, waiting - near


def _read_modality(mdata, name: str, layer: str | None, mask_var) -> Modality:
    adata = mdata.mod[name]
    try:
        x = read_matrix(adata, layer)
        mask = read_mask(adata, mask_var)
        require_float32(x, matrix_name(layer))
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f"modality {name!r}: {error.args[0]}") from error
    if x.shape[1] == 0:
        raise ValueError(f"modality {name!r} has no feature; leave it out with modalities=.")
    if sp.issparse(x) and not np.isnan(stored(x)).any():
        x = sp.csr_matrix(x, dtype=np.float32)
    else:
        x = np.asarray(dense(x), np.float32)
    rows = mdata.obs_names.get_indexer(adata.obs_names)
    if not sp.issparse(x) and (empty := np.isnan(x).all(1)).any():
        x, rows = x[~empty], rows[~empty]
    return Modality(x, rows, feature_names(adata), mask)
