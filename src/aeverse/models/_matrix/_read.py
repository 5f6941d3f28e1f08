"""Reading one matrix out of an AnnData, as counts or as other values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.models._matrix._choices import COUNT_LIKELIHOODS
from aeverse.models._matrix._counts import Counts
from aeverse.models._matrix._network import Matrix
from aeverse.models._matrix._values import Values
from aeverse.models._shared._views import kind_of

LIKELIHOOD_OF_KIND = {
    "counts": "nb",
    "protein": "nb",
    "peaks": "poisson",
    "binary": "bernoulli",
    "fractions": "fractions",
    "continuous": "gaussian",
}


def feature_names(adata) -> pd.Index:
    """Names of the features, as strings."""
    return pd.Index(adata.var_names.astype(str))


def read(adata, layer: str | None, likelihood: str) -> Counts | Values:
    """The matrix, checked for a likelihood; ``"auto"`` infers that from the values."""
    if likelihood == "auto":
        likelihood = likelihood_of(_slots.read_matrix(adata, layer), feature_names(adata))
    return (Counts if likelihood in COUNT_LIKELIHOODS else Values).read(adata, layer, likelihood)


def likelihood_of(x: Matrix, names: pd.Index) -> str:
    """The likelihood that suits the values of a matrix."""
    kind = kind_of(x, names)
    if kind == "ordinal":  # small integers: a sparse panel of counts, or copy numbers
        values = x[np.isfinite(x)] if isinstance(x, np.ndarray) else x.data
        negative = x.shape[0] and values.min(initial=0) < 0
        return "nb" if sp.issparse(x) and not negative else "gaussian"
    return LIKELIHOOD_OF_KIND[kind]
