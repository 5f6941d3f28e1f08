"""What the tree of a fitted autoencoder must be like: checked before anything is built from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from aeverse._schema import (
    Anything,
    Apart,
    Array,
    Either,
    Entries,
    Fields,
    Flag,
    Items,
    Maybe,
    Number,
    Schema,
    Sizes,
    Text,
    check,
)
from aeverse.models._matrix import _choices as choices
from aeverse.models._matrix._regularizers import code_layer
from aeverse.models._matrix._settings import Settings
from aeverse.models._matrix._values import value_likelihood
from aeverse.models._shared._covariates import Covariates
from aeverse.nn import LIKELIHOODS, GammaPosterior

Size = int | str
Schemas = dict[str, Schema]
NOT_NEGATIVE = ("dispersion", "residual", "scale")  # parts of modules
POSITIVE, ANY = Number(low=0, integer=False), Number(integer=False, nan=True)


# ---- what was asked for and what was done --------------------------------------------------------------------------
def _regularizer(*names: str) -> Schema:
    return Either(Text(names), Maybe(Items(Text(names))))


CONFIG: Schemas = {
    "likelihood": Text(),
    "regularizer": _regularizer("auto", *choices.REGULARIZERS),
    "decoder": Text(choices.DECODERS),
    "gene_sets": Maybe(Entries(Entries(Number(integer=False)))),
    "n_latent": Maybe(Number(low=1)),
    "n_hidden": Items(Number(low=1)),
    "n_models": Maybe(Number(low=1)),
    "n_inputs": Number(low=1),
    "max_epochs": Maybe(Number(low=1)),
    "max_steps": Maybe(Number(low=1)),
    "patience": Number(low=1),
    "batch_size": Maybe(Number(low=1)),
    "learning_rate": Maybe(POSITIVE),
    "corruption": Maybe(Text(choices.CORRUPTIONS)),
    "strength": POSITIVE,
    "target_activity": Maybe(Number(low=0, high=1, integer=False)),
    "prior_precision": Maybe(POSITIVE),
    "share_heldout": Number(low=0, high=1, integer=False),
    "share_calibration": Number(low=0, high=0.5, integer=False),
    "random_state": Number(low=0),
}
SETTINGS: Schemas = {
    **CONFIG,
    "likelihood": Text(LIKELIHOODS.keys()),
    "regularizer": _regularizer(*choices.REGULARIZERS),
    "n_latent": Number(low=1, size="latent"),
    "n_models": Number(low=1, size="members"),
    "batch_size": Number(low=1),
    "gene_sets": Maybe(Entries(Entries(Number(integer=False)), size="latent")),  # behind n_latent, which names the size
    "learning_rate": POSITIVE,
    "corruption": Text(choices.CORRUPTIONS),
    "prior_precision": POSITIVE,
    "learns_precision": Flag(),
}


# ---- what was learned -----------------------------------------------------------------------------------------------
def _labels(samples: str) -> Schema:
    """Columns of labels of some samples."""
    codes = Array("i", (samples,), low=-1, below="categories")
    return Items(Apart(Fields({"name": Text(), "categories": Items(Text(), size="categories"), "codes": codes})))


REFERENCE = Fields(
    {
        "code": Array("f", ("remembered", "code")),
        "calibration": Array("f", ("remembered",), low=0),
        "labels": _labels("remembered"),
        "unseen": Array("f", ("unseen", "code")),
        "unseen_labels": _labels("unseen"),
    }
)
COVARIATES = Fields(
    {
        "batch_key": Maybe(Text()),
        "categories": Items(Fields({"key": Text(), "names": Items(Text())})),
        "scales": Items(Fields({"key": Text(), "mean": Number(integer=False), "sd": POSITIVE})),
    }
)
FIT: Schemas = {
    "settings": Fields(SETTINGS),
    "features": Fields(
        {"names": Items(Text(), size="features"), "inputs": Array("i", ("inputs",), low=0, below="features")}
    ),
    "covariates": COVARIATES,
    "history": Entries(Items(ANY)),
    "explained": ANY,
    "explained_by_feature": Array("f", ("features",), nan=True),
    "n_samples": Number(low=1),
    "reference": Anything(),  # both by `_check_learned`
    "network": Anything(),
}


def check_model(tree: Any) -> None:
    """Check the tree of a fitted `Autoencoder`.

    Raises
    ------
    ValueError
        Something is missing, or is not what the settings ask for; the message names the place.
    """
    config = CONFIG | {"likelihood": Text(("auto", *LIKELIHOODS))}
    sizes = check(tree, Fields({"config": Fields(config), "fit": Fields(FIT)}))
    settings, covariates = Settings.from_tree(tree["fit"]["settings"]), checked_covariates(tree["fit"], "fit")
    sizes |= {"code": settings.n_code, "covariates": covariates.n_columns}
    subtrees = {name: tree["fit"][name] for name in ("reference", "network")}
    parts = {"ensemble": Entries(Anything())} | ({"posterior": Anything()} if settings.is_count else {})
    check(subtrees["network"], Fields(parts), place="fit.network")
    ensemble = subtrees["network"]["ensemble"]
    check(settings.n_models, Number(low=1, high=len(ensemble)), place="fit.settings.n_models")
    arrays = {"ensemble": Fields(_ensemble(settings, sizes, covariates, ensemble))}
    if settings.is_count:
        arrays["posterior"] = Fields(_posterior(sizes["features"]))
    check(subtrees, Fields({"reference": Maybe(REFERENCE), "network": Fields(arrays)}), place="fit", sizes=sizes)


def _floats(**shapes: tuple[Size, ...]) -> Schemas:
    return {name: Array("f", shape) for name, shape in shapes.items()}


def _under(prefix: str, schemas: Mapping[str, Schema]) -> Schemas:
    return {f"{prefix}.{name}": schema for name, schema in schemas.items()}


def _layers(widths: Sequence[int], linear: int, norm: int, normed: int) -> Schemas:
    """Affine maps from width to width and LayerNorms, by their places among three layers; `normed`: 0 before, 1 after."""
    schemas: Schemas = {}
    for i, pair in enumerate(itertools.pairwise(widths)):
        width, following = pair
        schemas |= _under(f"{3 * i + linear}", _floats(weight=(following, width), bias=(following,)))
        schemas |= _under(f"{3 * i + norm}", _floats(weight=(pair[normed],), bias=(pair[normed],)))
    return schemas


def _ensemble(settings: Settings, sizes: Sizes, covariates: Covariates, arrays: Mapping[str, Any]) -> Schemas:
    """Weights and buffers of the members; those of units and of a correction where any were kept."""
    likelihood = LIKELIHOODS[settings.likelihood].empty(sizes["features"])
    member = _under("decoder", _decoder(settings, sizes["covariates"])) | _under("likelihood", _shapes(likelihood))
    member |= _under("encoder", _encoder(settings, sizes))
    schemas: Schemas = {}
    for i in range(settings.n_models):
        schemas |= _under(f"members.{i}", member)
    if "units.matrix" in arrays:
        square = ("code", "code")
        schemas |= _under("units", _floats(center=("code",), matrix=square, inverse=square))
    always = bool(covariates.scales) and not settings.dimensions_mean_something
    if always or any(name.startswith("correction.") for name in arrays):
        schemas |= _under("correction", correction_schemas(covariates, arrays, "correction.", "code"))
    return schemas


def correction_schemas(covariates: Covariates, arrays: Mapping[str, Any], prefix: str, width: Size) -> Schemas:
    """Arrays of a `Correction` of so many dimensions: slopes of the numbers, and the categories that could be aligned."""
    schemas = _floats(slopes=(len(covariates.scales), width)) if covariates.scales else {}
    for block in covariates.blocks():
        name = f"alignments.{block.start}"
        if f"{prefix}{name}.shifts" in arrays:
            places = Array("f", (block.stop - block.start, f"clusters of {name}", width))
            schemas |= _under(name, {"centroids": places, "shifts": places, "width": Array("f", (1,), low=0)})
    return schemas


def checked_covariates(tree: Mapping[str, Any], place: str) -> Covariates:
    """Those of a tree, after checking that all columns and categories differ, and that the batches come first."""
    covariates, stored = Covariates.from_tree(tree["covariates"]), tree["covariates"]
    if len(covariates.keys) < len(stored["categories"]) + len(stored["scales"]):
        raise ValueError(f"{place}.covariates: found {covariates.keys}; expected each column once.")
    for key, names in covariates.categories.items():
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{place}.covariates: found {list(names)} in {key!r}; expected categories, each once.")
    if covariates.batch_key not in (None, *covariates.keys[:1]) or (covariates.batch_key and not covariates.categories):
        raise ValueError(
            f"{place}.covariates.batch_key: found {covariates.batch_key!r}; expected the first of the categories."
        )
    return covariates


def _encoder(settings: Settings, sizes: Sizes) -> Schemas:
    n_latent, variational = settings.n_latent, "variational" in settings.regularizers
    n_out = n_latent * (2 if variational else 1)
    widths = [*settings.n_hidden, n_out]
    n_first = widths[0] + (n_out if settings.recipe.skip and settings.n_hidden else 0)
    n_inputs: Size = "inputs" if settings.is_count else "components"
    schemas = _floats(first=(n_inputs, n_first), first_bias=(n_first,), axes=(n_latent, n_latent))
    if sizes["covariates"]:
        schemas["covariate.weight"] = Array("f", (n_first, "covariates"))
    schemas |= _under("rest", _layers(widths, linear=2, norm=0, normed=0))
    if code_layer(settings) is None:
        normed = n_latent - settings.n_guided
        schemas |= _under("code_layer", _floats(weight=(normed,), bias=(normed,)))
    return schemas | _under("input_layer", _input_layer(settings, sizes["inputs"]))


def _input_layer(settings: Settings, n_inputs: int) -> Schemas:
    if settings.is_count:
        return _floats(shift=(n_inputs,), scale=(n_inputs,), median_library=(1,))
    inner = value_likelihood(settings.likelihood).input_layer.empty(n_inputs)
    width = inner.n_outputs
    return _under("inner", _shapes(inner)) | _floats(center=(width,), axes=(width, "components"), gain=())


def _decoder(settings: Settings, n_covariates: int) -> Schemas:
    widths = [settings.n_latent, *(settings.n_hidden[::-1] if settings.decoder == "mlp" else ())]
    schemas = _under("layers", _layers(widths, linear=0, norm=1, normed=1))
    schemas |= _floats(loadings=("features", widths[-1]), bias=("features",), initial_bias=("features",))
    if n_covariates:
        schemas |= _floats(covariate_offsets=("features", "covariates"))
    if settings.gene_sets is not None:
        schemas |= _floats(mask=("features", "latent"))
    return schemas


def _posterior(n_features: int) -> Schemas:
    with torch.device("meta"):  # shapes without numbers
        return _shapes(GammaPosterior(n_features))


def _shapes(module: torch.nn.Module) -> Schemas:
    """Those of a module's state."""
    state = module.state_dict().items()
    return {
        name: Array("f", tuple(tensor.shape), low=0 if name in NOT_NEGATIVE else -math.inf) for name, tensor in state
    }
