"""What the tools share: take a fitted model or train one, find what to write to, say what was done."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aeverse import _settings, _slots, models

Estimator = TypeVar("Estimator", models.Autoencoder, models.MultimodalAutoencoder)


def fit_or_load(
    estimator: type[Estimator], model: Estimator | str | Path | None, data, config: Mapping[str, Any], **fit: Any
) -> Estimator:
    """The given model (or the one in a file), else one trained on `data`."""
    if model is None:
        return estimator(**config).fit(data, **fit)
    found = loaded(model)
    if not isinstance(found, estimator):
        raise TypeError(f"model= must be of the class {estimator.__name__}, found {type(found).__name__}.")
    device = fit.get("device", "auto")
    if isinstance(found, models.Autoencoder) and (
        found is not model or device != "auto"
    ):  # a model that was given stays where it is
        found.to(device)
    return found


def loaded(model) -> Any:
    """The model itself, or the one in a file."""
    return models.load(model) if isinstance(model, (str, Path)) else model


def target_of(model, data, copy: bool):
    """The object to write to, after checking that it is of the model's kind."""
    if isinstance(model, models.Autoencoder):
        return _slots.target(data, copy)
    if isinstance(model, models.MultimodalAutoencoder):
        return _slots.target_mudata(data, copy)
    raise TypeError(f"model must be a fitted model or the path of one, found {type(model).__name__}.")


# ---- options that are of no use ----------------------------------------------------------------------------------
def refuse_unused(tool: Callable[..., Any], given: Mapping[str, Any], names: Collection[str], method: str) -> None:
    """Raise a ValueError if options that `method` cannot use are given."""
    if useless := _not_default(tool, given, names):
        raise ValueError(f"method={method!r} cannot use {useless}; leave that out, or use method='ae'.")


def warn_of_unused(tool: Callable[..., Any], given: Mapping[str, Any], names: Collection[str]) -> None:
    """Warn if options that describe a model to train are given beside a model."""
    if given["model"] is not None and (useless := _not_default(tool, given, names)):
        _settings.warn(f"model= is used as it is: {useless} would describe a model to train, and has no effect.")


def _not_default(tool: Callable[..., Any], given: Mapping[str, Any], names: Collection[str]) -> str:
    """Those of the options that differ from the tool's defaults, as a user would write them."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(tool).parameters.items()}
    # a default is None, a word or a number, and a value that differs may be an array, which has no single truth
    changed = [n for n in names if type(given[n]) is not type(defaults[n]) or given[n] != defaults[n]]
    return ", ".join(f"{name}=" for name in changed)


# ---- records -----------------------------------------------------------------------------------------------------
def record(model: models.Autoencoder, adata, params: Mapping[str, Any]) -> dict[str, Any]:
    """Entry for ``uns["ae"]``: parameters, those of the model as they were taken, versions, history and the decoder."""
    taken = dataclasses.asdict(model.settings)
    taken.pop("gene_sets")  # names of genes are no keys of a file; those of the sets are below, the rest in the decoder
    return {
        "params": {**params, **taken, "batch_key": model.batch_key},
        "code_names": model.code_names,
        "deviance_explained": model.heldout_deviance_explained,
        "genes_found": int(model.var_names.isin(adata.var_names).sum()),
        "versions": _slots.versions(),
        "history": model.history,
        "decoder": model.record(),
    }


def multimodal_record(model: models.MultimodalAutoencoder, params: Mapping[str, Any]) -> dict[str, Any]:
    """Entry for ``uns["ae"]`` of a model of several modalities."""
    return {
        "params": {**params, "method": "ae", **dataclasses.asdict(model.config), "batch_key": model.batch_key},
        "recipe": model.recipe,
        "kinds": model.kinds,
        "trust": model.trust,
        "variance_explained": model.variance_explained,
        "versions": _slots.versions(),
        "history": model.history,
    }
