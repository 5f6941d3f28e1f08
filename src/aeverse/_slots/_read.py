"""Reading an AnnData: the object to write to, matrices, counts, masks, columns of obs, names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse._runtime import warn
from aeverse._slots._words import unknown_as_nan

FEWEST_JUDGED = 20  # cells, or entries, below which counts are not called unusual
COMMON_GENES = ("ACTB", "GAPDH", "MALAT1", "B2M", "EEF1A1", "TMSB4X", "RPLP0", "RPL13A")
MAX_EXACT_COUNT = 2**24  # beyond it float32 no longer holds every integer


def writable_adata(adata, copy: bool):
    """The object that results go into: `adata` itself or, for ``copy=True``, a copy of it in memory."""
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise TypeError(f"expected an AnnData, found {type(adata).__name__}.")
    require_observations(adata)
    if copy:
        return adata.to_memory() if adata.isbacked else adata.copy()
    if adata.isbacked and adata.is_view:
        raise ValueError(
            "adata is a view of a file, which nothing can be written to; pass copy=True or adata.to_memory()."
        )
    return adata


def require_observations(data) -> None:
    """Refuse an object without a single cell or patient."""
    if data.n_obs == 0:
        raise ValueError(
            f"the {type(data).__name__} holds no observations: obs is empty, of shape {data.shape}; there is nothing to do."
        )


def writable_any(data, copy: bool):
    """As `target`, for tools that need observations only and so take an AnnData or a MuData."""
    from anndata import AnnData
    from mudata import MuData

    if isinstance(data, AnnData):
        return writable_adata(data, copy)
    if not isinstance(data, MuData):
        raise TypeError(f"expected an AnnData or a MuData, found {type(data).__name__}.")
    require_observations(data)
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


def read_features(data) -> np.ndarray:
    """All features of an AnnData or a MuData side by side, (observations, features), missing values at their means."""
    parts = getattr(data, "mod", {"X": data}).values()
    blocks = []
    for adata in parts:
        block = np.full((data.n_obs, adata.n_vars), np.nan)
        block[data.obs_names.get_indexer(adata.obs_names)] = dense(read_matrix(adata))
        blocks.append(block[:, np.isfinite(block).any(0)])
    values = np.hstack(blocks)
    return np.where(np.isfinite(values), values, np.nanmean(values, axis=0, where=np.isfinite(values)))


def matrix_name(layer: str | None) -> str:
    """Name of the matrix as a user would write it."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def layer_names(adata) -> list[str]:
    """Names of the layers; anndata 0.13 counts X among them, as None."""
    return sorted(name for name in adata.layers if name is not None)


def find_matrix(adata, layer: str | None = None) -> Any:
    """``X`` or a layer as it is stored. Never `.raw`."""
    if layer is not None and not isinstance(layer, str):  # of a MuData, for whose modalities there is a dict
        raise TypeError(f"layer={layer!r} must be the name of a layer of the AnnData, or None for adata.X.")
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"{matrix_name(layer)} does not exist; layers are: {layer_names(adata) or 'none'}.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        hint = f"pass layer=, one of {layer_names(adata)}" if layer_names(adata) else "fill it, or add a layer"
        raise ValueError(f"{matrix_name(layer)} is empty; {hint}.")
    return matrix


def in_memory(matrix: Any, layer: str | None) -> sp.csr_matrix | np.ndarray:
    """A matrix of numbers in memory: CSR for anything sparse (files and dask arrays too), else a dense array."""
    if hasattr(matrix, "to_memory"):  # a sparse matrix on disk
        matrix = matrix.to_memory()
    elif hasattr(matrix, "compute"):  # a dask array
        matrix = matrix.compute()
    if sp.issparse(matrix):
        matrix = matrix.tocsr()
        values = matrix.data
    else:
        if np.ma.is_masked(matrix):
            raise TypeError(f"{matrix_name(layer)} is a masked array; set what is missing to NaN: .filled(numpy.nan).")
        matrix = np.asarray(matrix)
        values = matrix
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool) or np.iscomplexobj(values):
        raise TypeError(f"{matrix_name(layer)} holds {values.dtype}, not numbers; convert it or pass another layer=.")
    return matrix


def read_matrix(adata, layer: str | None = None) -> sp.csr_matrix | np.ndarray:
    """Return ``X`` or a layer in memory, all of it. Never `.raw`."""
    return in_memory(find_matrix(adata, layer), layer)


def stored(matrix: Any) -> np.ndarray:
    """The entries that a matrix stores, all of them if it is dense."""
    return matrix.data if sp.issparse(matrix) else matrix


