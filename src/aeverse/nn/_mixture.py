"""Two-component mixture of protein counts: ambient background, and foreground that the cell carries itself."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, gammaln

N_ROUNDS, TOLERANCE = 200, 1e-3
LEAST_DISPERSION, MOST_DISPERSION = 0.3, 1e3
OWN_SHARE = 5.0  # cells' worth of the share over all cells, beside the neighbors


def foreground_probability(counts: np.ndarray, graph: sp.csr_matrix | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probability that a count is more than background, by a mixture of two negative binomials a protein [Gayoso2021]_.

    Expectation maximization; means and dispersions by moments. Below the background's mean a count speaks no more for
    the foreground than the mean itself does, however broad the foreground is.

    Parameters
    ----------
    counts
        (cells, proteins); entries that are NaN were not measured.
    graph
        Row-normalized (cells, cells) without a diagonal: a cell's share of foreground is then that of its neighbors,
        not that of all cells.

    Returns
    -------
    Probabilities (cells, proteins), NaN where a count is, and the means of background and foreground, (2, proteins).
    """
    finite = np.isfinite(counts)
    y = np.where(finite, counts, 0).astype(np.float64)
    total = np.maximum(finite.sum(0), 1)
    r = _split(y, finite)
    if graph is not None:
        reach = np.maximum(graph @ finite.astype(np.float64), 1e-9)
        n_neighbors = np.diff(graph.indptr)[:, None]
    before = r
    for _ in range(N_ROUNDS):
        share = r.sum(0) / total
        if graph is not None:
            share = (n_neighbors * (graph @ (r * finite)) / reach + OWN_SHARE * share) / (n_neighbors + OWN_SHARE)
        components = [_moments(y, w * finite) for w in (1 - r, r)]
        low = np.minimum(components[0][0], components[1][0])
        at = np.maximum(y, low)
        odds = _log_density(at, *components[1]) - _log_density(at, *components[0])
        share = np.clip(share, 1e-4, 1 - 1e-4)
        r = expit(odds + np.log(share) - np.log1p(-share)) * finite
        if np.abs(r - before).max() < TOLERANCE:
            break
        before = r
    means = np.stack([components[0][0], components[1][0]])
    swapped = means[0] > means[1]
    r, means = np.where(swapped, 1 - r, r), np.sort(means, 0)
    return np.where(finite, r, np.nan).astype(np.float32), means


def _split(y: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Hard start: two means on the log scale."""
    logged = np.where(finite, np.log1p(y), np.nan)
    low, high = np.nanquantile(logged, 0.1, 0), np.nanquantile(logged, 0.98, 0)
    for _ in range(20):
        above = logged > (low + high) / 2
        n = np.maximum(above.sum(0), 1), np.maximum((finite & ~above).sum(0), 1)
        high = np.where(above, logged, 0).sum(0) / n[0]
        low = np.where(finite & ~above, logged, 0).sum(0) / n[1]
    return above.astype(np.float64)


def _moments(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and dispersion of each protein's negative binomial."""
    total = np.maximum(weight.sum(0), 1e-9)
    mean = np.maximum((weight * y).sum(0) / total, 1e-3)
    variance = (weight * (y - mean) ** 2).sum(0) / total
    return mean, np.clip(mean**2 / np.maximum(variance - mean, 1e-9), LEAST_DISPERSION, MOST_DISPERSION)


def _log_density(y: np.ndarray, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Negative binomial, less what does not depend on the component."""
    return (
        gammaln(y + theta) - gammaln(theta) + theta * np.log(theta / (theta + mean)) + y * np.log(mean / (theta + mean))
    )
