"""Which samples lie near one another, across batches too, and the components that a code is to predict of them."""

from __future__ import annotations

import numpy as np
import torch

from aeverse.nn import nearest

EXACT_NEIGHBORS_UP_TO = 20_000
MATCHING_ROUNDS = 5
LEAST_VARIANCE = 1e-3  # of a target, as a share of the largest


def neighbors_of(z: np.ndarray, k: int, batches: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Distances and positions of the nearest samples; with batches, equally many in each of them."""
    if batches is not None:
        return _balanced_neighbors(z, k, batches)
    if len(z) <= EXACT_NEIGHBORS_UP_TO:
        return nearest(z, k)
    from pynndescent import NNDescent

    indices, distances = NNDescent(z, n_neighbors=k + 1, random_state=0).neighbor_graph
    return distances[:, 1:], indices[:, 1:].astype(np.int64)


def _balanced_neighbors(z: np.ndarray, k: int, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest samples of every batch (BBKNN [Polanski2020]_)."""
    present = np.unique(batches)
    each = max(3, -(-k // len(present)))
    per_batch = []
    for b in present:
        members = np.flatnonzero(batches == b)
        distances, indices = nearest(z, each + 1, among=z[members])
        per_batch.append(
            (np.where(members[indices] == np.arange(len(z))[:, None], np.inf, distances), members[indices])
        )
    distances, indices = (np.hstack(parts) for parts in zip(*per_batch, strict=True))
    order = np.argsort(distances, 1, kind="stable")[:, : distances.shape[1] - 1]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)


def batch_shifts(z: np.ndarray, batches: np.ndarray, k: int) -> np.ndarray:
    """How far each batch lies from its matches in all batches, (n_batches, dimensions).

    Matches, not means, are compared, so that batches may hold different kinds of cells.
    """
    shifts = np.zeros((int(batches.max()) + 1, z.shape[1]), np.float32)
    for _ in range(MATCHING_ROUNDS):
        moved = z - shifts[batches]
        _, indices = _balanced_neighbors(moved, k, batches)
        displacement = moved - moved[indices].mean(1)
        for b in np.unique(batches):
            shifts[b] += displacement[batches == b].mean(0)
    return shifts


def principal(x: np.ndarray, k: int) -> np.ndarray:
    """Scores on the leading principal components."""
    x = x - x.mean(0)
    vectors = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :k]
    sign = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
    return x @ (vectors * sign)


def target_weights(target: np.ndarray, power: float) -> torch.Tensor:
    """Weights of the targets' errors: variance to minus `power`, so that their sum is that of equal weights.

    A target that hardly varies, as where there are fewer components than targets, must not outweigh all others.
    """
    variance = target.var(0)
    variance = np.maximum(variance, max(LEAST_VARIANCE * float(variance.max()), 1e-12))
    weights = variance**-power
    return torch.tensor(weights / (weights * variance).sum() * variance.sum(), dtype=torch.float32)
