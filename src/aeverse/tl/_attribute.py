"""`tl.attribute`: which features stand behind a dimension of the embedding, or behind a group of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aeverse import _slots, models
from aeverse._arguments import checked
from aeverse.models import Autoencoder, MultimodalAutoencoder
from aeverse.models._shared._reference import read_labels
from aeverse.tl._fit_or_load import loaded, target_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@checked
def attribute(
    data: AnnData | MuData,
    model: Autoencoder | MultimodalAutoencoder | str | Path,
    *,
    groupby: str | None = None,
    n_top: int = 50,
    layer: str | Mapping[str, str | None] | None = None,
    key_added: str = "ae_attributions",
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Tell which features drive each dimension of the embedding, or set each group of samples apart, by integrated gradients.

    Integrated gradients [Sundararajan2017]_ share out what an output of the encoder changes by on the straight way from a
    baseline to a sample among the features; the shares add up to the change. They explain the *model*: of several genes
    that say the same it may use one or all, and nothing here is a test of differential expression.

    Without `groupby`, each dimension of the embedding is explained; the baseline is the mean sample. The value of a feature is
    the slope of its attributions on its own values, for one standard deviation of the feature and in standard deviations
    of the dimension: +0.2 means that a cell with one standard deviation more of the gene (log-normalized, for counts) lies
    0.2 standard deviations higher in that dimension. For a linear encoder it is the weight itself.

    With `groupby`, each group is explained; the baseline is the mean of the samples of all other groups, the output how
    far a sample lies along the line from their mean embedding to the group's. The value of a feature is its share of the way,
    with the sign of what leads towards the group: positive for large values of the feature, negative for small ones. A
    share of 0.05 is a twentieth of the way; features that lead back have the opposite sign, so that the absolute values of
    all features (of all modalities) add up to more than 1.

    Parameters
    ----------
    data
        Samples to explain, which the model was trained on or not; at most 2,000 (of each group) are looked at.
    model
        Fitted `aeverse.models.Autoencoder` (AnnData) or `aeverse.models.MultimodalAutoencoder` (MuData), or the path of a
        saved one. Any encoder, likelihood and regularizer.
    groupby
        Column of ``obs`` with groups, such as clusters or those of `aeverse.tl.subtypes`; samples where it is missing
        are left out. None: the dimensions of the embedding.
    n_top
        Features that count as the strongest, for the stability.
    layer
        Layer to read; for MuData modality -> layer.
    key_added
        Name of the results.
    random_state
        Seed of the resamples.
    copy
        Write to a copy and return it.

    Returns
    -------
    `None`, or the copy. Written are, for MuData in each modality,

    ``varm[key_added]``
        DataFrame (features, groups or dimensions), 0 for features that the encoder does not read.
    ``varm[key_added + "_stability"]``
        The same shape: the share of resamples of the samples in which the feature is again, with the same sign, one of
        the `n_top` strongest of the group. Strong features below about 0.8 should not be reported.
    ``uns["ae"][key_added]``
        Parameters and versions.

    Raises
    ------
    KeyError, TypeError, ValueError
        `groupby` does not exist or has fewer than two groups, the model is for the other kind of data, too few features
        match, or a result would overwrite what aeverse did not write. `data` is then as it was.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(200, 60, n_types=3)
    >>> model = ae.models.Autoencoder(n_models=1, n_latent=8).fit(adata)
    >>> ae.tl.attribute(adata, model, groupby="cell_type")
    >>> adata.varm["ae_attributions"].columns.tolist()
    ['type 0', 'type 1', 'type 2']
    """
    params = _slots.parameters(locals())
    trained = loaded(model)
    data = target_of(trained, data, copy)
    keys = [key_added, f"{key_added}_stability"]
    of_one = isinstance(trained, models.Autoencoder)
    for part in [data] if of_one else list(data.mod.values()):
        _slots.check_keys(part, [("varm", key) for key in keys], key_added)
    groups = None if groupby is None else _groups(data, groupby)
    attributions, columns = trained.attributions(data, groups, n_top=n_top, layer=layer, random_state=random_state)
    record = {"params": params, "versions": _slots.versions()}
    parts = []
    for name, attribution in attributions.items():
        part = data if of_one else data.mod[name]
        tables = {
            key: _on_all(values, attribution.positions, part.var_names, columns)
            for key, values in zip(keys, (attribution.values, attribution.stability), strict=True)
        }
        parts.append((part, _slots.Results(key_added, record, varm=tables)))
    _slots.write_all(parts)
    return data if copy else None


def _groups(data, groupby: str) -> pd.Categorical:
    """Groups of the samples, in the order of their categories; missing where nothing is known."""
    if groupby not in data.obs:
        raise KeyError(f"groupby={groupby!r} is not a column of obs; columns are: {list(data.obs.columns)}.")
    groups = read_labels(data.obs[groupby], groupby)
    if len(groups.categories) < 2:
        raise ValueError(f"obs[{groupby!r}] has one group only, {groups.categories[0]!r}; two are needed.")
    return groups


def _on_all(values: np.ndarray, positions: np.ndarray, names: pd.Index, columns: list[str]) -> pd.DataFrame:
    table = np.zeros((len(names), values.shape[1]), np.float32)
    table[positions[positions >= 0]] = values[positions >= 0]
    return pd.DataFrame(table, index=names, columns=columns)
