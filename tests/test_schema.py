"""Schemas of files and stored results: each says at which place a tree is not as expected."""

import math

import numpy as np
import pytest

from aeverse._schema import Array, Either, Entries, Fields, Flag, Items, Maybe, Number, Text, check

SCHEMA = Fields(
    {
        "n_latent": Number(low=1, size="latent"),
        "likelihood": Text(("nb", "poisson")),
        "regularizer": Maybe(Either(Text(("sparse",)), Items(Text(("sparse", "graph"))))),
        "rate": Number(low=0, integer=False),
        "loss": Items(Number(integer=False, nan=True)),
        "names": Items(Text(), "features"),
        "inputs": Array("i", ("inputs",), low=0, below="features"),
        "members": Items(Fields({"loadings": Array("f", ("features", "latent"))}), "models"),
        "square": Array("f", ("side", "side"), nan=True),
    },
    {"labels": Entries(Array("i", ("samples",), low=-1)), "used": Flag()},
)


def tree(**changes):
    return {
        "n_latent": 2,
        "likelihood": "nb",
        "regularizer": ["sparse", "graph"],
        "rate": 1e-3,
        "loss": [math.nan, 1.0],
        "names": ["a", "b", "c"],
        "inputs": np.array([0, 2]),
        "members": [{"loadings": np.zeros((3, 2), np.float32)}] * 2,
        "square": np.full((4, 4), np.nan),
        **changes,
    }


def test_a_right_tree_passes_and_sizes_come_back():
    expected = {"latent": 2, "features": 3, "inputs": 2, "models": 2, "side": 4}
    assert check(tree(), SCHEMA) == expected
    labels = {"labels": {"type": np.array([0, -1]), "any name": np.array([0, 5])}, "used": True}
    assert check(tree(**labels, regularizer=None), SCHEMA, sizes={"latent": 2}) == {**expected, "samples": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_latent": 0}, r"n_latent: found 0; expected an integer from 1"),
        ({"n_latent": True}, r"n_latent: found True; expected an integer"),
        ({"n_latent": 2.0}, r"n_latent: found 2\.0"),
        ({"n_latent": 10**6}, r"members\.0\.loadings: found an array of shape \(3, 2\); expected .* latent=1000000"),
        ({"n_latent": 10**400}, r"n_latent: found a huge integer|members"),
        ({"likelihood": "x" * 1000}, r"likelihood: found 'x{56}\.\.\.; expected one of \['nb', 'poisson'\]"),
        ({"likelihood": None}, "likelihood: found None; expected a text"),
        ({"regularizer": "graph"}, r"regularizer: found 'graph'; expected one of \['sparse'\]"),
        ({"regularizer": [5]}, r"regularizer\.0: found 5; expected a text"),
        ({"regularizer": 5}, "regularizer: found 5; expected a list"),
        ({"rate": math.inf}, "rate: found inf; expected a finite number"),
        ({"rate": math.nan}, "rate: found nan"),
        ({"rate": -1}, "rate: found -1"),
        ({"loss": "abc"}, "loss: found 'abc'; expected a list"),
        ({"names": ["a", "b"]}, r"inputs: found entries from 0 to 2; expected from 0 to 1"),
        ({"inputs": np.array([-1, 0])}, "inputs: found entries from -1"),
        ({"inputs": np.array([0.0, np.nan])}, "inputs: found an array of float64; expected integers"),
        ({"inputs": [0, 1]}, "inputs: found a list; expected an array"),
        ({"inputs": np.zeros((2, 1), int)}, r"inputs: found an array of shape \(2, 1\); expected inputs"),
        ({"members": [{}]}, r"members\.0: found no 'loadings'"),
        ({"members": {"loadings": 1}}, "members: found a dict; expected a list"),
        (
            {"members": [{"loadings": np.full((3, 2), np.inf)}]},
            r"members\.0\.loadings: found entries that are not finite",
        ),
        ({"members": [{"loadings": np.array(1.0)}]}, r"shape \(\); expected features=3 x latent=2"),
        ({"square": np.zeros((4, 5))}, r"square: found an array of shape \(4, 5\); expected side=4 x side=4"),
        ({"square": np.full((2, 2), -np.inf)}, "square: found entries that are not finite"),
        ({"labels": {"a": np.zeros(2, int), "b": np.zeros(3, int)}}, r"labels\.b: .* expected samples=2"),
        ({"labels": {"a": np.array([-2])}}, r"labels\.a: found entries from -2 to -2; expected from -1 to inf"),
        ({"labels": None}, "labels: found None; expected a mapping"),
        ({"used": 1}, "used: found 1; expected True or False"),
        ({"more": 1}, "found a field 'more'"),
    ],
)
def test_a_wrong_one_is_refused_with_its_place(changes, message):
    with pytest.raises(ValueError, match=message):
        check(tree(**changes), SCHEMA)


def test_a_tree_of_another_kind_is_refused():
    for value in (None, [], 5, "text"):
        with pytest.raises(ValueError, match=r"the tree: found .*; expected a mapping"):
            check(value, SCHEMA)
    with pytest.raises(ValueError, match=r"record\.n_latent: found 'a'"):
        check(tree(n_latent="a"), SCHEMA, place="record")