def require_float32(matrix: Any, where: str) -> None:
    """Refuse infinite values, and those that single precision would make infinite."""
    values = stored(matrix)
    largest = np.abs(values[~np.isnan(values)] if np.issubdtype(values.dtype, np.floating) else values).max(initial=0)
    if largest == np.inf:
        raise ValueError(f"{where} holds infinite values; set what is missing to NaN.")
    if largest > np.finfo(np.float32).max:
        raise ValueError(f"{where} holds values up to {largest:.4g}, beyond single precision; rescale them.")


def feature_names(adata) -> pd.Index:
    """Names of the features, as strings."""
    if isinstance(adata.var_names, pd.MultiIndex):
        raise TypeError("adata.var_names is a MultiIndex; join its levels to one name for each feature.")
    return pd.Index(adata.var_names.astype(str))


def dense(matrix: Any) -> np.ndarray:
    """A matrix as an array."""
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


def read_counts(adata, layer: str | None = None) -> sp.csr_matrix:
    """Return checked counts as a new float32 CSR matrix with sorted indices and no stored zeros."""
    return as_counts(read_matrix(adata, layer), adata, layer)


def as_counts(matrix: sp.csr_matrix | np.ndarray, adata, layer: str | None) -> sp.csr_matrix:
    """As `read_counts`, of a matrix in memory that was found in `adata`."""
    check_count_values(stored(matrix), adata, layer)
    counts = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def check_count_values(values: np.ndarray, adata, layer: str | None) -> None:
    """Raise a ValueError that names the place, what was found and what to do, unless all values are counts."""
    if values.size == 0:
        return
    complaint = None
    if not np.isfinite(values).all():
        complaint = "NaN or infinite values"
    elif values.min() < 0:
        complaint = f"negative values (minimum {values.min():.4g})"
    elif np.issubdtype(values.dtype, np.floating):
        broken = values[values != np.rint(values)]
        if broken.size:
            complaint = f"values that are not integers (such as {broken.flat[0]:.10g})"
    if complaint is None and float(values.max()) > MAX_EXACT_COUNT:
        complaint = f"values above {MAX_EXACT_COUNT} (maximum {values.max():.4g})"
    if complaint is not None:
        raise ValueError(
            f"{matrix_name(layer)} holds {complaint}, but this needs raw counts. {_counts_hint(adata, layer)}"
        )


def warn_of_unusual_counts(counts: sp.csr_matrix, adata, layer: str | None) -> None:
    """Warn of integers that are hardly counts of molecules in cells: doubled, rounded after normalization, transposed."""
    factor = 1 if (counts.data == 1).any() else int(np.gcd.reduce(counts.data.astype(np.int64)))
    if counts.nnz >= FEWEST_JUDGED and factor > 1:
        warn(f"{matrix_name(layer)}: all counts are multiples of {factor}; divide them by it if they were multiplied.")
    library = np.asarray(counts.sum(1), np.float64).ravel()
    if len(library) >= FEWEST_JUDGED and library.var() < library.mean() / 4:  # molecules vary by their mean, at least
        warn(
            f"{matrix_name(layer)}: all cells have nearly the same library size ({library.min():.0f} to {library.max():.0f}), as after "
            f"normalization and rounding; this needs raw counts. {_counts_hint(adata, layer)}"
        )
    if adata.n_vars < adata.n_obs and adata.obs_names.str.upper().isin(COMMON_GENES).any():
        warn("obs_names hold names of genes; cells must be rows: adata.T turns the object.")


def _counts_hint(adata, layer: str | None) -> str:
    for name in ("counts", "raw_counts", "raw", "spliced"):
        if name in adata.layers and name != layer:
            return f"Pass layer={name!r}, which exists here."
    if layer is not None and adata.X is not None:
        return "Choose another layer=, or layer=None for adata.X."
    return "Keep a copy before you normalize, adata.layers['counts'] = adata.X.copy(), and pass layer='counts'."


def read_mask(adata, mask_var: str | np.ndarray | None = "auto") -> np.ndarray | None:
    """Boolean mask of the features to read, all of them for None.

    ``"auto"`` is ``highly_variable`` where present, else None is returned: whoever reads the features chooses.
    """
    if mask_var is None:
        return np.ones(adata.n_vars, bool)
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


def read_column(obs: pd.DataFrame, key: str) -> pd.Series:
    """Column `key` of ``obs``, or an error that names the columns there are."""
    if key not in obs:
        raise KeyError(f"{key!r} is not a column of obs; columns are: {list(obs.columns)}.")
    return obs[key]


