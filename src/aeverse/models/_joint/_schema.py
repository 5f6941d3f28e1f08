"""What the tree of a fitted `MultimodalAutoencoder` must be like: checked before anything is built from it."""

from __future__ import annotations

from typing import Any

from aeverse._schema import Anything, Array, Entries, Fields, Flag, Items, Maybe, Number, Schema, Sizes, Text, check
from aeverse.models._joint._sample_fusion import N_HIDDEN
from aeverse.models._matrix._schema import (
    ANY,
    COVARIATES,
    POSITIVE,
    Schemas,
    _labels,
    checked_covariates,
    correction_schemas,
)
from aeverse.models._matrix._schema import check_model as check_autoencoder
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._kinds import KINDS

CONFIG: Schemas = {
    "recipe": Text(("auto", "samples", "cells")),
    "n_latent": Number(low=1),
    "n_models": Maybe(Number(low=1)),
    "n_steps": Maybe(Number(low=1)),
    "n_inputs": Number(low=1),
    "random_state": Number(low=0),
}
PARTS: Schemas = {
    "recipe": Text(("samples", "cells")),
    "fusion": Anything(),  # the first and the fifth by what is in them
    "covariates": COVARIATES,
    "layer": Entries(Maybe(Text())),
    "modalities": Items(Anything(), size="modalities"),
    "names": Items(Text(), size="samples"),
    "has": Array("i", ("samples", "modalities"), low=0, high=1),
    "labels": _labels("samples"),
    "random_state": Number(low=0),
}
LEARNT: Schemas = {
    "depth": POSITIVE,
    "is_alone": Flag(),
    "idf": Array("f", ("columns",), low=0),
}  # by kinds of modality


def check_model(tree: Any) -> None:
    """Check the tree of a fitted `MultimodalAutoencoder`.

    Raises
    ------
    ValueError
        Something is missing, or does not fit the rest; the message names the place.
    """
    sizes = check(tree, Fields({"config": Fields(CONFIG), "fit": Fields(PARTS)}))
    fit = tree["fit"]
    names = [_check_modality(part, f"fit.modalities.{i}", sizes) for i, part in enumerate(fit["modalities"])]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"fit.modalities: found the names {names}; expected one modality or more, each once.")
    widths = [part["scores"].shape[1] for part in fit["modalities"]]
    features = [len(part["target"]["names"]) for part in fit["modalities"]]
    check_fusion = _check_samples if fit["recipe"] == "samples" else _check_cells
    check_fusion(fit["fusion"], names, widths, features, checked_covariates(fit, "fit"))
    if fit["fusion"]["covariates"] != fit["covariates"]:
        raise ValueError("fit.fusion.covariates: found others than in fit.covariates; expected the same.")


def _check_modality(part: Any, place: str, sizes: Sizes) -> str:
    """A modality by itself; its name."""
    target = Fields(
        {
            "names": Items(Text(), size="features"),
            "loadings": Maybe(Array("f", ("width", "features"))),
            "offset": Array("f", (None,)),
            "rows": Array("i", ("rows",), low=0, below="samples"),
            "values": Array("f", ("rows", "width")),
        }
    )
    schema: Schemas = {
        "name": Text(),
        "kind": Text(tuple(KINDS)),
        "target": target,
        "scores": Array("f", ("samples", None)),
    }
    sizes_of_part = check(part, Fields(schema), place=place, sizes={"samples": sizes["samples"]})
    stored_target = part["target"]
    is_whole = stored_target["loadings"] is None  # all features, or components of them
    width = Number(low=sizes_of_part["features"], high=sizes_of_part["features"]) if is_whole else Number(low=1)
    check(sizes_of_part["width"], width, place=f"{place}.target.values")
    check(
        stored_target["offset"],
        Array("f", (0 if is_whole else sizes_of_part["features"],)),
        place=f"{place}.target.offset",
    )
    return part["name"]


def _check_common(fusion: Any, fields: Schemas, names: list[str], covariates: Covariates) -> Sizes:
    """What both fusions keep."""
    common: Schemas = {"modalities": Items(Text(), size=len(names)), "covariates": COVARIATES}
    sizes = check(fusion, Fields(common | fields), place="fit.fusion")
    if list(fusion["modalities"]) != names:
        raise ValueError(f"fit.fusion.modalities: found {list(fusion['modalities'])}; expected {names}.")
    return sizes | {"covariates": covariates.n_columns}


def _check_correction(part: Any, place: str, covariates: Covariates, width: int) -> None:
    """What covariates do to the scores of a modality; empty where nothing was learned of that."""
    check(part, Entries(Anything()), place=place)
    if part:
        check(part, Fields(correction_schemas(covariates, part, "", width)), place=place)


def _view(n_features: int) -> Schema:
    """Principal components of a modality."""
    kind = Fields({"name": Text(tuple(KINDS))}, LEARNT)
    column = Array("f", ("columns",))
    return Fields(
        {
            "names": Items(Text(), size="columns"),
            "kind": kind,
            "n_inputs": Number(low=1),
            "max_components": Number(low=1),
            "only_significant": Flag(),
            "unit": POSITIVE,
            "residual": POSITIVE,
            "n_significant": Number(low=0),
            "columns": Array("i", ("columns",), low=0, high=n_features - 1),
            "mean": column,
            "scale": column,
            "center": column,
            "loadings": Array("f", ("columns", "components")),
        }
    )


