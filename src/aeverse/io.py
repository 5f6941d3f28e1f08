"""Model files: one file of arrays (safetensors) with a JSON header and a checksum. Loading one runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aeverse import _files
from aeverse._arguments import checked

FORMAT = 3
"""Version of the file format that this release reads and writes."""
ARRAY = "$array"
"""Key of a reference to an array in what `pack` makes of a tree."""

__all__ = ["FORMAT", "load_arrays", "pack", "save_arrays", "unpack"]


@checked
def save_arrays(path: str | Path, kind: str, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and a JSON configuration to one file, completely or not at all.

    Parameters
    ----------
    path
        File to write; an existing file is replaced.
    kind
        What the file holds, such as ``"Autoencoder"``; `load_arrays` refuses a file of another kind.
    config
        Anything JSON can hold.
    arrays
        Numeric arrays by name.

    Examples
    --------
    >>> import numpy as np, tempfile, os, aeverse as ae
    >>> path = os.path.join(tempfile.mkdtemp(), "a.ae")
    >>> ae.io.save_arrays(path, "Example", {"a": 1}, {"x": np.zeros(3)})
    >>> ae.io.load_arrays(path, "Example")[0]
    {'a': 1}
    """
    from safetensors.numpy import save

    _files.refuse_folder(path)
    arrays = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    header = {"format": FORMAT, "kind": kind, "config": config}
    text = json.dumps({**header, "sha256": _checksum(header, arrays)})  # one entry: several have no fixed order
    payload = save(arrays, metadata={"aeverse": text})
    with _files.replacing(path) as new:
        new.write_bytes(payload)


@checked
def load_arrays(path: str | Path, kind: str | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Read what `save_arrays` wrote.

    Parameters
    ----------
    path
        File to read.
    kind
        Expected content; ``None`` takes any.

    Returns
    -------
    The configuration, the arrays by name, and the kind.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no aeverse file, is damaged, was written in another format, or holds another kind.

    Examples
    --------
    See `save_arrays`.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No model file at {str(path)!r}.")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{str(path)!r} is not an aeverse model or is truncated ({error}).") from error
    if "aeverse" not in metadata:
        raise ValueError(f"{str(path)!r} is a safetensors file, but not one that aeverse wrote.")
    found_kind, config = _read_header(metadata["aeverse"], arrays, path)
    if kind is not None and found_kind != kind:
        raise ValueError(f"{str(path)!r} holds {found_kind!r}, not {kind!r}; use aeverse.models.load.")
    return config, arrays, found_kind


@checked
def pack(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Take a tree of JSON values and arrays apart: for `save_arrays`.

    Parameters
    ----------
    tree
        Nested dicts and lists of arrays and of what JSON can hold. A dict in it must not have the one key ``"$array"``.

    Returns
    -------
    The tree with a reference in the place of each array, and the arrays by the path that leads to them.

    Examples
    --------
    >>> import numpy as np, aeverse as ae
    >>> header, arrays = ae.io.pack({"a": 1, "b": {"x": np.zeros(3)}})
    >>> header, list(arrays)
    ({'a': 1, 'b': {'x': {'$array': 'b.x'}}}, ['b.x'])
    >>> ae.io.unpack(header, arrays)["b"]["x"].shape
    (3,)
    """
    arrays: dict[str, np.ndarray] = {}

    def walk(node: Any, path: str) -> Any:
        below = f"{path}." if path else ""
        if isinstance(node, Mapping):
            return {str(key): walk(value, f"{below}{key}") for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [walk(value, f"{below}{i}") for i, value in enumerate(node)]
        if not isinstance(node, np.ndarray):
            return node
        while path in arrays:  # keys may hold dots
            path += "'"
        arrays[path] = node
        return {ARRAY: path}

    return walk(tree, ""), arrays


@checked
def unpack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The tree that `pack` took apart; tuples have become lists.

    Parameters
    ----------
    header, arrays
        As from `pack`, or from `load_arrays`.

    Raises
    ------
    KeyError
        An array is missing.

    Examples
    --------
    See `pack`.
    """

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(value) for value in node]
        if not isinstance(node, Mapping):
            return node
        return arrays[node[ARRAY]] if [*node] == [ARRAY] else {key: walk(value) for key, value in node.items()}

    return {key: walk(value) for key, value in header.items()}


def _read_header(text: str, arrays: Mapping[str, np.ndarray], path: Path) -> tuple[str, dict[str, Any]]:
    """Kind and configuration, where the header and the arrays are as they were written."""
    try:
        header = json.loads(text)
        version, kind, config = header["format"], header["kind"], header["config"]
        checksum = header.pop("sha256", None)
        right = checksum == _checksum(header, arrays)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is a safetensors file, but not one that aeverse wrote.") from error
    if type(version) is int and version != FORMAT:
        remedy = "Update aeverse." if version > FORMAT else "Fit the model again and save it."
        raise ValueError(f"{str(path)!r} has format {version}; this aeverse reads format {FORMAT}. {remedy}")
    if not right:
        raise ValueError(f"{str(path)!r} is damaged: its content does not match its checksum. Copy or save it again.")
    if type(version) is not int or type(kind) is not str or type(config) is not dict or len(header) != 3:
        raise ValueError(f"{str(path)!r} is damaged: its header is not that of an aeverse file.")
    return kind, config


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the header and of the name, type, shape and content of each array."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.str, arrays[name].shape]).encode())
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
