"""One check of all arguments: their types are read from the annotations, their ranges from a table by name.

The same name means the same thing in every function, so that `RANGES` says once what it may be.

>>> @checked
... def smooth(adata: np.ndarray, *, n_neighbors: int = 15, kind: Literal["mean", "median"] = "mean"): ...
>>> smooth(np.eye(2), n_neighbors=0)
Traceback (most recent call last):
    ...
ValueError: smooth, argument n_neighbors: found 0; pass an integer of at least 1.
>>> smooth(np.eye(2), kind="mode")
Traceback (most recent call last):
    ...
ValueError: smooth, argument kind: found 'mode'; pass 'mean' or 'median'.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; with ``open_low`` or ``open_high`` that end is not among them."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: Any) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(above and below and abs(value) < math.inf)  # NaN is in no range

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f"{'above' if self.open_low else 'of at least'} {self.low:g}"
        high = "" if self.high == math.inf else f"{'below' if self.open_high else 'at most'} {self.high:.16g}"
        return " and ".join(part for part in (low, high) if part)


AT_LEAST_1, POSITIVE = Range(1), Range(0, open_low=True)
LARGEST_SIDE = 2**31 - 1  # rows or columns of a matrix that SciPy indexes with 32 bits
SHARE = Range(0, 1, open_low=True, open_high=True)
RANGES: dict[str, Range] = {
    # how many, how large
    **dict.fromkeys(("n_latent", "n_hidden", "n_models"), Range(1, 100_000)),  # beyond, nothing holds the weights
    **dict.fromkeys(("n_inputs", "n_neighbors", "n_clusters", "n_top"), AT_LEAST_1),
    **dict.fromkeys(("n_obs", "n_vars", "n_types", "n", "n_subtypes"), Range(1, LARGEST_SIDE)),
    "max_subtypes": Range(2),
    "n_resamples": Range(10, 100_000),  # fewer cannot tell what is stable
    "n_splits": Range(2, 10_000),
    **dict.fromkeys(("target_sum", "library_size"), Range(0, 1e15, open_low=True)),  # molecules
    "library": Range(0, 1e15),
    "dispersion": Range(1e-6, 1e9),
    "resolution": POSITIVE,
    "depth": Range(1, 1e9, open_low=True),  # multiples of a cell's own depth
    # pictures
    **dict.fromkeys(("ncols", "n_points"), AT_LEAST_1),
    **dict.fromkeys(("size", "figsize"), Range(0, 1e6, open_low=True)),
    "expression_cutoff": Range(0),
    # training
    **dict.fromkeys(("max_epochs", "max_steps", "n_steps", "batch_size", "patience"), AT_LEAST_1),
    **dict.fromkeys(("learning_rate", "prior_precision"), POSITIVE),
    "strength": Range(0),
    "random_state": Range(0, 2**32 - 1),  # what numpy, scikit-learn and lifelines take
    # shares
    **dict.fromkeys(("p", "share_heldout", "target_activity", "alpha"), SHARE),
    "share_calibration": Range(0, 0.5),
    "share_absent": Range(0, 1, open_high=True),
    "threshold": Range(0, 1),
}
NOT_CHECKED = ("self", "ax", "palette")  # how many Axes there must be, and what is a color, the plots know
MAY_BE_EMPTY = ("transfer", "regularizer", "n_hidden")  # lists of names or numbers; others need one at least
PATHS = ("path", "save", "save_model", "checkpoint")  # where a string names a file
LIBRARY_CLASSES = {
    "AnnData": "anndata",
    "MuData": "mudata",
    "Colormap": "matplotlib.colors",
}  # annotations of classes that are not imported for them
OTHER_OBJECT = {
    ("MuData", "AnnData"): "for one matrix there is aeverse.tl.embed",
    ("AnnData", "MuData"): "for several modalities there is aeverse.tl.multimodal_embed, for one of them mdata['name']",
}


def checked(function: Function) -> Function:
    """Check the arguments of each call against the annotations of `function` and the ranges of their names.

    Raises, before anything is done, a TypeError (another type) or a ValueError (not among the choices, out of range, empty)
    that says where, what was found, and what to pass. The messages of later errors begin with the function that was called.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        parameters = _parameters(function)
        owner = args[0] if "self" in parameters else None
        outermost = not _called.get()
        before = _called.set(place_of(function, owner) if outermost else _called.get())
        try:
            for name, value in (*zip(parameters, args, strict=False), *kwargs.items()):
                if parameters.get(name):  # an unknown name is Python's own error, from the call below
                    _check(function, name, value, parameters[name], owner=owner)
            return function(*args, **kwargs)
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            if outermost and _is_ours(error):
                _begin_with(error, _called.get())
            raise
        finally:
            _called.reset(before)

    return call  # type: ignore[return-value] # of the same signature


