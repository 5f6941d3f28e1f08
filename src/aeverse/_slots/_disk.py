"""Files of AnnData whose large matrices stay on disk, from opening to writing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aeverse import _runtime
from aeverse._slots import _stored

if TYPE_CHECKING:
    from anndata import AnnData

CHUNK_ENTRIES = 4_000_000  # of a sparse matrix that are written at once: every time costs, with anndata's default of 1,000 rows most
IN_MEMORY = ("obs", "var", "obsm", "varm", "obsp", "varp", "uns")


def open_file(path: Path) -> AnnData:
    """The AnnData of an .h5ad or .zarr; large matrices stay in the file where dask is there to write them again."""
    import anndata

    store = _open(path)
    if not ({"X", "obs", "var"} <= set(store) and _has_large(store) and _runtime.has_dask()):
        if hasattr(store, "close"):
            store.close()
        return anndata.read_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)
    parts: dict[str, Any] = {name: anndata.io.read_elem(store[name]) for name in IN_MEMORY if name in store}
    layers = store.get("layers", {})
    parts["layers"] = {name: _matrix(layers[name]) for name in layers}
    if "raw" in store and hasattr(raw := store["raw"], "keys"):  # in a zarr, nothing is an element, too
        annotations = {name: anndata.io.read_elem(raw[name]) for name in ("var", "varm") if name in raw}
        parts["raw"] = {"X": _lazy(raw["X"]), **annotations}
    return anndata.AnnData(_matrix(store["X"]), **parts)


def write_file(adata: AnnData, path: Path) -> None:
    """Write an .h5ad or .zarr, matrices on disk and lazy layers block by block."""
    if hasattr(adata.X, "to_memory"):
        adata.X = _lazy(adata.X.group)
    for name, layer in adata.layers.items():
        if name is not None and hasattr(layer, "to_memory"):
            adata.layers[name] = _lazy(layer.group)
    if path.suffix == ".h5ad":
        adata.write_h5ad(path, compression="gzip", compression_opts=1)
    else:
        adata.write_zarr(path)


def _open(path: Path) -> Any:
    """The file, for reading; nothing where it is not one, which whoever reads it will say."""
    try:
        if path.suffix == ".h5ad":
            import h5py

            return h5py.File(path, "r")
        import zarr

        return zarr.open_group(str(path), mode="r")
    except (OSError, ValueError):
        return {}


def _has_large(store: Any) -> bool:
    return any(_size(matrix) > _stored.LARGEST_READ for matrix in (store["X"], *dict(store.get("layers", {})).values()))


def _size(element: Any) -> int:
    """Entries that a matrix in a file stores."""
    values = element if hasattr(element, "shape") else element["data"]
    return int(np.prod(values.shape, dtype=np.int64))


def _matrix(element: Any) -> Any:
    """A matrix of a file: in memory if it is small or stored by genes, else what reads the cells that are asked for."""
    import anndata

    if _size(element) <= _stored.LARGEST_READ or element.attrs.get("encoding-type") == "csc_matrix":
        return anndata.io.read_elem(element)
    return _lazy(element) if hasattr(element, "shape") else anndata.io.sparse_dataset(element)


def _lazy(element: Any) -> Any:
    """A matrix of a file as a dask array."""
    from anndata import experimental

    read = getattr(experimental, "read_elem_lazy", None) or experimental.read_elem_as_dask  # anndata 0.11
    if hasattr(element, "shape"):
        return read(element)
    (n, p), size = element.attrs["shape"], max(_size(element), 1)
    if element.attrs["encoding-type"] == "csc_matrix":
        return read(element, chunks=(n, max(1, p * CHUNK_ENTRIES // size)))
    return read(element, chunks=(max(1, n * CHUNK_ENTRIES // size), p))
