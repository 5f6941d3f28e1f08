"""k-means of many resamples of the patients at once, and what they agree on."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

SHARE = 0.8  # of the patients, in each resample [Monti2003]
RESTARTS = 10  # of k-means on the whole cohort
MAX_ITERATIONS = 50


def resamples(n: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, patients): who is in."""
    ranks = rng.random((n_resamples, n)).argsort(1)
    return ranks < max(round(SHARE * n), min(n, 2))


def best_of(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Labels of all patients, the best of several k-means."""
    labels, within = kmeans(points, k, np.ones((RESTARTS, len(points)), bool), rng)
    return labels[within.argmin()]


def cluster_resamples(
    points: np.ndarray, k: int, sampled: np.ndarray, whole: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Cluster every resample, (resamples, patients), with numbers that agree with those of the whole cohort."""
    first, second = (kmeans(points, k, sampled, rng) for _ in range(2))
    labels = np.where((first[1] <= second[1])[:, None], first[0], second[0])
    overlap = one_hot(labels, k).reshape(-1, len(points)).astype(np.float32) @ one_hot(whole[None], k)[0].T
    for r, table in enumerate(overlap.reshape(len(labels), k, k)):
        rows, columns = linear_sum_assignment(-table)
        labels[r] = columns[np.argsort(rows)][labels[r]]
    return labels


def kmeans(points: np.ndarray, k: int, sampled: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """k-means of all resamples at once: labels of all patients, (resamples, n), and the sums of squares of those
    sampled.

    The resamples share one matrix product an iteration, which is what makes thousands of clusterings affordable.
    """
    squares = (points**2).sum(1)
    centroids = seeds(points, squares, k, sampled, rng)
    labels = np.full(sampled.shape, -1, np.int8)
    within = np.zeros(len(sampled))
    running = np.arange(len(sampled))
    for _ in range(MAX_ITERATIONS):
        nearest, distance = nearest_centroids(points, centroids[running])
        moved = (nearest != labels[running]).any(1)
        labels[running] = nearest
        within[running] = ((distance + squares) * sampled[running]).sum(1, dtype=np.float64)
        running = running[moved]
        if not len(running):
            break
        members = (one_hot(labels[running], k) & sampled[running, None]).astype(points.dtype)
        sizes = members.sum(2)[:, :, None]
        means = (members.reshape(-1, len(points)) @ points).reshape(len(running), k, -1) / np.maximum(sizes, 1)
        centroids[running] = np.where(sizes > 0, means, centroids[running])
    return labels, within


def nearest_centroids(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of every patient in every resample, and the squared distance less the patient's own square."""
    n_resamples, k, n_dims = centroids.shape
    products = (centroids.reshape(-1, n_dims) @ points.T).reshape(n_resamples, k, -1)
    distances = (centroids**2).sum(2)[:, :, None] - 2 * products
    smallest, nearest = distances[:, 0].copy(), np.zeros((n_resamples, len(points)), np.int8)
    for j in range(1, k):  # several times faster than argmin over an axis in the middle
        nearest[distances[:, j] < smallest] = j
        np.minimum(smallest, distances[:, j], out=smallest)
    return nearest, smallest


def seeds(points, squares, k: int, sampled: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """k-means++ seeds for every resample, (resamples, k, dimensions)."""
    nearest = sampled.astype(np.float64)
    seeds = np.empty((len(sampled), k, points.shape[1]), points.dtype)
    for j in range(k):
        weights = nearest * sampled
        weights = np.where(weights.sum(1, keepdims=True) > 0, weights, sampled)
        cumulative = weights.cumsum(1)
        thresholds = (1 - rng.random((len(sampled), 1))) * cumulative[
            :, -1:
        ]  # in (0, total]: weight zero is never drawn
        seeds[:, j] = points[np.minimum((cumulative < thresholds).sum(1), len(points) - 1)]
        distance = squares - 2 * seeds[:, j] @ points.T + (seeds[:, j] ** 2).sum(1)[:, None]
        nearest = np.maximum(distance if j == 0 else np.minimum(nearest, distance), 0)
    return seeds


def one_hot(labels: np.ndarray, k: int) -> np.ndarray:
    """(resamples, patients) of labels -> (resamples, k, patients) of booleans."""
    return labels[:, None] == np.arange(k)[:, None]


def jaccard(members: np.ndarray, reference: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """(resamples, k): Jaccard index of each cluster, among the patients sampled, with its best match in the
    resample.
    """
    n_resamples, k, n = members.shape
    both = (members.reshape(-1, n).astype(np.float32) @ reference.T.astype(np.float32)).reshape(n_resamples, k, k)
    expected = sampled.astype(np.float32) @ reference.T.astype(np.float32)
    union = members.sum(2)[:, :, None] + expected[:, None] - both
    return (both / np.maximum(union, 1)).max(1)


def by_size(code: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Order of the clusters by how many patients vote for them, the largest first."""
    order = np.arange(centroids.shape[1])
    for _ in range(len(order)):  # a tie of votes goes to the lower number, so that a new order can change sizes
        sizes = np.bincount(count_votes(code, centroids[:, order]).argmax(1), minlength=len(order))
        if (np.diff(sizes) <= 0).all():
            break
        order = order[np.argsort(-sizes, kind="stable")]
    return order


def consensus(members: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """How often two patients fell together, of the resamples with both; 0 where there was none."""
    flat = members.reshape(-1, members.shape[2]).astype(np.float32)
    met = sampled.astype(np.float32)
    return (flat.T @ flat) / np.maximum(met.T @ met, 1)


def count_votes(code: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(patients, subtypes): share of the resamples whose nearest centroid is that subtype's.

    A tie of the votes goes to the lower number, the larger subtype.
    """
    votes = np.zeros((len(code), centroids.shape[1]))
    for centers in centroids:
        distances = ((code[:, None] - centers) ** 2).sum(2)
        votes[np.arange(len(code)), distances.argmin(1)] += 1
    return votes / len(centroids)
