"""`tl.map_query`: new samples in the code of a trained model, their labels, and whether the model may be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.tl._fit_or_load import loaded, target_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from aeverse.models import Autoencoder, MultimodalAutoencoder

ALPHA = 0.05
MANY = 0.2  # share of samples unlike the training data from which on a warning is due


def map_query(
    data: AnnData | MuData,
    model: Autoencoder | MultimodalAutoencoder | str | Path,
    *,
    transfer: Sequence[str] | str = (),
    reference: AnnData | MuData | None = None,
    layer: str | Mapping[str, str | None] | None = None,
    key_added: str = "X_ae",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Map new samples with a trained model: their code, their labels, and how unlike the training data they are.

    Nothing is trained, and the training data are not needed: a model keeps the codes of up to 5,000 of its training
    samples and the categorical columns of their ``obs``. Features are matched by name, whatever their order; those that
    are missing are taken to be absent (counts) or at their means, with a warning, and with less than a tenth of them the
    call is refused. Samples of a batch that the model does not know are taken as of an average one.

    Labels are those of the 15 nearest training samples in the code, which vote by the inverse of their distance. Every
    sample gets one, also a sample whose kind the model has never seen: the confidence says how far its neighbours agree,
    and the p-value whether they are neighbours at all: the share of the training samples that lie at least as far from
    the others as the new one does (mean distance to the 15 nearest), in the manner of conformal prediction [Vovk2005]_,
    [Angelopoulos2023]_. An `aeverse.models.Autoencoder` keeps a twentieth of the samples out of training (at most 500) and
    rescales the distances by theirs, since the codes of samples that it was trained on lie further apart. Of samples like
    the training data about 5 % have a p-value of at most 0.05; the fewer the training samples, the rougher. An
    `aeverse.models.MultimodalAutoencoder` keeps none out: its p-values are too large rather than too small (2 to 3 % at
    or below 0.05 in single-cell data, fewer in cohorts of some hundred patients).

    Parameters
    ----------
    data
        New samples: AnnData for an `aeverse.models.Autoencoder`, MuData (with any subset of the modalities, also another
        one for each sample) for a `aeverse.models.MultimodalAutoencoder`.
    model
        The fitted model, or the path of a saved one.
    transfer
        Labels to transfer: columns of ``obs`` of the training data, or of `reference`.
    reference
        Samples to take the labels from instead: for labels that came after training, or from another data set. They are
        encoded by the model too.
    layer
        Layer to read; for MuData modality -> layer. None: as for training (MuData), else ``X``.
    key_added
        Key of the code.
    copy
        Write to a copy and return it.

    Returns
    -------
    `None`, or the copy. Written are

    ``obsm[key_added]``
        The code, (samples, dimensions), in the space of the training data's own.
    ``obs["ae_outlier"]``
        The p-value; small: unlike the training data. NaN for a sample without a single count or modality. Beside a code of
        another name than ``"X_ae"``: ``key_added + "_outlier"``, without a leading ``"X_"``.
    ``obs[f"{label}_predicted"]``, ``obs[f"{label}_confidence"]``
        For each label of `transfer`: the label, categorical, and its share of the votes. So a column of the same name
        that `data` has already stays as it is.
    ``uns["ae"][key_added]``
        Parameters, versions, the share of samples with a p-value of at most 0.05.

    Raises
    ------
    KeyError
        A label is unknown to the model (or to `reference`).
    TypeError, ValueError
        The model is for the other kind of data, too few features match, or a result would overwrite what aeverse did not
        write. `data` is then as it was.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(400, 100, n_types=3)
    >>> training, query = adata[:300].copy(), adata[300:].copy()
    >>> model = ae.models.Autoencoder(n_models=1, n_latent=8).fit(training)
    >>> ae.tl.map_query(query, model, transfer="cell_type")
    >>> float((query.obs["cell_type_predicted"] == query.obs["cell_type"]).mean()) > 0.9
    True
    """
    params = _slots.parameters(locals())
    trained = loaded(model)
    data = target_of(trained, data, copy)
    labels = _slots.name_list(transfer)
    outlier = _slots.side_key(key_added, "outlier")
    columns = [f"{label}_{what}" for label in labels for what in ("predicted", "confidence")]
    _slots.check_keys(data, [("obsm", key_added), ("obs", outlier), *(("obs", c) for c in columns)], key_added)
    if reference is None and labels:
        _require(labels, trained.labels, "the model keeps")
    if reference is not None:
        target_of(trained, reference, copy=False)
        _require(labels, reference.obs.columns, "reference.obs has")

    code: np.ndarray | None = None
    p_values = np.full(data.n_obs, np.nan)
    found: dict[str, pd.Categorical] = {}
    confidence = {label: np.full(data.n_obs, np.nan) for label in labels}
    for group in trained.placed(data, layer=layer):
        code = np.full((data.n_obs, group.code.shape[1]), np.nan, np.float32) if code is None else code
        code[group.rows] = group.code
        if group.reference is None:
            continue
        p_values[group.rows] = group.reference.p_values(group.code)
        source = group.reference if reference is None else trained.labelled(reference, labels, group, layer=layer)
        for label in labels:
            names, confidence[label][group.rows] = source.transfer(label, group.code)
            if label not in found:
                found[label] = pd.Categorical([None] * data.n_obs, categories=names.categories)
            found[label][group.rows] = names
    unlike = float(np.mean(p_values[np.isfinite(p_values)] <= ALPHA)) if np.isfinite(p_values).any() else np.nan
    if unlike > MANY:
        _slots.warn(
            f"{unlike:.0%} of the samples are unlike the training data ({outlier} of at most {ALPHA}, where {ALPHA:.0%} are "
            "expected): other kinds of samples, or a batch effect. Labels transferred to them are not to be trusted."
        )
    obs: dict[str, Any] = {outlier: p_values}
    for label in labels:
        nothing = pd.Categorical([None] * data.n_obs)
        obs |= {f"{label}_predicted": found.get(label, nothing), f"{label}_confidence": confidence[label]}
    record = {"params": params, "versions": _slots.versions(), "share_unlike": unlike}
    _slots.write(data, _slots.Results(key_added, record, obsm={} if code is None else {key_added: code}, obs=obs))
    return data if copy else None


def _require(labels: Sequence[str], known, where: str) -> None:
    if unknown := [label for label in labels if label not in known]:
        raise KeyError(f"transfer={unknown} cannot be transferred: {where} {sorted(map(str, known)) or 'no labels'}.")
