"""What the tools share: take a fitted model or train one, find what to write to, say what was done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from aeverse import _slots, models


def fitted(
    model: models.Autoencoder | str | Path | None, adata, config: dict[str, Any], **fit: Any
) -> models.Autoencoder:
    """The given model (or the one in a file), else one trained on `adata`."""
    if model is None:
        # nobody will map a query with this model, so that no sample need be kept out for it
        return models.Autoencoder(**config, share_calibration=0.0).fit(adata, **fit)
    found = loaded(model)
    if not isinstance(found, models.Autoencoder):
        raise ValueError(f"model= must be an Autoencoder for this call, found a {type(found).__name__}.")
    return found


def loaded(model):
    """The model itself, or the one in a file."""
    return models.load(model) if isinstance(model, (str, Path)) else model


def target_of(model, data, copy: bool):
    """The object to write to, after checking that it is of the model's kind."""
    if isinstance(model, models.Autoencoder):
        return _slots.target(data, copy)
    if isinstance(model, models.MultimodalAutoencoder):
        return _slots.target_mudata(data, copy)
    raise TypeError(f"model must be a fitted model or the path of one, found {type(model).__name__}.")


def record(model: models.Autoencoder, adata, params: dict[str, Any]) -> dict[str, Any]:
    """Entry for ``uns["ae"]``: parameters as they were taken, versions, history and the decoder."""
    taken = dataclasses.asdict(model.settings)
    taken.pop("gene_sets")  # names of genes are no keys of a file; those of the sets are below, the rest in the decoder
    return {
        "params": {**taken, "batch_key": model.batch_key, **params},
        "code_names": model.code_names,
        "deviance_explained": model.heldout_deviance_explained,
        "genes_found": int(model.var_names.isin(adata.var_names).sum()),
        "versions": _slots.versions(),
        "history": model.history,
        "decoder": model.record(),
    }
