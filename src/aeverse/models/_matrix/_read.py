"""Reading one matrix out of an AnnData, as counts or as other values."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.models._matrix._counts import Counts
from aeverse.models._matrix._on_disk import CountsOnDisk
from aeverse.models._matrix._settings import Settings
from aeverse.models._matrix._values import Values
from aeverse.models._shared._kinds import likelihood_of
from aeverse.nn import LIKELIHOODS


def read(adata, layer: str | None, likelihood: str) -> Counts | CountsOnDisk | Values:
    """The matrix, checked for a likelihood; ``"auto"`` infers that from the values. Many counts on disk stay there."""
    if likelihood == "auto":
        likelihood = likelihood_of(_slots.first_rows(adata, layer), _slots.feature_names(adata))
        if layer is None and not LIKELIHOODS[likelihood].is_count and "counts" in adata.layers:
            _slots.warn(
                f"X holds no raw counts, so that the likelihood is {likelihood!r}, but layers['counts'] exists: pass "
                "layer='counts' to model the counts, which is better where they are raw, or name the likelihood."
            )
    if not LIKELIHOODS[likelihood].is_count:
        return Values.read(adata, layer, likelihood)
    stored = _slots.stored_counts(adata, layer)
    return Counts.read(adata, layer, likelihood) if stored is None else CountsOnDisk.of(stored, likelihood)


def read_to_learn(adata, layer: str | None, likelihood: str) -> Counts | CountsOnDisk | Values:
    """The same, refusing what nothing can be learned from, with a warning of what is unlike counts."""
    data = read(adata, layer, likelihood)
    data.require_values()
    if isinstance(data, Counts):
        _slots.warn_of_unusual_counts(data.x, adata, layer)
    return data


def known_types(adata, label_key: str | None, settings: Settings, rows: np.ndarray) -> np.ndarray | None:
    """Known types of some samples as integers, -1 where they are not known, for a model whose embedding can use them."""
    if label_key is None:
        return None
    dtype = _slots.in_memory_table(adata.obs).dtypes.get(label_key)
    if dtype is not None and pd.api.types.is_float_dtype(dtype):
        raise TypeError(f"label_key={label_key!r}: obs[{label_key!r}] holds numbers ({dtype}), not labels.")
    labels = _slots.read_labels(adata, label_key)
    if not settings.in_noise_units:
        raise ValueError(
            f"label_key={label_key!r} makes types round in an embedding in units of noise, which this model "
            f"(likelihood={settings.likelihood!r}, regularizer={settings.regularizer!r}) has not: leave it out, or pass raw counts "
            "and regularizer='denoising' without gene_sets."
        )
    return np.asarray(labels.codes, np.int64)[rows]
