"""`tl.map_query`: new samples in the embedding of a trained model, their labels, and whether the model may be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.models import Autoencoder, MultimodalAutoencoder
from aeverse.tl._fit_or_load import loaded, target_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from aeverse.models._shared._reference import QueryGroup, Reference

ALPHA = 0.05
MANY = 0.2  # share of samples unlike the training data from which on a warning is due
NONE, SEPARATOR = "none of these", " | "  # of the column with prediction sets


@checked
def map_query(
    data: AnnData | MuData,
    model: Autoencoder | MultimodalAutoencoder | str | Path,
    *,
    transfer: Sequence[str] | str = (),
    reference: AnnData | MuData | None = None,
    alpha: float = 0.1,
    layer: str | Mapping[str, str | None] | None = None,
    key_added: str = "X_ae",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Map new samples with a trained model: their embedding, their labels, and how typical of the training data they are.

    Nothing is trained, and the training data are not needed: a model keeps the embedding of up to 5,000 of its training
    samples and the categorical columns of their ``obs``. Features are matched by name, whatever their order; those that
    are missing are taken to be absent (counts) or at their means, with a warning, and with less than a tenth of them the
    call is refused. Samples of a batch that the model does not know are embedded as if from an average batch.

    **Label.** The 15 nearest training samples in the embedding vote, by the inverse of their distance. Every sample gets a
    label, also a sample whose kind the model has never seen. The confidence is the label's share of the votes.

    **Prediction set.** All labels that the sample may have: the set holds the true one with probability 1 - `alpha`
    (conformal prediction [Vovk2005]_, [Angelopoulos2023]_). Several labels: the sample lies between them. No label: the
    sample is unlike the training samples of every label, as a share of at most `alpha` of known kinds is, too. How well a
    sample conforms to a label is compared within that label, where it has 30 samples, so that rare labels are covered as
    well as frequent ones. The level comes from the samples that an `aeverse.models.Autoencoder` keeps out of training (a
    twentieth, but 50 to 500 of them, or a fifth), if they are at least 2 / `alpha`; else, and with an `aeverse.models.MultimodalAutoencoder` or
    `reference`, from the training samples, and the sets are somewhat larger than they need be.

    **Typicality.** A p-value: the share of the training samples that lie at least as far from the others as the new sample
    does (mean distance to the 15 nearest), in the manner of conformal prediction. Small: unlike the training data. The
    samples that were kept out of training rescale the distances, since the training samples' own lie further apart. Of
    samples like the training data about 5 % have a typicality of at most 0.05; the fewer the training samples, the
    rougher. An `aeverse.models.MultimodalAutoencoder` keeps none out: its p-values are too large rather than too small
    (2 to 3 % at or below 0.05 in single-cell data, fewer in cohorts of some hundred patients).

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
    alpha
        Probability that a prediction set misses the true label, between 0 and 1.
    layer
        Layer to read; for MuData modality -> layer. None: as for training (MuData), else ``X``.
    key_added
        Key of the embedding.
    copy
        Write to a copy and return it.

    Returns
    -------
    `None`, or the copy. Written are

    ``obsm[key_added]``
        The embedding, (samples, dimensions), in the space of the training data's own.
    ``obs["ae_typicality"]``
        The p-value: from 0, unlike the training data, to 1, typical of them. NaN for a sample without a single count or
        modality. Beside an embedding of another name than ``"X_ae"``: ``key_added + "_typicality"``, without a leading
        ``"X_"``.
    ``obs[f"{label}_predicted"]``, ``obs[f"{label}_confidence"]``
        For each label of `transfer`: the label, categorical, and its share of the votes. So a column of the same name
        that `data` has already stays as it is.
    ``obs[f"{label}_set"]``
        The prediction set, categorical: its labels, joined by ``" | "``, or ``"none of these"``.
    ``uns["ae"][key_added]``
        Parameters, versions, the share of samples with a p-value of at most 0.05.

    Raises
    ------
    KeyError
        A label is unknown to the model (or to `reference`).
    TypeError, ValueError
        The model is for the other kind of data, too few features match, `alpha` is not between 0 and 1, or a result would
        overwrite what aeverse did not write. `data` is then as it was.

    See Also
    --------
    aeverse.models.Autoencoder.save : Keep a model in a file.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(400, 100, n_types=3)
    >>> training, query = adata[:300].copy(), adata[300:].copy()
    >>> model = ae.models.Autoencoder(n_models=1, n_latent=8).fit(training)
    >>> ae.tl.map_query(query, model, transfer="cell_type")
    >>> float((query.obs["cell_type_predicted"] == query.obs["cell_type"]).mean()) > 0.9
    True
    >>> unsure = query.obs["cell_type_set"] != query.obs["cell_type_predicted"].astype(str)
    >>> query.obs.loc[unsure, "cell_type_predicted"] = None  # only labels that are the only one in their set
    """
    params = _slots.parameters(locals())
    trained = loaded(model)
    data = target_of(trained, data, copy)
    labels = _slots.name_list(transfer)
    typicality = _slots.side_key(key_added, "typicality")
    columns = [f"{label}_{suffix}" for label in labels for suffix in ("predicted", "confidence", "set")]
    _slots.check_keys(data, [("obsm", key_added), ("obs", typicality), *(("obs", c) for c in columns)], key_added)
    if reference is None and labels:
        _require(labels, trained.labels, "the model keeps")
    if reference is not None:
        target_of(trained, reference, copy=False)
        _require(labels, reference.obs.columns, "reference.obs has")

    embedding: np.ndarray | None = None
    tables: list[pd.DataFrame] = []
    for group in trained.placed(data, layer=layer):
        if embedding is None:
            embedding = np.full((data.n_obs, group.code.shape[1]), np.nan, np.float32)
        embedding[group.rows] = group.code
        if group.reference is not None:
            source = (
                group.reference if reference is None else trained.label_source(reference, labels, group, layer=layer)
            )
            tables.append(pd.DataFrame({typicality: group.reference.p_values(group.code)}, index=group.rows))
            for label in labels:
                tables[-1] = tables[-1].join(_transferred(source, label, group, alpha))
    obs = _joined(tables, [typicality, *columns], data.n_obs)
    measured = obs[typicality][np.isfinite(obs[typicality])]
    unlike = float((measured <= ALPHA).mean()) if len(measured) else np.nan
    if unlike > MANY:
        _slots.warn(
            f"{unlike:.0%} of the samples are unlike the training data ({typicality} of at most {ALPHA}, where {ALPHA:.0%} "
            "are expected): other kinds of samples, or a batch effect. Labels transferred to them are not to be trusted."
        )
    record = {"params": params, "versions": _slots.versions(), "share_unlike": unlike}
    record["model_checksum"] = trained.record()["checksum"]
    obsm = {} if embedding is None else {key_added: embedding}
    _slots.write(data, _slots.Results(key_added, record, obsm=obsm, obs=obs))
    return data if copy else None


def _transferred(source: Reference, label: str, group: QueryGroup, alpha: float) -> pd.DataFrame:
    """Label, confidence and prediction set of the samples of a group."""
    predicted, confidence = source.transfer(label, group.code)
    names = source.labels[label].categories
    sets = [SEPARATOR.join(names[row]) or NONE for row in source.possible(label, group.code, alpha)]
    values = {"predicted": predicted, "confidence": confidence, "set": sets}
    return pd.DataFrame({f"{label}_{suffix}": value for suffix, value in values.items()}, index=group.rows)


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str], n_obs: int) -> dict[str, Any]:
    """The tables of all groups as columns of ``obs``, with nothing where nothing was measured."""
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
    table = table.reindex(np.arange(n_obs))
    words = [name for name in columns if name.endswith(("_predicted", "_set"))]
    return {name: pd.Categorical(table[name]) if name in words else table[name].to_numpy(float) for name in columns}


def _require(labels: Sequence[str], columns, where: str) -> None:
    if unknown := [label for label in labels if label not in columns]:
        raise KeyError(f"transfer={unknown} cannot be transferred: {where} {sorted(map(str, columns)) or 'no labels'}.")
