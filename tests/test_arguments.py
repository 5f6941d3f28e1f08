"""Arguments are checked in one place, against annotations and ranges, before anything is done."""

from __future__ import annotations

import importlib
import inspect
import timeit
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import aeverse as ae
from aeverse._arguments import NOT_CHECKED, RANGES, checked

ROOMS = ("pp", "tl", "pl", "get", "datasets", "metrics")


def public() -> dict[str, object]:
    """Every public function, and the methods of the models that users call."""
    found = {
        f"{room}.{name}": getattr(module, name)
        for room in ROOMS
        for module in [importlib.import_module(f"aeverse.{room}")]
        for name in module.__all__
    }
    found["models.load"] = ae.models.load
    for model in (ae.models.Autoencoder, ae.models.MultimodalAutoencoder):
        found[f"models.{model.__name__}"] = model
        for name in (
            "fit",
            "encode",
            "decode",
            "score",
            "denoise",
            "dropouts",
            "sample",
            "predict",
            "weights",
            "to",
            "save",
        ):
            if hasattr(model, name):
                found[f"models.{model.__name__}.{name}"] = getattr(model(), name)
    return found


PUBLIC = public()
CASES = [
    (place, name, parameter.annotation)
    for place, function in PUBLIC.items()
    for name, parameter in inspect.signature(function).parameters.items()
    if name not in NOT_CHECKED
]


@pytest.mark.parametrize(("place", "name", "annotation"), CASES, ids=lambda value: str(value)[:40])
def test_every_argument_of_every_function_is_checked(place, name, annotation):
    with pytest.raises(TypeError) as error:
        PUBLIC[place](**{name: object()})
    assert str(error.value).startswith(f"{place}, argument {name}: found an object of the class object; pass ")


NUMBERS = [(place, name) for place, name, annotation in CASES if annotation.split(" |")[0] in ("int", "float")]


@pytest.mark.parametrize(("place", "name"), NUMBERS, ids=str)
def test_every_number_has_a_range(place, name):
    limits = RANGES[name]
    for value in (limits.low - 1, limits.high + 1, True, "1", np.nan, np.inf):
        with pytest.raises(
            (TypeError, ValueError), match=rf"^{place}, argument {name}: found .*; pass an? (integer|number)"
        ):
            PUBLIC[place](**{name: value})


@checked
def example(
    *,
    layer: str | None = None,
    genes: str | list[str] | None = None,
    n_latent: int = 3,
    p: float = 0.5,
    key_added: str = "x",
    path: str | Path = "",
    code: np.ndarray | None = None,
):
    """What is accepted."""


@pytest.mark.parametrize(
    "given",
    [
        {"layer": np.str_("a")},
        {"genes": "A"},
        {"genes": pd.Index(["A"])},
        {"genes": np.array(["A"])},
        {"genes": {"A"}},
        {"genes": pd.Series(["A"])},
        {"n_latent": np.int32(2)},
        {"p": np.float32(0.25)},
        {"path": Path("x")},
        {"code": [[1.0]]},
        {"code": pd.DataFrame()},
    ],
    ids=str,
)
def test_what_is_like_the_annotation_is_accepted(given):
    example(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": ["a"]}, r"found \['a'\]; pass a string or None\."),
        ({"layer": 5}, "found 5; pass a string or None"),
        ({"genes": []}, r"found \[\]; pass a string, a non-empty list of items that are each a string or None"),
        ({"genes": [1]}, r"found \[1\]"),
        ({"genes": {"a": "b"}}, "found {'a': 'b'}"),
        ({"n_latent": 2.0}, r"found 2\.0; pass an integer of at least 1"),
        ({"p": np.float32("nan")}, "found nan; pass a number above 0 and below 1"),
        ({"p": 1}, "found 1; pass"),
        ({"key_added": "a/b"}, "found 'a/b'; pass a name without '/'"),
        ({"key_added": ".."}, r"found '\.\.'"),
        ({"key_added": None}, "found None; pass a name"),
        ({"path": None}, "found None; pass a string that is not empty and has no NUL or a path"),
        ({"layer": "x" * 100, "n_latent": "x" * 100}, r"found 'x{56}\.\.\.; pass an integer"),
    ],
    ids=str,
)
def test_what_is_not_is_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=f"example, argument .*: {message}"):
        example(**given)


def test_messages_begin_with_the_function_that_was_called():
    adata = ae.datasets.simulate_counts(20, 10)
    with pytest.raises(KeyError, match=r"^\"tl\.denoise: 'nope' is not a column of obs"):
        ae.tl.denoise(adata, batch_key="nope")
    with pytest.raises(KeyError, match=r"^\"models\.Autoencoder\.fit: 'nope' is not a column"):
        ae.models.Autoencoder().fit(adata, batch_key="nope")
    with pytest.raises(ValueError, match=r"^tl\.denoise, argument n_latent: found 0"):
        ae.tl.denoise(adata, n_latent=0)
    adata.X.data[0] = -1
    with pytest.raises(ValueError, match=r"^tl\.denoise: adata\.X holds negative values"):
        ae.tl.denoise(adata)
    with pytest.raises(ValueError, match=r"^pp\.check_counts: adata\.X holds negative values"):
        ae.pp.check_counts(adata)


def test_errors_of_a_users_function_stay():
    def complain(history):
        raise ValueError("enough")

    with pytest.raises(ValueError, match=r"^enough$"):
        ae.models.Autoencoder(n_latent=2, n_models=1).fit(
            ae.datasets.simulate_counts(60, 10), callback=complain, progress=False
        )


def test_pythons_own_errors_stay():
    with pytest.raises(TypeError, match=r"example\(\) got an unexpected keyword argument 'color'"):
        example(color="red")
    with pytest.raises(TypeError, match=r"denoise\(\) missing 1 required positional argument: 'adata'"):
        ae.tl.denoise()


def test_a_call_is_not_slowed_down():
    example()
    assert min(timeit.repeat(lambda: example(layer="a", n_latent=2, p=0.3), number=100, repeat=20)) / 100 < 1e-4


@pytest.mark.parametrize("adata", [None, np.eye(3), [1], "file.h5ad"], ids=["None", "array", "list", "path"])
def test_what_is_no_anndata_is_one_clear_error(adata):
    for place, function in PUBLIC.items():
        first = next(iter(inspect.signature(function).parameters.values()), None)
        if first is not None and first.name in ("adata", "mdata", "data"):
            with pytest.raises(
                TypeError, match=rf"^{place}, argument {first.name}: found .*; pass an? (AnnData|MuData)"
            ):
                function(adata)
    with pytest.raises(TypeError, match=r"pass a MuData \(for one matrix there is aeverse.tl.embed\)"):
        ae.tl.multimodal_embed(ad.AnnData(np.eye(3)))
