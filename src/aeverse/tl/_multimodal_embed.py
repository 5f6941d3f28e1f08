"""`tl.multimodal_embed`: one embedding from every modality, any of them missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aeverse import _slots, methods, models
from aeverse._arguments import checked
from aeverse.models import MultimodalAutoencoder
from aeverse.tl._fit_or_load import (
    check_save_model,
    fit_or_load,
    multimodal_record,
    refuse_unused,
    save,
    warn_of_unused,
)

if TYPE_CHECKING:
    from mudata import MuData


@checked
def multimodal_embed(
    mdata: MuData,
    *,
    method: Literal["ae", "concat_pca", "kernel_pca", "mfa", "snf", "wnn", "mofa", "totalvi", "multivi"] = "ae",
    modalities: str | Sequence[str] | None = None,
    kind: Literal["auto"] | Mapping[str, str] = "auto",
    layer: Mapping[str, str | None] | None = None,
    mask_var: Literal["auto"] | Mapping[str, str | np.ndarray | None] | None = "auto",
    batch_key: str | None = None,
    covariates: str | Sequence[str] | None = None,
    n_latent: int | None = None,
    model: MultimodalAutoencoder | str | Path | None = None,
    save_model: str | Path | None = None,
    key_added: str = "X_ae",
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> MuData | None:
    """Embed cells or patients from all their modalities at once; any modality may be missing in any of them.

    Single cells: each modality is embedded in units of its own sampling noise, and the embeddings are put side by side, each
    scaled by its share of signal; a modality with less than a quarter of the largest share is left out (weight 0), so that it
    does no harm. Cohorts: one encoder per modality, fused to one
    embedding that has to reconstruct every modality and to predict where a patient lies in their fused neighbor graph (as in
    similarity network fusion [Wang2014]_). Samples that miss a modality are embedded from those that they have.

    Parameters
    ----------
    mdata
        Cells or patients; modalities with different samples, rows or entries that are NaN are normal.
    method
        ``"ae"``, or for comparison, each on a copy with its own recommended settings: ``"concat_pca"`` (components of
        each modality side by side), ``"kernel_pca"`` [Schoelkopf1998]_, ``"mfa"`` (multiple factor analysis
        [Escofier1994]_), ``"mofa"`` (MOFA+ of muon [Argelaguet2020]_), ``"totalvi"`` (RNA and protein counts
        [Gayoso2021]_), ``"multivi"`` (RNA and peaks [Ashuach2023]_); and coordinates of graphs: ``"wnn"`` (muon's
        weighted nearest neighbors [Hao2021]_), ``"snf"`` (similarity network fusion [Wang2014]_, with missing samples as in NEMO [Rappoport2019]_).
    modalities
        Names of the modalities to use; None: all.
    kind
        ``"auto"`` infers the kind of data of each modality from its values; a dict names it for some: ``"counts"``,
        ``"protein"``, ``"peaks"``, ``"binary"``, ``"ordinal"``, ``"fractions"``, ``"continuous"``. What was taken is in
        ``uns["ae"][key_added]["kinds"]``.
    layer
        Modality -> layer to read; ``X`` for those not named.
    mask_var
        Modality -> column of its ``var`` (or boolean array, or None: all features): the features to read. ``"auto"``,
        also for modalities not named: ``highly_variable`` where present, else the model chooses. None: all features of
        all modalities.
    batch_key
        Column of ``mdata.obs`` whose effect the embedding should not hold; of the other methods ``"totalvi"`` and ``"multivi"``
        take it.
    covariates
        Further columns of ``mdata.obs`` whose effect the embedding should not hold, categories and numbers; see
        `aeverse.tl.embed`.
    n_latent
        Dimensions of the network's latent space (None: 32); the one reported has those of the graph (6 or 20), at most so many
        decoded ones and, of cohorts, up to 64 of what was measured, a tenth as long. For the other methods: their
        dimensions; None: as their authors recommend.
    model
        A fitted `aeverse.models.MultimodalAutoencoder`, or the path of a saved one, to use instead of training: embeddings of
        new samples, from whatever modalities they have. The parameters that describe a model are then ignored.
    save_model
        Path of a file to save the model to, for `aeverse.models.load` and `model`.
    key_added
        Key of the embedding in ``mdata.obsm`` and in the ``obsm`` of each modality.
    random_state, device, progress, copy
        As in `aeverse.tl.denoise`.

    Returns
    -------
    `None`, or the copy. Written are

    ``mdata.obsm[key_added]``
        The embedding of every sample of ``mdata.obs``, (samples, dimensions), float32.
    ``mdata.obsm["ae_weights"]``
        DataFrame (samples, modalities): how much each counts; rows sum to one, 0 where it is missing. Beside an embedding of
        another name than ``"X_ae"``: ``key_added + "_weights"``, without a leading ``"X_"``. Not written by the other methods.
    ``mdata[modality].obsm[key_added]``
        The embedding of each sample from this modality alone, NaN where its row is empty. Not written by the other methods.
    ``mdata.uns["ae"][key_added]``
        Parameters, versions, kinds of data, ``modality_weights``, the share of the variance of held-out entries that
        is explained in each of them, training history.

    Raises
    ------
    KeyError, TypeError, ValueError
        Something named does not exist, ``mdata.obs`` is out of date, modalities have no cells in common, or a result
        would overwrite what aeverse did not write. `mdata` is then as it was.

    Notes
    -----
    Ctrl-C and worker processes: as in `aeverse.tl.denoise`.

    Examples
    --------
    >>> import numpy as np, anndata as ad, mudata as md, aeverse as ae
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.normal(size=(60, 2))
    >>> mods = {m: ad.AnnData(factors @ rng.normal(size=(2, 20)) + rng.normal(size=(60, 20))) for m in ("rna", "protein")}
    >>> mdata = md.MuData(mods)
    >>> ae.tl.multimodal_embed(mdata)
    >>> mdata.obsm["X_ae"].shape[0], list(mdata.obsm["ae_weights"])
    (60, ['rna', 'protein'])
    """
    params = _slots.parameters(locals())
    check_save_model(save_model)
    if method != "ae":
        batches = () if methods.MULTIMODAL[method].takes_batches else ("batch_key",)
        refuse_unused(multimodal_embed, locals(), ("covariates", "model", "save_model", "device", *batches), method)
    warn_of_unused(multimodal_embed, locals(), ("kind", "mask_var", "batch_key", "covariates", "n_latent"))
    mdata = _slots.writable_mudata(mdata, copy)
    if method != "ae":
        _slots.check_keys(mdata, [("obsm", key_added)], key_added)
        data = _slots.read_modalities(mdata, modalities, layer, _slots.masks_of(mdata, mask_var))
        kinds = models.kinds_of(data, kind)
        _slots.require_linked(data)
        fitted = methods.MULTIMODAL[method](
            data,
            kinds,
            n_obs=mdata.n_obs,
            batches=_slots.read_categories(mdata, batch_key),
            n_latent=n_latent,
            random_state=random_state,
            progress=progress,
        )
        record = {"params": {**params, **fitted.settings}, "kinds": kinds, "versions": _slots.versions()}
        _slots.write(mdata, _slots.Results(name=key_added, record=record, obsm={key_added: fitted.code}))
        return mdata if copy else None

    _check_keys(mdata, key_added)
    config = {"random_state": random_state} | ({} if n_latent is None else {"n_latent": n_latent})
    fit: dict[str, Any] = {"modalities": modalities, "layer": layer, "mask_var": _slots.masks_of(mdata, mask_var)}
    fit |= {"kind": kind, "batch_key": batch_key, "covariates": covariates, "device": device, "progress": progress}
    trained = fit_or_load(MultimodalAutoencoder, model, mdata, config, **fit)
    parts = _encoded(mdata, trained, modalities, layer, key_added, params)
    save(trained, save_model)
    _slots.write_all(parts)
    return mdata if copy else None


def _check_keys(mdata, key_added: str) -> None:
    _slots.check_keys(mdata, [("obsm", key_added), ("obsm", _slots.side_key(key_added, "weights"))], key_added)
    for adata in mdata.mod.values():
        _slots.check_keys(adata, [("obsm", key_added)], key_added)


def _encoded(mdata, trained: MultimodalAutoencoder, modalities, layer, key_added: str, params) -> list:
    """What to write: the embedding of each modality alone into the modalities, that of all and the weights into `mdata`."""
    weights = trained.weights(mdata, modalities=modalities, layer=layer)
    if empty := int((weights.sum(axis=1) == 0).sum()):
        _slots.warn(f"{empty} samples hold nothing in any of {list(weights)}; their embedding means nothing.")
    code = trained.encode(mdata, modalities=modalities, layer=layer)
    parts = []
    for m in weights.columns[(weights > 0).any()]:
        alone = trained.encode(mdata, modalities=[m], layer=layer)
        alone[weights[m].to_numpy() == 0] = np.nan
        rows = mdata.obs_names.get_indexer(mdata[m].obs_names)
        record = {"params": {"method": "ae", "modality": m}}
        parts.append((mdata[m], _slots.Results(key_added, record, obsm={key_added: alone[rows]})))
    written = {key_added: code, _slots.side_key(key_added, "weights"): weights}
    return [*parts, (mdata, _slots.Results(key_added, multimodal_record(trained, params), obsm=written))]
