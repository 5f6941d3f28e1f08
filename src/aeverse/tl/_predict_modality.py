"""`tl.predict_modality`: one modality from the others, for the cells without it and for those that have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.models import MultimodalAutoencoder
from aeverse.tl._fit_or_load import check_save_model, fit_or_load, multimodal_record, save, warn_of_unused

if TYPE_CHECKING:
    from mudata import MuData


@checked
def predict_modality(
    mdata: MuData,
    target: str,
    *,
    features: str | Sequence[str] | None = None,
    modalities: str | Sequence[str] | None = None,
    kind: Literal["auto"] | Mapping[str, str] = "auto",
    layer: Mapping[str, str | None] | None = None,
    mask_var: Literal["auto"] | Mapping[str, str | np.ndarray | None] | None = "auto",
    batch_key: str | None = None,
    covariates: str | Sequence[str] | None = None,
    model: MultimodalAutoencoder | str | Path | None = None,
    save_model: str | Path | None = None,
    key_added: str = "predicted",
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> MuData | None:
    """Predict a modality from the others, with a standard deviation: proteins from RNA, RNA from peaks, and so on.

    The mean over the training cells that are most like the cell: in the embedding of a multimodal autoencoder, in the
    components of the other modalities, and in a linear regression on these. A cell that has the modality itself is
    predicted without its own values, so that prediction and measurement can be compared.

    Parameters
    ----------
    mdata
        Cells with at least one other modality; those without get NaN.
    target
        Modality to predict. With `model`, `mdata` need not hold it.
    features
        Features wanted; None: all. Two numbers per cell are written for each.
    modalities
        Predict from these only; None: all others.
    kind, layer, mask_var, batch_key, covariates
        As in `aeverse.tl.multimodal_embed`, for the model that is trained here.
    model
        A fitted `aeverse.models.MultimodalAutoencoder`, or the path of a saved one: a bridge, trained where both
        modalities were measured.
    save_model
        Path of a file to save the model to, for `aeverse.models.load` and `model`.
    key_added
        Name of the layer; see below.
    random_state, device, progress, copy
        As in `aeverse.tl.denoise`.

    Returns
    -------
    `None`, or the copy. Written are

    ``mdata.obsm[f"{key_added}_{target}"]``, ``mdata.obsm[f"{key_added}_{target}_sd"]``
        DataFrames (cells of ``mdata.obs``, features): mean and standard deviation for every cell, also for those that
        the target modality does not hold. RNA (normalized to the median depth) and protein counts as log1p, peaks and
        mutations as probabilities, anything else on its own scale.
    ``mdata[target].layers[key_added]``, ``mdata[target].layers[f"{key_added}_sd"]``
        The same for the modality's own cells, NaN in features not asked for, if `mdata` holds the modality. Its cells are
        not added to, for ``X`` has nothing to say about others.
    ``mdata.uns["ae"][f"{key_added}_{target}"]``
        Parameters, versions, ``modality_weights`` and history.

    Raises
    ------
    KeyError, TypeError, ValueError
        As in `aeverse.tl.multimodal_embed`, and where nothing is left to predict from; `mdata` is then as it was.

    Notes
    -----
    Ctrl-C and worker processes: as in `aeverse.tl.denoise`.

    Examples
    --------
    >>> import numpy as np, anndata as ad, mudata as md, aeverse as ae
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.normal(size=(60, 2))
    >>> mods = {m: ad.AnnData(factors @ rng.normal(size=(2, 20)) + rng.normal(size=(60, 20))) for m in ("rna", "protein")}
    >>> mdata = md.MuData({"rna": mods["rna"], "protein": mods["protein"][:40].copy()})
    >>> ae.tl.predict_modality(mdata, "protein")
    >>> mdata.obsm["predicted_protein"].shape, mdata["protein"].layers["predicted"].shape
    ((60, 20), (40, 20))
    """
    params = _slots.parameters(locals())
    check_save_model(save_model)
    warn_of_unused(predict_modality, locals(), ("kind", "mask_var", "batch_key", "covariates"))
    mdata = _slots.writable_mudata(mdata, copy)
    modalities = None if modalities is None else _slots.name_list(modalities)
    features = None if features is None else _slots.name_list(features)
    name = f"{key_added}_{target}"
    _slots.check_keys(mdata, [("obsm", name), ("obsm", f"{name}_sd")], name)
    if target in mdata.mod:
        _slots.check_keys(mdata[target], [("layers", key_added), ("layers", f"{key_added}_sd")], key_added)
    elif model is None:
        raise KeyError(
            f"target={target!r} is not a modality; they are {list(mdata.mod)}. Without it, model= is needed."
        )
    fit: dict[str, Any] = {"modalities": modalities if modalities is None else [*modalities, target], "layer": layer}
    fit |= {
        "mask_var": _slots.masks_of(mdata, mask_var),
        "kind": kind,
        "batch_key": batch_key,
        "covariates": covariates,
    }
    config = {"random_state": random_state}
    trained = fit_or_load(MultimodalAutoencoder, model, mdata, config, **fit, device=device, progress=progress)
    means = trained.predict(mdata, target, features=features, modalities=modalities, layer=layer)
    tables = dict(zip((name, f"{name}_sd"), means, strict=True))
    parts = [(mdata, _slots.Results(name, multimodal_record(trained, params), obsm=tables))]
    if target in mdata.mod:
        adata = mdata[target]
        rows = mdata.obs_names.get_indexer(adata.obs_names)
        layers = {
            key: _in_columns(t.to_numpy()[rows], t.columns, adata)
            for key, t in zip((key_added, f"{key_added}_sd"), means, strict=True)
        }
        parts.insert(0, (adata, _slots.Results(key_added, {"params": {"method": "ae", "of": name}}, layers=layers)))
    save(trained, save_model)
    _slots.write_all(parts)
    return mdata if copy else None


def _in_columns(values: np.ndarray, names, adata) -> np.ndarray:
    """Values as columns of the modality's own features, NaN in those that were not predicted."""
    var_names = adata.var_names.astype(str)
    if names.equals(var_names):
        return values
    where = var_names.get_indexer(names) if var_names.is_unique else np.array([var_names.get_loc(n) for n in names])
    out = np.full((len(values), len(var_names)), np.nan, np.float32)
    out[:, where[where >= 0]] = values[:, where >= 0]
    return out
