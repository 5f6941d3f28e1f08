"""Kernel principal components of all modalities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Preparation, moments, require_few, standardise

N_COMPONENTS, MOST_SAMPLES = 30, 10_000


def multimodal_kernel_pca(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, batches, n_latent, random_state, progress
) -> Fitted:
    """Kernel PCA [Schoelkopf1998]_, `n_latent` (30) components of a Gaussian kernel.

    The squared distance of two samples is the mean over the modalities that both have, each divided by its mean over
    the training samples; so nothing is filled in. New samples are projected [Schoelkopf1998]_.
    """
    require_few(n_obs, MOST_SAMPLES, "kernel_pca")
    parts = {}
    for m, d in data.items():
        prepare = Preparation(d, kinds[m])
        x = prepare(d)
        scale = moments(x) if kinds[m] not in ("counts", "peaks") else None
        x = x if scale is None else standardise(x, *scale)
        square = _squared_distances(x, x)
        parts[m] = prepare, scale, x, d.rows, max(float(square.mean()), 1e-12)
    n_training = n_obs

    def kernel(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        total, common = np.zeros((n_obs, n_training)), np.zeros((n_obs, n_training))
        for m, (prepare, scale, reference, rows, mean) in parts.items():
            if m in data:
                x = prepare(data[m])
                x = x if scale is None else standardise(x, *scale)
                both = np.ix_(data[m].rows, rows)
                total[both] += _squared_distances(x, reference) / mean
                common[both] += 1
        return np.exp(-np.where(common > 0, total / np.maximum(common, 1), 1))

    own = kernel(data, n_obs)
    columns, everything = own.mean(0), own.mean()
    values, vectors = np.linalg.eigh(own - columns - columns[:, None] + everything)
    # Averaging over different modalities can make small eigenvalues negative; they carry nothing.
    n_components = max(1, min(n_latent or N_COMPONENTS, int((values > 1e-9 * values[-1]).sum())))
    axes = vectors[:, ::-1][:, :n_components] / np.sqrt(np.maximum(values[::-1][:n_components], 1e-12))

    def encode(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        cross = kernel(data, n_obs)
        return ((cross - cross.mean(1, keepdims=True) - columns + everything) @ axes).astype(np.float32)

    return Fitted(encode(data, n_obs), {"n_components": n_components}, encode)


def _squared_distances(a, b) -> np.ndarray:
    """Between the rows of two matrices, dense or sparse."""
    product = a @ b.T
    product = product.toarray() if sp.issparse(product) else product
    squares = [np.asarray((x.multiply(x) if sp.issparse(x) else x * x).sum(1), np.float64).ravel() for x in (a, b)]
    return np.maximum(squares[0][:, None] + squares[1] - 2 * product, 0)
