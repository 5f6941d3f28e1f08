"""Predicting a modality from others: training samples like the one at hand, in the code and in the components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.models._shared._kinds import KINDS
from aeverse.nn import nearest

N_NEIGHBORS = 50
KEPT_FEATURES = 500  # modalities of up to so many features are kept as they are, larger ones as components
RIDGE = 0.02  # of the mean variance of the components
CALIBRATED = 1000  # training samples from which the standard deviations are calibrated


class Target:
    """What is kept of a modality so that it can be predicted: values of the training samples, on their natural scale.

    RNA and protein counts: log1p (RNA after normalization to the median depth); peaks: open or not; anything else: as
    it is. Of more than 500 features the components are kept, and how each feature depends on them.
    """

    def __init__(
        self, names: pd.Index, rows: np.ndarray, values: np.ndarray, loadings: np.ndarray | None, offset: np.ndarray
    ):
        self.names, self.rows, self.values, self.loadings, self.offset = names, rows, values, loadings, offset

    @classmethod
    def fit(cls, d: _slots.Modality, kind: str, scores: np.ndarray) -> Target:
        """From the training samples of a modality and their scores."""
        x = KINDS[kind].natural_scale(d.x)
        if x.shape[1] <= KEPT_FEATURES:
            x = x if isinstance(x, np.ndarray) else x.toarray()
            mean = np.nan_to_num(np.nanmean(x, 0))
            return cls(
                d.names, d.rows, np.where(np.isnan(x), mean, x).astype(np.float32), None, np.zeros(0, np.float32)
            )
        x = x if sp.issparse(x) else np.where(np.isnan(x), np.nan_to_num(np.nanmean(x, 0)), x)
        z = scores - scores.mean(0)
        loadings = np.linalg.solve(z.T @ z + 1e-3 * len(z) * np.eye(z.shape[1]), np.asarray(x.T @ z).T)
        offset = np.asarray(x.mean(0)).ravel() - scores.mean(0) @ loadings
        return cls(d.names, d.rows, scores.astype(np.float32), loadings.astype(np.float32), offset.astype(np.float32))

    def features(self, mean: np.ndarray, variance: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of some features."""
        if self.loadings is None:
            return mean[:, columns], np.sqrt(variance[:, columns])
        loadings = self.loadings[:, columns]
        return mean @ loadings + self.offset[columns], np.sqrt(variance @ loadings**2)

    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "names": list(self.names),
            "rows": self.rows,
            "values": self.values,
            "loadings": self.loadings,
            "offset": self.offset,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Target:
        """Rebuild from a `tree`."""
        return cls(pd.Index(tree["names"]), tree["rows"], tree["values"], tree["loadings"], tree["offset"])


def knn_regression(
    queries: Sequence[np.ndarray],
    references: Sequence[np.ndarray],
    values: np.ndarray,
    twins: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the values of the nearest references, averaged over several spaces.

    Parameters
    ----------
    queries, references
        For each space (rows, dimensions).
    values
        (references, dimensions).
    twins
        For each query the position of the reference that is the same sample, which must not vote; -1: none.

    Returns
    -------
    Weighted mean and weighted variance among the neighbors, both (queries, dimensions).
    """
    means, variances = [], []
    for query, reference in zip(queries, references, strict=True):
        distances, indices = nearest(query, min(N_NEIGHBORS + 1, len(reference)), among=reference)
        weights = np.where(indices == twins[:, None], 0, 1 / np.maximum(distances, 1e-3 * np.median(distances) + 1e-12))
        weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)
        graph = sp.csr_matrix(
            (weights.ravel(), indices.ravel(), np.arange(0, indices.size + 1, indices.shape[1])),
            shape=(len(query), len(reference)),
        )
        means.append(graph @ values)
        variances.append(np.maximum(graph @ values**2 - means[-1] ** 2, 0))
    return np.mean(means, 0), np.mean(variances, 0)


def ridge_space(
    query: np.ndarray, reference: np.ndarray, values: np.ndarray, twins: np.ndarray, standardize: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What a ridge regression on components says of the target: a space in which only what matters to it is near.

    A reference lies where the regression on all the others puts it, so that its own value says nothing.

    Parameters
    ----------
    query, reference
        Components, (rows, dimensions).
    values
        Of the references, (references, features).
    twins
        For each query the position of the reference that is the same sample; -1: none.
    standardize
        Give every feature the same say.

    Returns
    -------
    Positions of queries and references, float32.
    """
    center, mean = reference.mean(0), values.mean(0)
    z = (reference - center).astype(np.float64)
    penalty = RIDGE * max(float((z**2).sum()), 1e-12) / z.shape[1]
    inverse = np.linalg.inv(z.T @ z + penalty * np.eye(z.shape[1]))
    slope = inverse @ z.T @ (values - mean)
    leverage = np.einsum("ij,jk,ik->i", z, inverse, z) + 1 / len(z)
    left_out = values - (values - mean - z @ slope) / np.maximum(1 - leverage, 1e-3)[:, None]
    predicted = np.where((twins >= 0)[:, None], left_out[twins], (query - center) @ slope + mean)
    scale = np.maximum(values.std(0), 1e-6) if standardize else 1.0
    return (predicted / scale).astype(np.float32), (left_out / scale).astype(np.float32)


def variance_inflation(spaces: Sequence[np.ndarray], values: np.ndarray, random_state: int) -> np.ndarray:
    """For each dimension the squared error of samples predicted without themselves, over what their neighbors vary."""
    chosen = np.random.default_rng(random_state).permutation(len(values))[:CALIBRATED]
    mean, variance = knn_regression([s[chosen] for s in spaces], spaces, values, chosen)
    return ((values[chosen] - mean) ** 2).mean(0) / np.maximum(variance.mean(0), 1e-12)


def predict_dimensions(
    target: Target,
    query: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    usable: np.ndarray,
    twins: np.ndarray,
    random_state: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a target's dimensions (what is kept of it), (queries, dimensions).

    Parameters
    ----------
    target
        What to predict.
    query, reference
        Spaces of queries and of the training samples that have the target, the last of components.
    usable
        Which of the target's samples these are.
    twins
        For each query the position of the reference that is the same sample; -1: none.
    random_state
        Seed of the samples that calibrate the variance.
    """
    values = target.values[usable]
    further = ridge_space(query[-1], reference[-1], values, twins, standardize=target.loadings is None)
    queries, references = [*query, further[0]], [*reference, further[1]]
    mean, variance = knn_regression(queries, references, values, twins)
    return mean, variance * variance_inflation(references, values, random_state)
