"""Kernel principal components of one modality or several."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Preparation, moments, standardize

N_COMPONENTS = 30
EXACT_UP_TO = 5000  # samples; beyond, so many of them stand for all
N_LANDMARKS = 1000
SMALLEST = 1e-7  # eigenvalues below this share of the largest are noise of the arithmetic


def kernel_pca(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, n_latent, random_state
) -> Fitted:
    """Kernel PCA [Schoelkopf1998]_, `n_latent` (30) components of a Gaussian kernel.

    The squared distance of two samples is the mean over the modalities that both have, each divided by its mean over
    the training samples; so nothing is filled in. New samples are projected [Schoelkopf1998]_. Above 5,000 samples the
    kernel is approximated from 1,000 of them [Williams2001]_.
    """
    landmarks = np.arange(n_obs)
    if n_obs > EXACT_UP_TO:
        landmarks = np.sort(np.random.default_rng(random_state).permutation(n_obs)[:N_LANDMARKS])
    parts = {m: part for m, d in data.items() if len((part := _Part(d, kinds[m], landmarks)).places)}

    def kernel(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        total, common = np.zeros((n_obs, len(landmarks))), np.zeros((n_obs, len(landmarks)))
        for m, part in parts.items():
            if m in data:
                both = np.ix_(data[m].rows, part.places)
                total[both] += part.distances(data[m])
                common[both] += 1
        return np.exp(-np.where(common > 0, total / np.maximum(common, 1), 1))

    training_kernel = kernel(data, n_obs)
    gram = training_kernel[landmarks]
    columns, mean = gram.mean(0), gram.mean()
    values, vectors = np.linalg.eigh(gram - columns - columns[:, None] + mean)
    # Averaging over different modalities can make small eigenvalues negative; they carry nothing.
    n_components = max(1, min(n_latent or N_COMPONENTS, int((values > SMALLEST * values[-1]).sum())))
    axes = vectors[:, ::-1][:, :n_components] / np.sqrt(np.maximum(values[::-1][:n_components], 1e-12))

    def project(rows: np.ndarray) -> np.ndarray:
        return ((rows - rows.mean(1, keepdims=True) - columns + mean) @ axes).astype(np.float32)

    settings = {"n_components": n_components, "n_landmarks": len(landmarks)}
    return Fitted(project(training_kernel), settings, lambda data, n_obs: project(kernel(data, n_obs)))


class _Part:
    """One modality of the landmarks, and squared distances to it over their mean among the landmarks."""

    def __init__(self, d: _slots.Modality, kind: str, landmarks: np.ndarray):
        self.prepare = Preparation(d, kind)
        x = self.prepare(d)
        self.moments = None if kind in ("counts", "peaks") else moments(x)
        self.places = np.flatnonzero(np.isin(landmarks, d.rows))  # of the landmarks that have this modality
        self.x = self._scaled(x)[np.isin(d.rows, landmarks)]
        self.mean = max(float(squared_distances(self.x, self.x).mean()), 1e-12) if len(self.places) else 1.0

    def distances(self, d: _slots.Modality) -> np.ndarray:
        return squared_distances(self._scaled(self.prepare(d)), self.x) / self.mean

    def _scaled(self, x) -> sp.csr_matrix | np.ndarray:
        return x if self.moments is None else standardize(x, *self.moments)


def squared_distances(a, b) -> np.ndarray:
    """Between the rows of two matrices, dense or sparse."""
    product = a @ b.T
    product = product.toarray() if sp.issparse(product) else product
    squares = [np.asarray((x.multiply(x) if sp.issparse(x) else x * x).sum(1), np.float64).ravel() for x in (a, b)]
    return np.maximum(squares[0][:, None] + squares[1] - 2 * product, 0)