def in_memory_table(table: Any) -> pd.DataFrame:
    """``obs`` or ``var``; those of `anndata.experimental.read_lazy` are read from their file."""
    return table.to_memory() if hasattr(table, "to_memory") else table


def read_groups(obs: pd.DataFrame, key: str) -> pd.Series:
    """Column `key` of ``obs`` with groups; NaN where nothing is known, with a warning where words say that."""
    values = read_column(obs, key)
    groups = unknown_as_nan(values)
    unknown = values.notna() & groups.isna()
    if unknown.any():
        words = sorted({str(value) for value in values[unknown]})
        warn(
            f"obs[{key!r}] reads {words} in {int(unknown.sum())} of {len(obs)} rows, which is taken for unknown: they are left "
            "out. Rename it if it is a group."
        )
    return groups


def read_labels(data, label_key: str) -> pd.Categorical:
    """At least two known groups in a column of ``obs``, as words; missing where nothing is known."""
    if label_key not in data.obs:
        raise KeyError(f"label_key={label_key!r} is not a column of obs; columns are: {list(data.obs.columns)}.")
    values = unknown_as_nan(in_memory_table(data.obs)[label_key])
    labels = pd.Categorical(values.astype(object).map(str, na_action="ignore"))
    if len(labels.categories) < 2:
        raise ValueError(
            f"label_key={label_key!r}: obs[{label_key!r}] holds fewer than two known labels, {list(labels.categories)}; labels say "
            "what differs, so there must be two."
        )
    return labels


def read_categories(adata, key: str | None) -> pd.Categorical | None:
    """Categories of ``adata.obs[key]`` without unused levels; None for ``key=None``."""
    if key is None:
        return None
    if key not in adata.obs:
        raise KeyError(f"{key!r} is not a column of obs; columns are: {list(adata.obs.columns)}.")
    values = in_memory_table(adata.obs)[key]
    missing = int(values.isna().sum())
    if missing:
        raise ValueError(f"adata.obs[{key!r}] has {missing} missing values; fill them or leave those cells out.")
    return pd.Categorical(values.astype(str))


def read_covariate(adata, key: str, *, categorical: bool | None = None) -> pd.Categorical | np.ndarray:
    """Column `key` of ``obs`` as categories, or as numbers; `categorical` None: as its dtype is."""
    if key not in adata.obs:
        columns = list(adata.obs.columns)
        raise KeyError(
            f"{key!r} is not a column of obs; columns are: {columns}. batch_key= and covariates= name columns."
        )
    dtype = adata.obs[key].dtype
    is_number = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)
    if categorical or (categorical is None and not is_number):
        found = read_categories(adata, key)
        assert found is not None
        return found
    if not is_number:
        raise TypeError(f"obs[{key!r}] holds {dtype}; the model knows it as numbers.")
    values = in_memory_table(adata.obs)[key].to_numpy(np.float64, na_value=np.nan)
    if broken := int((~np.isfinite(values)).sum()):
        raise ValueError(f"obs[{key!r}] has {broken} missing or infinite values; fill them or leave those cells out.")
    return values


def name_list(names: Iterable[str] | str) -> list[str]:
    """Names as a list without repetitions; a single name is a list of one."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def positions(names: Iterable[str] | str, index: pd.Index, what: str = "genes") -> np.ndarray:
    """Positions of names in an index of unique names, refusing unknown ones."""
    names = [names] if isinstance(names, str) else list(names)
    unknown = [n for n in names if n not in index]
    if unknown:
        raise KeyError(
            f"{what} not found: {unknown[:5]}{' …' if len(unknown) > 5 else ''} ({len(unknown)} of {len(names)}); "
            f"there are {list(index[:3])}{' …' if len(index) > 3 else ''}."
        )
    if not index.is_unique:
        doubled = [n for n in names if (index == n).sum() > 1]
        if doubled:
            raise ValueError(f"{what} {doubled[:5]} occur more than once; call adata.var_names_make_unique() first.")
    return index.get_indexer(names) if index.is_unique else np.array([index.get_loc(n) for n in names])


def known_features(adata, model_names: pd.Index) -> list[str] | None:
    """The features of `adata` that a model knows, in the order of `adata`; None: all, in the model's own order."""
    names = adata.var_names.astype(str)
    if names.equals(model_names):
        return None
    matches = list(names[names.isin(model_names)])
    if len(matches) < len(names):
        warn(f"the model knows {len(matches)} of the {len(names)} features; the others are left empty.")
    return matches
