"""Kernel principal component analysis."""

from __future__ import annotations

import numpy as np

from aeverse.methods._features import Features
from aeverse.methods._fitted import Fitted

N_COMPONENTS = 32
EXACT_UP_TO = 5000  # samples; beyond, so many of them stand for all
N_LANDMARKS = 1000
N_PAIRED = 1000  # samples whose distances give the width of the kernel
SMALLEST = 1e-7  # eigenvalues below this share of the largest are noise of the arithmetic


def kernel_pca(x, *, kind, names, mask, batches, n_latent, random_state, progress) -> Fitted:
    """`n_latent` (32) components [Schoelkopf1998]_ of an RBF kernel as wide as the median distance of two samples.

    Above 5,000 samples the kernel is approximated from 1,000 of them [Williams2001]_.
    """
    features, rng = Features(x, kind, names, mask), np.random.default_rng(random_state)
    y = features(x)
    some = y[np.sort(rng.permutation(len(y))[:N_PAIRED])]
    squares = _squared_distances(some, some)[np.triu_indices(len(some), 1)]
    width = float(np.median(squares[squares > 0])) if (squares > 0).any() else 1.0
    exact = len(y) <= EXACT_UP_TO
    landmarks = y if exact else y[np.sort(rng.permutation(len(y))[:N_LANDMARKS])]

    def kernel(rows: np.ndarray) -> np.ndarray:
        return np.exp(-_squared_distances(rows, landmarks) / width)

    gram = kernel(landmarks)
    means, mean = gram.mean(0), gram.mean()
    values, vectors = np.linalg.eigh(gram - means - means[:, None] + mean)
    values, vectors = values[::-1], vectors[:, ::-1]
    k = max(1, min(n_latent or N_COMPONENTS, int((values > SMALLEST * values[0]).sum())))
    axes = vectors[:, :k] / np.sqrt(np.maximum(values[:k], 1e-12))

    def encode(new) -> np.ndarray:
        rows = kernel(features(new))
        return ((rows - rows.mean(1, keepdims=True) - means + mean) @ axes).astype(np.float32)

    settings = {"n_components": k, "width": width**0.5, "n_landmarks": len(landmarks)}
    return Fitted(encode(x), settings, encode)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)
