"""How far a batch is off from the others in the code: learned from mutual nearest neighbors."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.sparse as sp
import torch

from aeverse.nn import Alignment, nearest

MOST_SAMPLES = 5000  # to learn from
N_NEIGHBORS, SHARE_NEAR = 20, 0.025  # of a batch: what counts as near is at least so many samples, and such a share
FAR = 2.0  # matches further apart than this many times the median one are none
ROUNDS = 17
MOST_PAIRS = 100  # of batches that are compared in a round
SAMPLES_PER_CLUSTER, MOST_CLUSTERS = 15, 100
NEAR_CLUSTERS = 3


def alignment(code: np.ndarray, batches: np.ndarray, n_batches: int, random_state: int) -> Alignment | None:
    """Learn which samples of different batches are the same, and how far apart they lie.

    Samples of two batches match where each is among the nearest of the other, as in [Haghverdi2018]_: a type that one of
    the batches lacks has no match. Samples move towards their matches in all batches, each by the mean of what those near it
    in its batch do; then matches are sought anew, and what is near is drawn ever tighter. Where matching samples of all
    batches lie on average stays as it is.

    Parameters
    ----------
    code
        (samples, dimensions).
    batches
        Number of each sample's batch.
    n_batches
        How many there are.
    random_state
        Seed.

    Returns
    -------
    None where no sample has a match.
    """
    rng = np.random.default_rng(random_state)
    chosen = np.sort(rng.permutation(len(code))[:MOST_SAMPLES])
    start, batches = code[chosen].astype(np.float32), np.asarray(batches)[chosen]
    pairs, moved = np.array([*itertools.combinations(range(n_batches), 2)]).reshape(-1, 2), start
    for i in range(ROUNDS):
        sample = pairs if len(pairs) <= MOST_PAIRS else rng.permutation(pairs)[:MOST_PAIRS]
        displacement, matched = _displacement(moved, batches, sample)
        if not matched.any():
            return None
        centers, width = _clusters(moved, 2 ** (i // 2), random_state)
        near = _soft_assignment(moved, centers, width)
        shifts = _by_cluster(near, displacement, batches, n_batches, matched)
        share = np.stack([near[batches == b].sum(0) for b in range(n_batches)])[:, :, None]
        shifts -= (share * shifts).sum(0) / share.sum(0)  # what all batches have in common is no effect of a batch
        moved = moved - _mean_shift(near, shifts, batches)
    centers, width = _clusters(moved, MOST_CLUSTERS, random_state)
    all_samples = np.ones(len(start), bool)
    shifts = _by_cluster(_soft_assignment(moved, centers, width), start - moved, batches, n_batches, all_samples)
    return Alignment(torch.from_numpy(centers + shifts), torch.from_numpy(shifts), width)


def _displacement(code: np.ndarray, batches: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each sample lies from the mean of itself and its matches, one for each other batch, and who has any."""
    total, n_found = np.zeros_like(code), np.zeros(len(code), np.float32)
    for first, second in pairs:
        a, b = (np.flatnonzero(batches == batch) for batch in (first, second))
        matches = _matches(code[a], code[b])
        for this_batch, theirs, graph in ((a, b, matches), (b, a, matches.T)):
            n = np.asarray(graph.sum(1)).ravel()
            total[this_batch] += (graph @ code[theirs]) / np.maximum(n, 1)[:, None]
            n_found[this_batch] += n > 0
    return code - (code + total) / (1 + n_found)[:, None], n_found > 0


def _matches(a: np.ndarray, b: np.ndarray) -> sp.csr_matrix:
    """Which samples of `a` and `b` are among the nearest of each other, and not far apart; 1 or 0, (len(a), len(b))."""
    if not len(a) or not len(b):
        return sp.csr_matrix((len(a), len(b)), dtype=np.float32)
    both = _graph(a, b)
    both = sp.csr_matrix(both.multiply(_graph(b, a).T > 0))
    both.data = (both.data <= FAR * np.median(both.data)).astype(np.float32) if both.nnz else both.data
    both.eliminate_zeros()
    return both


def _graph(a: np.ndarray, b: np.ndarray) -> sp.csr_matrix:
    """Distances from the samples of `a` to the nearest of `b`."""
    distances, indices = nearest(a, max(N_NEIGHBORS, round(SHARE_NEAR * len(b))), among=b)
    rows = np.repeat(np.arange(len(a)), indices.shape[1])
    return sp.csr_matrix((distances.ravel() + 1e-9, (rows, indices.ravel())), shape=(len(a), len(b)))


def _clusters(code: np.ndarray, most: int, random_state: int) -> tuple[np.ndarray, float]:
    """At most so many centers, and the mean squared distance from a sample to the nearest of them."""
    from sklearn.cluster import KMeans

    n = min(max(len(code) // SAMPLES_PER_CLUSTER, 1), MOST_CLUSTERS, most)
    centers = KMeans(n, n_init=1, max_iter=10, random_state=random_state).fit(code).cluster_centers_.astype(np.float32)
    distances, _ = nearest(code, NEAR_CLUSTERS, among=centers)
    return centers, max(float(np.median((distances**2).mean(1))), 1e-12)


def _soft_assignment(code: np.ndarray, centers: np.ndarray, width: float) -> np.ndarray:
    return Alignment.soft_assignment(torch.from_numpy(code), torch.from_numpy(centers), width).numpy()


def _by_cluster(
    near: np.ndarray, displacement: np.ndarray, batches: np.ndarray, n_batches: int, matched: np.ndarray
) -> np.ndarray:
    """Mean of `displacement` in each batch and cluster, (batches, clusters, dimensions), that of the batch counting as one sample."""
    shifts = np.zeros((n_batches, near.shape[1], displacement.shape[1]), np.float32)
    for b in range(n_batches):
        members = np.flatnonzero((batches == b) & matched)
        if len(members):
            shifts[b] = (near[members].T @ displacement[members] + displacement[members].mean(0)) / (
                near[members].sum(0) + 1
            )[:, None]
    return shifts


def _mean_shift(near: np.ndarray, shifts: np.ndarray, batches: np.ndarray) -> np.ndarray:
    moves = np.zeros((len(near), shifts.shape[2]), np.float32)
    for b in range(len(shifts)):
        moves[batches == b] = near[batches == b] @ shifts[b]
    return moves