def checked_methods(estimator: type[Class]) -> type[Class]:
    """Check the arguments of the constructor and of all public methods that a class defines."""
    for name, method in list(vars(estimator).items()):
        if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
            setattr(estimator, name, checked(method))
    return estimator


def check_fields(config: Any) -> None:
    """Check the fields of a dataclass likewise."""
    function = type(config).__init__
    for name, kinds in _parameters(function).items():
        if kinds:
            _check(function, name, getattr(config, name), kinds, owner=config)


def check_name(name: str, value: str) -> None:
    """Refuse the name of a result that h5ad or zarr could not hold."""
    if not _is_storable(value):
        raise ValueError(f"argument {name}: found {value!r}; pass {STORABLE}.")


def place_of(function: Callable[..., Any], owner: Any = None) -> str:
    """A public function as users write it: ``tl.denoise``, ``models.Autoencoder.fit``; of a method, `owner` is the object."""
    name = (
        function.__name__ if owner is None else f"{type(owner).__name__}.{function.__name__}".removesuffix(".__init__")
    )
    module = function.__module__
    return f"{module.split('.')[1]}.{name}" if module.startswith("aeverse.") else name


# ---- kinds of values -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kind:
    """One of the kinds of values that an argument may be."""

    words: str
    is_type: Callable[[Any], bool]
    is_allowed: Callable[[Any], bool] = lambda value: True


Kinds = tuple[Kind, ...]
STORABLE = "a name without '/' and NUL, other than '', '.' and '..'"


def _is_storable(value: str) -> bool:
    return value not in ("", ".", "..") and "/" not in value and "\0" not in value


@functools.cache
def _parameters(function: Callable[..., Any]) -> dict[str, Kinds]:
    """Name -> kinds, in order; no kind: anything."""
    scope = inspect.unwrap(function).__globals__
    return {
        name: () if name in NOT_CHECKED else _kinds(_evaluated(parameter.annotation, scope), name)
        for name, parameter in inspect.signature(function).parameters.items()
    }


class _Names(dict):
    """Names of an annotation: those that only type checkers import are classes that stand for them."""

    def __missing__(self, name: str) -> type:
        if name in LIBRARY_CLASSES:
            return type(name, (), {"__module__": LIBRARY_CLASSES[name]})
        raise KeyError(name)


