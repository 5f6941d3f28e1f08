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
FIT: Schemas = {
    "settings": Fields(SETTINGS),
    "features": Fields(
        {"names": Items(Text(), size="features"), "inputs": Array("i", ("inputs",), low=0, below="features")}
    ),
    "batches": Fields({"key": Maybe(Text()), "names": Items(Text(), size="batches")}),
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
        Something is missing, or is not what the settings ask for; the message tells where.
    """
    config = CONFIG | {"likelihood": Text(("auto", *LIKELIHOODS))}
    sizes = check(tree, Fields({"config": Fields(config), "fit": Fields(FIT)}))
    settings = Settings.from_tree(tree["fit"]["settings"])
    sizes["code"] = settings.n_code
    subtrees = {name: tree["fit"][name] for name in ("reference", "network")}
    parts = {"ensemble": Entries(Anything())} | ({"posterior": Anything()} if settings.is_count else {})
    check(subtrees["network"], Fields(parts), place="fit.network")
    ensemble = subtrees["network"]["ensemble"]
    check(settings.n_models, Number(low=1, high=len(ensemble)), place="fit.settings.n_models")
    arrays = {"ensemble": Fields(_ensemble(settings, sizes, ensemble))}
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


def _ensemble(settings: Settings, sizes: Sizes, lengths: Mapping[str, Any]) -> Schemas:
    """Weights and buffers of the members; those of units and of an alignment where any were kept."""
    likelihood = LIKELIHOODS[settings.likelihood].empty(sizes["features"])
    member = _under("decoder", _decoder(settings, sizes["batches"])) | _under("likelihood", _shapes(likelihood))
    member |= _under("encoder", _encoder(settings, sizes))
    schemas: Schemas = {}
    for i in range(settings.n_models):
        schemas |= _under(f"members.{i}", member)
    if "units.matrix" in lengths:
        square = ("code", "code")
        schemas |= _under("units", _floats(center=("code",), matrix=square, inverse=square))
    if "alignment.shifts" in lengths:
        places = Array("f", ("batches", "clusters", "code"))
        schemas |= _under("alignment", {"centroids": places, "shifts": places, "width": Array("f", (1,), low=0)})
    return schemas


def _encoder(settings: Settings, sizes: Sizes) -> Schemas:
    n_latent, variational = settings.n_latent, "variational" in settings.regularizers
    n_out = n_latent * (2 if variational else 1)
    widths = [*settings.n_hidden, n_out]
    n_first = widths[0] + (n_out if settings.recipe.skip and settings.n_hidden else 0)
    n_inputs: Size = "inputs" if settings.is_count else "components"
    schemas = _floats(first=(n_inputs, n_first), first_bias=(n_first,), axes=(n_latent, n_latent))
    if sizes["batches"]:
        schemas["covariate.weight"] = Array("f", (n_first, "batches"))
    schemas |= _under("rest", _layers(widths, linear=2, norm=0, normed=0))
    if code_layer(settings) is None:
        normed = n_latent - settings.n_guided
        schemas |= _under("code_layer", _floats(weight=(normed,), bias=(normed,)))
    return schemas | _under("input_layer", _input_layer(settings, sizes["inputs"]))


def _input_layer(settings: Settings, n_inputs: int) -> Schemas:
    if settings.is_count:
        return _floats(shift=(n_inputs,), scale=(n_inputs,), median_library=())
    inner = value_likelihood(settings.likelihood).input_layer.empty(n_inputs)
    width = inner.n_outputs
    return _under("inner", _shapes(inner)) | _floats(center=(width,), axes=(width, "components"), gain=())


def _decoder(settings: Settings, n_batches: int) -> Schemas:
    widths = [settings.n_latent, *(settings.n_hidden[::-1] if settings.decoder == "mlp" else ())]
    schemas = _under("layers", _layers(widths, linear=0, norm=1, normed=1))
    schemas |= _floats(loadings=("features", widths[-1]), bias=("features",), initial_bias=("features",))
    if n_batches:
        schemas |= _floats(batch_offsets=("features", "batches"))
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
