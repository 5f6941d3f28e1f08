"""How the priors of a posterior are estimated, in loops that numba compiles, as those of `_kernels`."""

from __future__ import annotations

import numpy as np

from aeverse.nn._kernels import compiled

NEAR = 256  # columns that are gone through together


@compiled
def add_to_histogram(values, weights, singles, rows, first, sums, totals, single):
    """Add a block of weights, and of weights times values, to the bins of the values: see `_posterior._Histogram`.

    Parameters
    ----------
    values, weights
        (rows, columns), single precision.
    singles
        Positions of entries with one molecule, row by row.
    rows
        Histogram of each entry, (rows, columns).
    first
        What the first bin is in the bits of a number.
    sums, totals, single
        Weights, weights times values and entries with one molecule of each bin, (histograms, bins); added to.
    """
    n_columns, first, last = values.shape[1], np.int32(first), np.int32(sums.shape[1] - 1)
    for start in range(0, n_columns, NEAR):  # so that the bins of these columns stay near the processor
        for i in range(len(values)):
            bits = values[i].view(np.int32)
            for g in range(start, min(start + NEAR, n_columns)):
                h, b = rows[i, g], min(max((bits[g] >> np.int32(21)) - first, np.int32(0)), last)
                sums[h, b] += weights[i, g]
                totals[h, b] += weights[i, g] * values[i, g]
    for position in singles:
        i, g = position // n_columns, position % n_columns
        b = min(max((values[i].view(np.int32)[g] >> np.int32(21)) - first, np.int32(0)), last)
        single[rows[i, g], b] += np.float32(1)


@compiled
def npmle(likelihood, n_steps):
    """Probabilities of the columns that make rows of likelihoods most likely, by so many steps of expectation-maximization."""
    n_rows, n = likelihood.shape
    prior, share = np.full(n, np.float32(1 / n)), np.empty(n, np.float32)
    for _ in range(n_steps):
        sums = np.zeros(n, np.float64)
        for i in range(n_rows):
            total = np.float32(0)
            for j in range(n):
                share[j] = likelihood[i, j] * prior[j]
                total += share[j]
            inverse = np.float32(1) / total
            for j in range(n):
                sums[j] += share[j] * inverse
        for j in range(n):
            prior[j] = sums[j] / n_rows
    return prior
