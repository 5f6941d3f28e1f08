"""What a tree of values must be like: types, shapes, ranges, names. Files and stored results are checked before use.

A schema is made of the small classes below, nested as the tree is. `check` says at which place a tree differs from it.
Sizes may have names, such as "features" in ``Array("f", ("features", "latent"))``: where a name comes first it may be any
number, from then on the same one. So nothing need be built to see that a file backs what its settings ask for.

>>> schema = Fields({"n_latent": Number(low=1, size="latent"), "loadings": Array("f", ("features", "latent"))})
>>> check({"n_latent": 2, "loadings": np.zeros((5, 2), "float32")}, schema)
{'latent': 2, 'features': 5}
>>> check({"n_latent": 10**6, "loadings": np.zeros((5, 2), "float32")}, schema)
Traceback (most recent call last):
    ...
ValueError: loadings: found an array of shape (5, 2); expected features x latent=1000000.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

KINDS = {"f": "floating-point numbers", "i": "integers", "b": "truth values"}
Sizes = dict[str, int]


class Schema(Protocol):
    """Anything that can check a value."""

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Raise a ValueError that names the place where a value is not as expected."""


def check(tree: Any, schema: Schema, *, place: str = "", sizes: Mapping[str, int] | None = None) -> Sizes:
    """Check a tree of values.

    Parameters
    ----------
    tree
        Values: None, texts, numbers, truth values, arrays; lists and mappings of them.
    schema
        What it must be like.
    place
        Where the tree comes from, for messages.
    sizes
        Sizes that are known already, by name.

    Returns
    -------
    All sizes, by name.

    Raises
    ------
    ValueError
        A value differs from the schema; the message names the place, what was found, and what was expected.
    """
    known = dict(sizes or {})
    schema.check(tree, place, known)
    return known


def _fail(place: str, found: str, expected: str) -> NoReturn:
    raise ValueError(f"{place or 'the tree'}: found {found}; expected {expected}.")


def _shown(value: Any) -> str:
    if isinstance(value, (str, bool, int, float, type(None))):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge integer"
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


def _at(place: str, name: str | int) -> str:
    return f"{place}.{name}" if place else str(name)


@dataclass(frozen=True)
class Number:
    """An integer or, with ``integer=False``, any number.

    Parameters
    ----------
    low, high
        Smallest and largest value.
    integer
        Whether it must be one.
    size
        Name of the size that it is.
    nan
        Whether it may be NaN.
    """

    low: float = -math.inf
    high: float = math.inf
    integer: bool = True
    size: str | None = None
    nan: bool = False

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check one value."""
        types = (int,) if self.integer else (int, float)
        expected = f"{'an integer' if self.integer else 'a number'} from {self.low:g} to {self.high:g}"
        if isinstance(value, bool) or not isinstance(value, types):
            _fail(place, _shown(value), expected)
        if not (self.nan and value != value) and not self.low <= value <= self.high:
            _fail(place, _shown(value), expected)
        if not self.integer and math.isinf(value):
            _fail(place, _shown(value), "a finite number")
        if self.size is not None and sizes.setdefault(self.size, int(value)) != value:
            _fail(place, _shown(value), f"{self.size}={sizes[self.size]}")


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check one value."""
        if not isinstance(value, bool):
            _fail(place, _shown(value), "True or False")


