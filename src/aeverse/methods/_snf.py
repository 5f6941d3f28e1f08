"""Similarity network fusion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._kernel_pca import squared_distances
from aeverse.methods._prepare import Preparation, moments, require_few, standardize

N_NEIGHBORS, WIDTH, N_ROUNDS = 20, 0.5, 20  # as its authors recommend
N_COORDINATES, MOST_SAMPLES = 10, 5_000


def snf(data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, n_latent) -> Fitted:
    """`n_latent` (10) coordinates of the graph that SNF [Wang2014]_ fuses from the modalities' graphs.

    Samples that lack a modality take no part in its graph (as in NEMO [Rappoport2019]_), which SNF itself leaves open.
    Transductive: there is no code for a sample that was not in the data.
    """
    require_few(n_obs, MOST_SAMPLES, "snf")
    rows, whole, local = [], [], []
    for m, d in data.items():
        x = Preparation(d, kinds[m])(d)
        x = x if kinds[m] in ("counts", "peaks") else standardize(x, *moments(x))
        affinity = _affinity(np.sqrt(squared_distances(x, x)))
        rows.append(d.rows)
        whole.append(_normalized(affinity))
        local.append(_nearest(affinity))
    for _ in range(N_ROUNDS if len(whole) > 1 else 0):
        whole = [_symmetric(local[i] @ _others(i, whole, rows, n_obs) @ local[i].T) for i in range(len(whole))]
    fused, common = _sum(whole, rows, n_obs)
    fused = _symmetric(fused / np.maximum(common, 1))
    degree = np.sqrt(np.maximum(fused.sum(1), 1e-12))
    values, vectors = np.linalg.eigh(fused / np.outer(degree, degree))
    n_coordinates = min(n_latent or N_COORDINATES, n_obs - 1)
    code = vectors[:, ::-1][:, 1 : n_coordinates + 1] * values[::-1][1 : n_coordinates + 1] * np.sqrt(n_obs)
    return Fitted(code.astype(np.float32), {"n_coordinates": code.shape[1], "n_neighbors": N_NEIGHBORS})


def _affinity(distance: np.ndarray) -> np.ndarray:
    """Gaussian kernel whose width is the mean distance of two samples to their neighbors and to each other."""
    k = min(N_NEIGHBORS, len(distance) - 1)
    near = np.sort(distance, 1)[:, 1 : k + 1].mean(1)
    width = np.maximum(WIDTH * (near[:, None] + near + distance) / 3, 1e-12)
    return np.exp(-0.5 * (distance / width) ** 2) / width


def _normalized(affinity: np.ndarray) -> np.ndarray:
    """SparseRows that sum to one, half of it on the diagonal."""
    off = affinity - np.diag(np.diag(affinity))
    off = off / np.maximum(2 * off.sum(1, keepdims=True), 1e-12)
    return off + np.eye(len(off)) / 2


def _nearest(affinity: np.ndarray) -> np.ndarray:
    """The affinities to the nearest neighbors only, rows summing to one."""
    k = min(N_NEIGHBORS, len(affinity))
    nearest = affinity * (affinity >= np.sort(affinity, 1)[:, [-k]])
    return nearest / nearest.sum(1, keepdims=True)


def _symmetric(p: np.ndarray) -> np.ndarray:
    p = _normalized(p)
    return (p + p.T) / 2


def _sum(graphs: list[np.ndarray], rows: list[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of graphs at the places of their samples, and how many graphs know each pair."""
    total, common = np.zeros((n, n)), np.zeros((n, n))
    for graph, where in zip(graphs, rows, strict=True):
        total[np.ix_(where, where)] += graph
        common[np.ix_(where, where)] += 1
    return total, common


def _others(i: int, graphs: list[np.ndarray], rows: list[np.ndarray], n: int) -> np.ndarray:
    """Mean of the other graphs over the samples of this one; a pair that none of them knows keeps its own value."""
    other_graphs = [j for j in range(len(graphs)) if j != i]
    total, common = _sum([graphs[j] for j in other_graphs], [rows[j] for j in other_graphs], n)
    block = np.ix_(rows[i], rows[i])
    return np.where(common[block] > 0, total[block] / np.maximum(common[block], 1), graphs[i])