def _evaluated(annotation: Any, scope: Mapping[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    return eval(annotation, dict(scope), _Names()) if isinstance(annotation, str) else annotation


def _kinds(annotation: Any, name: str) -> Kinds:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return ()
    if origin in (Union, types.UnionType):
        parts = [_kinds(part, name) for part in inner]
        return () if () in parts else tuple(dict.fromkeys(kind for part in parts for kind in part))
    if origin is Literal:
        return (Kind(" or ".join(map(repr, inner)), lambda v: isinstance(v, str), lambda v: v in inner),)
    if origin is Callable:
        return (Kind("a function", callable),)
    if origin is not None and issubclass(origin, Mapping):
        return (_mapping(_kinds(inner[1], name)),)
    if origin is not None:
        return (_sequence(_kinds(inner[0], name), may_be_empty=name in MAY_BE_EMPTY),)
    return (_single(annotation, name),)


def _single(annotation: Any, name: str) -> Kind:
    limits = RANGES.get(name, Range())
    within = f" {limits}" if str(limits) else ""
    if annotation in (None, type(None)):
        return Kind("None", lambda v: v is None)
    if annotation is bool:
        return Kind("True or False", lambda v: isinstance(v, (bool, np.bool_)))
    if annotation is int:
        return Kind(f"an integer{within}", lambda v: _is_number(v, numbers.Integral), lambda v: v in limits)
    if annotation is float:
        return Kind(f"a number{within}", lambda v: _is_number(v, numbers.Real), lambda v: v in limits)
    if annotation is str and name == "key_added":
        return Kind(STORABLE, lambda v: isinstance(v, str), _is_storable)
    if annotation is str and name in PATHS:
        return Kind(
            "a string that is not empty and has no NUL", lambda v: isinstance(v, str), lambda v: v and "\0" not in v
        )
    if annotation is str:
        return Kind("a string", lambda v: isinstance(v, str))
    if annotation is Path:
        return Kind("a path", lambda v: isinstance(v, os.PathLike))
    if annotation is np.ndarray:
        return Kind("an array", _is_array)
    words = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return Kind(f"{'an' if words[0] in 'AEIOU' else 'a'} {words}", lambda v: _is_instance(v, annotation))


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, (bool, np.bool_))


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or isinstance(value, (list, tuple))


def _is_instance(value: Any, annotation: type) -> bool:
    """Whether a value is of a class; of a class that only type checkers import, without importing it."""
    if LIBRARY_CLASSES.get(annotation.__name__) != annotation.__module__:
        return isinstance(value, annotation)
    library = sys.modules.get(annotation.__module__)  # while that is not loaded, nothing can be of the class
    return library is not None and isinstance(value, getattr(library, annotation.__name__))


def _mapping(kinds: Kinds) -> Kind:
    def is_type(value: Any) -> bool:
        named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
        return named and (not kinds or all(_of_type(kinds, v) for v in value.values()))

    def is_allowed(value: Any) -> bool:
        return not kinds or all(_is_right(kinds, v) for v in value.values())

    return Kind(f"a dict by name{f' whose values are each {_words(kinds)}' if kinds else ''}", is_type, is_allowed)


def _sequence(kinds: Kinds, *, may_be_empty: bool) -> Kind:
    """Lists, tuples, sets, arrays, indices, iterators."""

    def is_type(value: Any) -> bool:
        if isinstance(value, Iterator):  # can be gone through only once, by whoever asked for it
            return True
        is_list = isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping))
        return is_list and getattr(value, "ndim", 1) == 1 and (not kinds or all(_of_type(kinds, v) for v in value))

    def is_allowed(value: Any) -> bool:
        if isinstance(value, Iterator):
            return True
        return (may_be_empty or len(value) > 0) and (not kinds or all(_is_right(kinds, v) for v in value))

    inner = f" of items that are each {_words(kinds)}" if kinds else ""
    return Kind(f"a {'' if may_be_empty else 'non-empty '}list{inner}", is_type, is_allowed)


def _of_type(kinds: Kinds, value: Any) -> list[Kind]:
    return [kind for kind in kinds if kind.is_type(value)]


def _is_right(kinds: Kinds, value: Any) -> bool:
    return any(kind.is_allowed(value) for kind in _of_type(kinds, value))


def _words(kinds: Kinds) -> str:
    *first_words, last = [kind.words for kind in kinds]
    return f"{', '.join(first_words)} or {last}" if first_words else last


# ---- messages ------------------------------------------------------------------------------------------------------
_called: ContextVar[str] = ContextVar("_called", default="")  # the public function that the user called


def _is_ours(error: Exception) -> bool:
    """Whether our code raised an error: not a library, nor a function that the user passed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).split(".")[0] == "aeverse"


def _begin_with(error: Exception, place: str) -> None:
    if len(error.args) == 1 and isinstance(error.args[0], str) and not error.args[0].startswith(place):
        error.args = (f"{place}: {error.args[0]}",)


def _check(function: Callable[..., Any], name: str, value: Any, kinds: Kinds, *, owner: Any) -> None:
    if _is_right(kinds, value):
        return
    message = f"{place_of(function, owner)}, argument {name}: found {_shown(value)}; pass {_words(kinds)}"
    raise (ValueError if _of_type(kinds, value) else TypeError)(f"{message}{_hint(value, kinds)}.")


def _hint(value: Any, kinds: Kinds) -> str:
    for (expected_kind, actual_kind), hint in OTHER_OBJECT.items():
        if actual_kind == type(value).__name__ and any(kind.words.endswith(expected_kind) for kind in kinds):
            return f" ({hint})"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, (str, bytes, int, float, list, tuple, set, dict, type(None), np.generic, Path)):
        text = repr(value.item() if isinstance(value, np.generic) else value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    shape = getattr(value, "shape", None)
    return f"an object of the class {type(value).__name__}{'' if shape is None else f' and the shape {shape}'}"