@dataclass(frozen=True)
class Text:
    """A text, one of `choices` where there are any."""

    choices: Collection[str] | None = None

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check one value."""
        if not isinstance(value, str):
            _fail(place, _shown(value), "a text")
        if self.choices is not None and value not in self.choices:
            _fail(place, _shown(value), f"one of {list(self.choices)}")


@dataclass(frozen=True)
class Array:
    """A numeric array.

    Parameters
    ----------
    kind
        ``"f"`` floating-point numbers, ``"i"`` integers, ``"b"`` truth values.
    shape
        A number, the name of a size, or None (any), for each axis.
    low, high
        Smallest and largest entry.
    below
        Name of a size, known already, that entries stay below: positions.
    nan
        Whether entries may be NaN; infinite ones never may.
    """

    kind: str
    shape: tuple[int | str | None, ...]
    low: float = -math.inf
    high: float = math.inf
    below: str | None = None
    nan: bool = False

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check one array."""
        if not isinstance(value, np.ndarray):
            _fail(place, _shown(value), "an array")
        if value.dtype.kind != self.kind and (self.kind, value.dtype.kind) != ("i", "u"):
            _fail(place, f"an array of {value.dtype}", KINDS[self.kind])
        self._check_shape(value, place, sizes)
        if self.kind == "f":
            if (np.isinf(value) if self.nan else ~np.isfinite(value)).any():
                _fail(place, "entries that are not finite", "finite ones")
            value = value[~np.isnan(value)]
        if self.kind == "b" or not value.size:
            return
        low, high = value.min(), value.max()
        top = self.high if self.below is None else min(self.high, sizes[self.below] - 1)
        if low < self.low or high > top:
            _fail(place, f"entries from {low:g} to {high:g}", f"from {self.low:g} to {top:g}")

    def _check_shape(self, value: np.ndarray, place: str, sizes: Sizes) -> None:
        named = [sizes.get(n, n) if isinstance(n, str) else n for n in self.shape]
        right = len(named) == value.ndim and all(
            isinstance(n, str) or n is None or n == length for n, length in zip(named, value.shape, strict=True)
        )
        if right:  # a name twice, of one size that is new
            right = all(
                sizes.setdefault(n, length) == length
                for n, length in zip(self.shape, value.shape, strict=True)
                if isinstance(n, str)
            )
        if not right:
            axes = [f"{n}={sizes[n]}" if n in sizes else "any" if n is None else str(n) for n in self.shape]
            _fail(place, f"an array of shape {value.shape}", " x ".join(axes) or "a single number")


@dataclass(frozen=True)
class Anything:
    """What is checked elsewhere."""

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Nothing to check."""


@dataclass(frozen=True)
class Apart:
    """What `schema` says; sizes that are new in here have no name outside."""

    schema: Schema

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check with sizes that are forgotten afterwards."""
        self.schema.check(value, place, dict(sizes))


@dataclass(frozen=True)
class Maybe:
    """None, or what `schema` says."""

    schema: Schema

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check what is not None."""
        if value is not None:
            self.schema.check(value, place, sizes)


@dataclass(frozen=True)
class Either:
    """A text that one schema allows, or anything else that the other does."""

    text: Text
    other: Schema

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check by the one or the other."""
        (self.text if isinstance(value, str) else self.other).check(value, place, sizes)


@dataclass(frozen=True)
class Items:
    """A list of values that are all alike; `size` is the name of its length, or the length."""

    schema: Schema
    size: str | int | None = None

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check each item."""
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            _fail(place, _shown(value), "a list")
        length = sizes.setdefault(self.size, len(value)) if isinstance(self.size, str) else self.size
        if length is not None and len(value) != length:
            name = f"{self.size}=" if isinstance(self.size, str) else ""
            _fail(place, f"{len(value)} items", f"{name}{length}")
        for i, item in enumerate(value):
            self.schema.check(item, _at(place, i), sizes)


@dataclass(frozen=True)
class Entries:
    """A mapping from any names to values that are all alike; `size` is the name of how many there are."""

    schema: Schema
    size: str | None = None

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check each entry."""
        if not isinstance(value, Mapping):
            _fail(place, _shown(value), "a mapping")
        if self.size is not None and sizes.setdefault(self.size, len(value)) != len(value):
            _fail(place, f"{len(value)} entries", f"{self.size}={sizes[self.size]}")
        for name, item in value.items():
            self.schema.check(item, _at(place, name), sizes)


@dataclass(frozen=True)
class Fields:
    """A mapping with these names: all of `required`, any of `optional`, no others. They are checked in this order."""

    required: Mapping[str, Schema]
    optional: Mapping[str, Schema] | None = None

    def check(self, value: Any, place: str, sizes: Sizes) -> None:
        """Check each field."""
        if not isinstance(value, Mapping):
            _fail(place, _shown(value), "a mapping")
        schemas = {**self.required, **(self.optional or {})}
        if absent := [name for name in self.required if name not in value]:
            _fail(place, f"no {absent[0]!r}", f"the fields {list(self.required)}")
        if unknown := [name for name in value if name not in schemas]:
            _fail(place, f"a field {str(unknown[0])[:60]!r}", f"only {list(schemas)}")
        for name, schema in schemas.items():
            if name in value:
                schema.check(value[name], _at(place, name), sizes)
