"""Distances in units of sampling noise: what drawing the molecules of a cell anew would do to its place.

Two cells should be neighbors if their difference is no larger than what sampling makes of one cell. So the latent space is
measured in standard deviations of that noise (:func:`noise_units`); a population of like cells is then a round cloud about
one unit wide. What varies inside populations beyond sampling (cell cycle, activation) is no noise, but should not make
clusters either: the pooled covariance within coarse populations is divided out too (:func:`population_units`), as in
linear discriminant analysis.
"""

from __future__ import annotations

import numpy as np

from aeverse.models._shared._neighbors import neighbors_of
from aeverse.nn import local_kernel

NOISE_FLOOR = 1e-3  # of the largest variance of the noise: no direction is without any
# Of the graph whose communities are the coarse populations. Of the resolutions up to 0.75, at which no more clusters come out
# than principal components give, 0.5 has the largest held-out cluster deviance (mean of four data sets, no labels used).
N_NEIGHBORS, RESOLUTION = 15, 0.5
LEAST_SIGNAL = (
    1e-2  # of a direction's length that stays where there is nothing but noise, so that the map is invertible
)


def population_units(
    latent: np.ndarray,
    differences: np.ndarray,
    random_state: int,
    labeled: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Units of noise, made round within populations, then turned to the principal axes, (dimensions, dimensions).

    The directions in which samples of one population vary, beyond one unit, are shortened. The turn changes no distance.

    Parameters
    ----------
    latent, differences
        See `noise_units`.
    random_state
        Seed of the communities.
    labeled
        Latent values of samples whose population is known, and this, as integers from 0 on; None: communities say it all.
    """
    matrix, center = noise_units(latent, differences), latent.mean(0)
    embedding = (latent - center) @ matrix
    within = covariance_within(embedding, coarse_populations(embedding, random_state))
    if labeled is not None:
        known, n, n_dimensions = (labeled[0] - center) @ matrix, len(labeled[0]), latent.shape[1]
        # communities count for as many samples as there are dimensions: few labels say little of so many
        within = (n * covariance_within(known, labeled[1]) + n_dimensions * within) / (n + n_dimensions)
    matrix = matrix @ _power(np.eye(len(within)) + within, -0.5, 0.0)
    axes = np.linalg.eigh(_covariance(latent @ matrix))[1][:, ::-1]
    return matrix @ (axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(len(axes))]))


def noise_units(latent: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """Matrix that takes latent differences to units of sampling noise, (dimensions, dimensions).

    Each direction is then shortened by its share of signal, as the posterior mean of a Gaussian prior would be.

    Parameters
    ----------
    latent
        (samples, dimensions).
    differences
        Between the latent values of two halves of a sample's molecules, (any number, dimensions). Each half has twice the
        variance of the whole, and their difference four times.
    """
    noise = differences.T.astype(np.float64) @ differences / (4 * len(differences))
    whitening = _power(noise, -0.5, NOISE_FLOOR)
    variances, axes = np.linalg.eigh(_covariance(latent @ whitening))
    signal = np.sqrt(np.clip(1 - 1 / np.maximum(variances, 1e-12), LEAST_SIGNAL**2, 1))
    return whitening @ (axes * signal) @ axes.T


def covariance_within(embedding: np.ndarray, populations: np.ndarray) -> np.ndarray:
    """Pooled covariance within populations, integers from 0 on, (dimensions, dimensions)."""
    centered = embedding.astype(np.float64) - population_means(embedding, populations)[populations]
    return centered.T @ centered / len(centered)


def population_means(embedding: np.ndarray, populations: np.ndarray) -> np.ndarray:
    """Mean of each population, (populations, dimensions)."""
    n = int(populations.max()) + 1
    totals = np.zeros((n, embedding.shape[1]))
    np.add.at(totals, populations, embedding)
    return totals / np.bincount(populations, minlength=n)[:, None]


def coarse_populations(embedding: np.ndarray, random_state: int) -> np.ndarray:
    """Communities of the neighbor graph at a low resolution (Leiden [Traag2019]_)."""
    import random

    import igraph

    graph = local_kernel(*neighbors_of(np.ascontiguousarray(embedding, np.float32), N_NEIGHBORS))
    upper = (graph + graph.T).tocoo()
    first = upper.row < upper.col
    edges = np.stack([upper.row[first], upper.col[first]], 1)
    network = igraph.Graph(n=len(embedding), edges=edges.tolist())
    igraph.set_random_number_generator(random.Random(random_state))
    try:
        communities = network.community_leiden(
            "modularity", weights=upper.data[first].tolist(), resolution=RESOLUTION, n_iterations=2
        )
    finally:
        igraph.set_random_number_generator(random)
    return np.asarray(communities.membership)


def _covariance(values: np.ndarray) -> np.ndarray:
    return np.cov(values.T.astype(np.float64)).reshape(values.shape[1], -1)


def _power(matrix: np.ndarray, power: float, floor: float) -> np.ndarray:
    """Power of a symmetric matrix whose eigenvalues are at least a share of the largest."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, max(floor * values[-1], 1e-12)) ** power) @ vectors.T
