"""What the tools share: take a fitted model or train one, find what to write to, say what was done."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from aeverse import _runtime, _slots, models

Estimator = TypeVar("Estimator", models.Autoencoder, models.MultimodalAutoencoder)


def fit_or_load(
    estimator: type[Estimator], model: Estimator | str | Path | None, data, config: Mapping[str, Any], **fit: Any
) -> Estimator:
    """The given model (or the one in a file), else one trained on `data`."""
    if model is None:
        requested = estimator(**config)
        previous = trained_before(requested, data, **fit) if isinstance(requested, models.Autoencoder) else None
        return requested.fit(data, **fit) if previous is None else previous
    trained = loaded(model)
    if not isinstance(trained, estimator):
        raise TypeError(f"model= must be of the class {estimator.__name__}, found {type(trained).__name__}.")
    device = fit.get("device", "auto")
    if trained is not model or device != "auto":  # a model that was given stays where it is
        trained.to(device)
    return trained


def trained_before(
    requested: models.Autoencoder,
    adata,
    *,
    layer,
    mask_var,
    batch_key,
    covariates,
    label_key: str | None = None,
    device: str = "auto",
    **_,
) -> models.Autoencoder | None:
    """The model that an earlier call trained on the same counts as `requested` would be; None if there is none."""
    records = {k: r for k, r in adata.uns.get("ae", {}).items() if "fingerprint" in r and "model" in r}
    settings = requested.settings_for(adata, layer=layer) if records else None
    if settings is None or not settings.is_count:
        return None
    described = _described(settings)
    fingerprint = _slots.fingerprint_of_fit(adata, layer, mask_var, batch_key, covariates, label_key, described)
    for key, record in records.items():
        if str(record["fingerprint"]) != fingerprint:
            continue
        try:
            model = models.Autoencoder.from_record(record["model"])
        except ValueError:
            _runtime.warn(f"the model of uns['ae'][{key!r}] is not as it was written, and is not used.")
            continue
        _runtime.log(f"the model of uns['ae'][{key!r}] is used: it was trained on these data with these parameters")
        return model.to(device)
    return None


def _described(settings) -> str:
    """What describes a model, as words; a model of another release is another model."""
    return json.dumps([settings.tree(), _slots.versions()["aeverse"]], sort_keys=True)


def check_save_model(save_model: str | Path | None) -> None:
    """Refuse, before any work is done, a path that no model can be written to."""
    if save_model is not None and (Path(save_model).is_dir() or not Path(save_model).parent.is_dir()):
        raise FileNotFoundError(f"save_model={str(save_model)!r} must be a file in a folder that exists.")


def save(model, save_model: str | Path | None) -> None:
    """Save the model where a path is given: after all results are there, before the first is written."""
    if save_model is not None:
        model.save(save_model)


def loaded(model) -> Any:
    """The model itself, or the one in a file."""
    return models.load(model) if isinstance(model, (str, Path)) else model


def target_of(model, data, copy: bool):
    """The object to write to, after checking that it is of the model's kind."""
    if isinstance(model, models.Autoencoder):
        return _slots.writable_adata(data, copy)
    if isinstance(model, models.MultimodalAutoencoder):
        return _slots.writable_mudata(data, copy)
    raise TypeError(f"model must be a fitted model or the path of one, found {type(model).__name__}.")


# ---- options that are of no use ----------------------------------------------------------------------------------
def refuse_unused(tool: Callable[..., Any], arguments: Mapping[str, Any], names: Collection[str], method: str) -> None:
    """Raise a ValueError if options that `method` cannot use are given."""
    if useless := _not_default(tool, arguments, names):
        raise ValueError(f"method={method!r} cannot use {useless}; leave that out, or use method='ae'.")


def warn_of_unused(tool: Callable[..., Any], arguments: Mapping[str, Any], names: Collection[str]) -> None:
    """Warn if options that describe a model to train are given beside a model."""
    if arguments["model"] is not None and (useless := _not_default(tool, arguments, names)):
        _runtime.warn(f"model= is used as it is: {useless} would describe a model to train, and has no effect.")


def _not_default(tool: Callable[..., Any], arguments: Mapping[str, Any], names: Collection[str]) -> str:
    """Those of the options that differ from the tool's defaults, as a user would write them."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(tool).parameters.items()}
    # a default is None, a word or a number, and a value that differs may be an array, which has no single truth
    changed = [n for n in names if type(arguments[n]) is not type(defaults[n]) or arguments[n] != defaults[n]]
    return ", ".join(f"{name}=" for name in changed)


# ---- records -----------------------------------------------------------------------------------------------------
def record(
    model: models.Autoencoder, adata, params: Mapping[str, Any], fit: Mapping[str, Any], code: np.ndarray | None = None
) -> dict[str, Any]:
    """Entry for ``uns["ae"]``: parameters, those of the model as they were taken, versions, history, the model, its source.

    `fit` are the arguments of `fit_or_load`, `code` is what is written to ``obsm["X_ae"]``.
    """
    settings = dataclasses.asdict(model.settings)
    settings.pop(
        "gene_sets"
    )  # names of genes are no keys of a file; those of the sets are below, the rest in the model
    entry: dict[str, Any] = {
        "params": {**params, **settings, **_covariates_of(model)},
        "code_names": model.code_names,
        "deviance_explained": model.heldout_deviance_explained,
        "genes_found": int(model.var_names.isin(adata.var_names).sum()),
        "versions": _slots.versions(),
        "history": model.history,
        "model": model.record(),
    }
    if model.settings.is_count:
        layer, covariates = fit["layer"], [key for key in model.fitted.covariates.keys if key in adata.obs]
        hashes = _slots.hashes_of_cells(adata, layer, model.var_names, covariates, code)
        entry["source"] = {"covariates_read": covariates, **hashes}
        if params["model"] is None:
            requested = layer, fit["mask_var"], fit["batch_key"], fit["covariates"], fit.get("label_key")
            entry["fingerprint"] = _slots.fingerprint_of_fit(adata, *requested, _described(model.settings))
    return entry


def _covariates_of(model: models.Autoencoder | models.MultimodalAutoencoder) -> dict[str, Any]:
    """The columns of ``obs`` that a model was given."""
    return {"batch_key": model.batch_key, "covariates": model.covariates or None}


def multimodal_record(model: models.MultimodalAutoencoder, params: Mapping[str, Any]) -> dict[str, Any]:
    """Entry for ``uns["ae"]`` of a model of several modalities."""
    return {
        "params": {**params, "method": "ae", **dataclasses.asdict(model.config), **_covariates_of(model)},
        "model_checksum": model.record()["checksum"],
        "recipe": model.recipe,
        "kinds": model.kinds,
        "modality_weights": model.modality_weights,
        "variance_explained": model.variance_explained,
        "versions": _slots.versions(),
        "history": model.history,
    }