def _check_view(view: Any, place: str, n_features: int, width: int | None = None) -> int:
    """A view; how many components it has."""
    view_sizes = check(view, _view(n_features), place=place, sizes={} if width is None else {"components": width})
    learned = {name: LEARNT[name] for name in KINDS[view["kind"]["name"]].learned}
    check(view["kind"], Fields({"name": Text()} | learned), place=f"{place}.kind", sizes=view_sizes)
    check(view_sizes["columns"], Number(low=1), place=f"{place}.columns")
    return view_sizes["components"]


# ---- cohorts -------------------------------------------------------------------------------------------------------
def _check_samples(
    fusion: Any, names: list[str], widths: list[int], features: list[int], covariates: Covariates
) -> None:
    n = len(names)
    fields: Schemas = {
        "views": Items(Anything(), size=n),
        "corrections": Items(Anything(), size=n),
        "modality_weights": Items(Number(low=0, high=1, integer=False), size=n),
        "code": Entries(Anything()),
        "net": Fields({"n_members": Number(low=1, size="members"), "n_latent": Number(low=1, size="decoder inputs")}),
        "history": Entries(Items(ANY)),
        "variance_explained": Items(ANY, size=n),
    }
    sizes = _check_common(fusion, fields, names, covariates)
    for i, (view, width, n_features) in enumerate(zip(fusion["views"], widths, features, strict=True)):
        _check_view(view, f"fit.fusion.views.{i}", n_features, width)
        _check_correction(fusion["corrections"][i], f"fit.fusion.corrections.{i}", covariates, width)
    check(fusion["net"]["n_latent"], Number(low=1 + sizes["covariates"]), place="fit.fusion.net.n_latent")
    sizes["latent"] = sizes["decoder inputs"] - sizes["covariates"]
    code_sizes = check(
        fusion["code"], Fields(_code(widths)), place="fit.fusion.code", sizes=sizes | {"all": sum(widths)}
    )
    check(code_sizes["guided"], Number(low=0, high=code_sizes["targets"]), place="fit.fusion.code.guided_mean")


def _code(widths: list[int]) -> Schemas:
    """Arrays of `JointCode`, with its `FusionNet`."""
    shapes: dict[str, tuple[int | str, ...]] = {
        "net.target_weights": ("targets",),
        "guided_mean": ("guided",),
        "guided_axes": ("guided", "guided_axes"),
        "linear_mean": ("all",),
        "linear_axes": ("all", "linear_axes"),
        "measured_mean": ("all",),
        "measured_axes": ("all", "measured_axes"),
    }
    for i, width in enumerate(widths):
        encoder = f"net.encoders.{i}"
        shapes |= _linear(f"{encoder}.first", width, N_HIDDEN) | _linear(f"{encoder}.second", N_HIDDEN, "latent")
        shapes |= _linear(f"{encoder}.skip", width, "latent") | _linear(f"net.decoders.{i}", "decoder inputs", width)
    shapes |= _linear("net.head.first", "latent", N_HIDDEN) | _linear("net.head.second", N_HIDDEN, "targets")
    return {name: Array("f", shape) for name, shape in shapes.items()}


def _linear(name: str, n_in: int | str, n_out: int | str) -> dict[str, tuple[int | str, ...]]:
    return {f"{name}.weight": ("members", n_in, n_out), f"{name}.bias": ("members", 1, n_out)}


# ---- single cells --------------------------------------------------------------------------------------------------
def _check_cells(fusion: Any, names: list[str], widths: list[int], features: list[int], covariates: Covariates) -> None:
    n = len(names)
    fields: Schemas = {
        "embeddings": Items(Anything(), size=n),
        "shares": Items(POSITIVE, size=n),
        "sizes": Items(Number(low=1), size=n),
        "random_state": Number(low=0),
    }
    _check_common(fusion, fields, names, covariates)
    for i, (part, width, n_features) in enumerate(zip(fusion["embeddings"], widths, features, strict=True)):
        place = f"fit.fusion.embeddings.{i}"
        check(fusion["sizes"][i], Number(low=width, high=width), place=f"fit.fusion.sizes.{i}")
        embedding_sizes = _check_embedding(part, place, fusion["covariates"], n_features)
        check(embedding_sizes, Number(low=width, high=width), place=f"{place}, its dimensions")


def _check_embedding(part: Any, place: str, covariates: Any, n_features: int) -> int:
    """One embedding; how many dimensions it has."""
    check(part, Entries(Anything()), place=place)
    check(part.get("class"), Text(("counts", "linear")), place=f"{place}.class")
    if part["class"] == "counts":
        check(part, Fields({"class": Text(), "model": Anything()}), place=place)
        check_autoencoder(part["model"])
        settings = part["model"]["fit"]["settings"]
        return settings["n_models"] * settings["n_latent"]
    fields: Schemas = {"class": Text(), "explained": ANY}
    fields |= dict.fromkeys(("view", "mean", "matrix", "covariates", "correction"), Anything())
    check(part, Fields(fields), place=place)
    sizes = {"components": _check_view(part["view"], f"{place}.view", n_features)}
    if part["covariates"] != covariates:
        raise ValueError(f"{place}.covariates: found others than in fit.covariates; expected the same.")
    stored_covariates = Covariates.from_tree(covariates)
    _check_correction(part["correction"], f"{place}.correction", stored_covariates, sizes["components"])
    arrays: Schemas = {"mean": Array("f", ("components",)), "matrix": Array("f", ("components", "width"))}
    return check({name: part[name] for name in arrays}, Fields(arrays), place=place, sizes=sizes)["width"]
