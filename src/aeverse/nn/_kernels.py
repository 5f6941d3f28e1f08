"""Likelihoods and posteriors of rows of counts, in loops that numba compiles when they are first used and keeps in its cache.

They are for the CPU, on one thread.

What is written in torch elsewhere goes over a block a dozen times, with an operation a time; here a row stays in the
processor's cache. Exponentials and logarithms are polynomials, which the compiler does for many entries at once; their
relative errors are those of single precision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

# exp2 on [-1/2, 1/2] and log(1 + z) / z - 1 + z / 2 over z**2 (Cephes), lowest power first
_EXP = tuple(np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))
_LOG = tuple(
    np.float32(c)
    for c in (
        3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1, -1.2420140846e-1,
        1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2,
    )
)  # fmt: skip
_E0, _E1, _E2, _E3, _E4, _E5, _E6, _E7 = _EXP
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = _LOG
_LOG2E, _LN2, _SQRT2 = np.float32(math.log2(math.e)), np.float32(math.log(2)), np.float32(math.sqrt(2))
_HALF, _ONE, _LEAST = np.float32(0.5), np.float32(1), np.float32(-127)
_LOG_FACTORIALS, _HALF_LOG_2PI = np.array([math.lgamma(x + 1) for x in range(256)]), 0.5 * math.log(2 * math.pi)
_TINY, _SMALL = np.float32(1e-30), np.float32(0.4)
FEW = 8  # molecules up to which a ratio of gamma functions is a product, term by term

compiled: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})
# A function that another one calls is made part of it: linked, it would be optimized in another way when it is compiled than
# when it comes from the cache, and the first process would give other last digits than the next.
part: Any = njit(inline="always")


@part
def _means(row, library, memory):
    """Logits of a row to means, library times softmax, in place."""
    top = row[0]
    for g in range(len(row)):
        top = max(top, row[g])
    bits, powers = memory.view(np.int32), memory
    for g in range(len(row)):
        y = max((row[g] - top) * _LOG2E, _LEAST)  # at -127 the power below is zero
        n = np.int32(y - _HALF)
        f = y - np.float32(n)
        bits[g] = (n + np.int32(127)) << np.int32(23)
        row[g] = _E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * (_E6 + f * _E7))))))
    total = np.float32(0)
    for g in range(len(row)):
        row[g] *= powers[g]
        total += row[g]
    scale = library / total
    for g in range(len(row)):
        row[g] *= scale


@part
def _log_of_mantissa(z):
    """``log(1 + z)`` for `z` between sqrt(1/2) - 1 and sqrt(2) - 1."""
    p = _L0 + z * (_L1 + z * (_L2 + z * (_L3 + z * (_L4 + z * (_L5 + z * (_L6 + z * (_L7 + z * _L8)))))))
    return z - _HALF * z * z + z * z * z * p


@part
def _log(x, memory):
    """Logarithms of a row of positive numbers, in place."""
    bits = x.view(np.int32)
    for g in range(len(x)):
        n = (bits[g] >> np.int32(23)) - np.int32(127)
        bits[g] -= n << np.int32(23)
        memory[g] = np.float32(n)
    for g in range(len(x)):
        high = x[g] > _SQRT2
        z = (x[g] * _HALF if high else x[g]) - _ONE
        x[g] = _log_of_mantissa(z) + (memory[g] + _ONE if high else memory[g]) * _LN2


@part
def _log1p(x, memory, more):
    """``log1p`` of a row of numbers of at least zero, in place: small ones keep their digits."""
    bits = memory.view(np.int32)
    for g in range(len(x)):
        memory[g] = _ONE + x[g]
    for g in range(len(x)):
        n = (bits[g] >> np.int32(23)) - np.int32(127)
        bits[g] -= n << np.int32(23)
        more[g] = np.float32(n)
    for g in range(len(x)):
        small, high = x[g] < _SMALL, memory[g] > _SQRT2
        z = x[g] if small else (memory[g] * _HALF if high else memory[g]) - _ONE
        n = more[g] + _ONE if high else more[g]
        x[g] = _log_of_mantissa(z) + n * _LN2


@part
def _exp(x, memory):
    """Exponentials of a row of numbers of at most zero, in place."""
    bits = memory.view(np.int32)
    for g in range(len(x)):
        y = max(x[g] * _LOG2E, _LEAST)
        n = np.int32(y - _HALF)
        f = y - np.float32(n)
        bits[g] = (n + np.int32(127)) << np.int32(23)
        x[g] = _E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * (_E6 + f * _E7))))))
    for g in range(len(x)):
        x[g] *= memory[g]


@part
def _stirling(z):
    """Logarithm of the gamma function of `z` of at least 8, up to a constant, to seven decimals."""
    inverse = 1 / z
    return (z - 0.5) * math.log(z) - z + inverse * (1 / 12 - inverse * inverse / 360)


@part
def _log_factorial(x):
    """Of a count."""
    return _LOG_FACTORIALS[int(x)] if x < len(_LOG_FACTORIALS) else _stirling(x + 1.0) + _HALF_LOG_2PI


@part
def _log_rising(t, x):
    """``log(Gamma(t + x) / Gamma(t))`` of a count beyond `FEW`."""
    product = t * (t + 1) * (t + 2) * (t + 3) * (t + 4) * (t + 5) * (t + 6) * (t + 7)
    return math.log(product) + _stirling(t + x) - _stirling(t + 8)


@part
def _of_count(x, mu, theta):
    """What a count of at least one adds to the loss of a zero."""
    ratio = (theta + mu) / mu
    if x > FEW:
        return x * math.log(ratio) + _log_factorial(x) - _log_rising(theta, x)
    above, below, j = 1.0, 1.0, 0.0
    while j < x:
        above *= ratio * (j + 1)
        below *= theta + j
        j += 1
    return math.log(above / below)


@compiled
def negative_binomial(logits, pointers, columns, values, theta, library):
    """Loss of a block, which is returned, and its gradient by the logits, in their memory.

    Parameters
    ----------
    logits
        (cells, genes), single precision.
    pointers, columns, values
        Counts, CSR.
    theta
        Dispersions, (genes,).
    library
        Library sizes, (cells,).
    """
    n_genes, loss = logits.shape[1], 0.0
    logs, memory, more, gradient = np.empty((4, n_genes), np.float32)
    for i in range(len(logits)):
        mu = logits[i]
        _means(mu, library[i], memory)
        total = np.float32(0)  # of the gradient by log(mu)
        for g in range(n_genes):
            logs[g] = mu[g] / theta[g]
            gradient[g] = mu[g] / (_ONE + logs[g])  # the posterior mean of an entry without counts
            total += gradient[g]
        _log1p(logs, memory, more)
        zeros = np.float32(0)
        for g in range(n_genes):
            zeros += theta[g] * logs[g]
        loss += zeros
        for k in range(pointers[i], pointers[i + 1]):
            g, x = columns[k], values[k]
            if x > 0:
                m = max(mu[g], _TINY)
                posterior = mu[g] * (theta[g] + x) / (theta[g] + mu[g]) - x
                total += posterior - gradient[g]
                gradient[g] = posterior
                loss += _of_count(np.float64(x), np.float64(m), np.float64(theta[g]))
        share = total / max(library[i], _TINY)
        for g in range(n_genes):
            mu[g] = gradient[g] - mu[g] * share
    return loss


@compiled
def poisson(logits, pointers, columns, values, library):
    """As `negative_binomial`, of the Poisson distribution."""
    n_genes, loss = logits.shape[1], 0.0
    memory = np.empty(n_genes, np.float32)
    for i in range(len(logits)):
        mu = logits[i]
        _means(mu, library[i], memory)
        loss += library[i]
        molecules = np.float32(0)
        for k in range(pointers[i], pointers[i + 1]):
            x, m = np.float64(values[k]), np.float64(max(mu[columns[k]], _TINY))
            molecules += values[k]
            loss += _log_factorial(x) - x * math.log(m)
        share = molecules / max(library[i], _TINY)
        for g in range(n_genes):
            mu[g] *= share
        for k in range(pointers[i], pointers[i + 1]):
            mu[columns[k]] -= values[k]
    return loss


@compiled
def log_normalized(values, pointers, columns, factor, scale):
    """``log1p(values * factor of the row) * scale of the column``."""
    result, memory, more = np.empty((3, len(values)), np.float32)
    for i in range(len(pointers) - 1):
        for k in range(pointers[i], pointers[i + 1]):
            result[k] = values[k] * factor[i]
    _log1p(result, memory, more)
    for k in range(len(values)):
        result[k] *= scale[columns[k]]
    return result


@part
def _beyond_zero(t, x, mu):
    """``log(Gamma(t + x) / Gamma(t) / (mu + t) ** x)`` of a count."""
    if x > FEW:
        return _log_rising(t, x) - x * math.log(mu + t)
    inverse, product, j = 1 / (mu + t), 1.0, 0.0
    while j < x:
        product *= (t + j) * inverse
        j += 1
    return math.log(product)


@compiled
def beyond_zero(t, x, mu):
    """What counts `x` add to the log-likelihood of zeros, (entries,)."""
    result = np.empty(len(x), np.float32)
    for k in range(len(x)):
        result[k] = _beyond_zero(np.float64(t[k]), x[k], np.float64(mu[k]))
    return result


@part
def _on_line(nodes, place):
    """Value at a place between nodes, or that of the node at the end."""
    place = min(max(place, np.float32(0)), np.float32(len(nodes) - 1))
    below = min(np.int32(place), np.int32(len(nodes) - 2))
    return nodes[below] + (nodes[below + 1] - nodes[below]) * (place - np.float32(below))


@compiled
def sums_of_log1p(x, linear, constant, grid):
    """``sum_j log1p(x[i, j] / grid[k]) * (grid[k] * linear[i, j] + constant[i, j])`` for each k and row i, (grid, rows)."""
    result = np.empty((len(grid), len(x)), np.float32)
    kept, logs, memory, more, a, b = np.empty((6, x.shape[1]), np.float32)
    for i in range(len(x)):
        n = 0
        for j in range(x.shape[1]):
            if linear[i, j] != 0 or constant[i, j] != 0:
                kept[n], a[n], b[n] = x[i, j], linear[i, j], constant[i, j]
                n += 1
        for k in range(len(grid)):
            inverse, total = _ONE / grid[k], np.float32(0)
            for j in range(n):
                logs[j] = kept[j] * inverse
            _log1p(logs[:n], memory, more)
            for j in range(n):
                total += logs[j] * (grid[k] * a[j] + b[j])
            result[k, i] = total
    return result


@compiled
def posterior_mean(mu, shape, pointers, columns, values, scales, log_priors):
    """Mean of a mixture of gamma posteriors, (cells, genes): see `Expression`.

    Parameters
    ----------
    mu, shape
        Means and shapes before a count is seen, (cells, genes).
    pointers, columns, values
        Counts, CSR.
    scales
        Factors on the shapes, (scales,).
    log_priors
        Logarithms of their probabilities, (scales, genes).
    """
    n_genes, n = mu.shape[1], len(scales)
    result, weights = np.empty_like(mu), np.empty((n, n_genes), np.float32)
    memory, more, largest, total = np.empty((4, n_genes), np.float32)
    for i in range(len(mu)):
        for s in range(n):
            row = weights[s]
            for g in range(n_genes):
                row[g] = mu[i, g] / (scales[s] * shape[i, g])
            _log1p(row, memory, more)
            for g in range(n_genes):
                row[g] = log_priors[s, g] - scales[s] * shape[i, g] * row[g]
            for k in range(pointers[i], pointers[i + 1]):
                g = columns[k]
                row[g] += _beyond_zero(np.float64(scales[s] * shape[i, g]), values[k], np.float64(mu[i, g]))
        for g in range(n_genes):
            largest[g] = weights[0, g]
            total[g] = 0
            result[i, g] = 0
        for s in range(1, n):
            for g in range(n_genes):
                largest[g] = max(largest[g], weights[s, g])
        for s in range(n):
            row = weights[s]
            for g in range(n_genes):
                row[g] -= largest[g]
            _exp(row, memory)
            for g in range(n_genes):
                t = scales[s] * shape[i, g]
                row[g] *= _ONE / (mu[i, g] + t)
                total[g] += row[g] * (mu[i, g] + t)
                result[i, g] += row[g] * t
        for k in range(pointers[i], pointers[i + 1]):
            for s in range(n):
                result[i, columns[k]] += weights[s, columns[k]] * values[k]
        for g in range(n_genes):
            result[i, g] *= mu[i, g] / total[g]
    return result


@compiled
def calibration_factors(expected, log_library, log_frequency, pointers, columns, values, smallest, by_ratio, by_level):
    """Factors on expected expression, (cells, genes): see `Calibration`.

    Parameters
    ----------
    expected
        (cells, genes).
    log_library, log_frequency
        Logarithms to the base 2, (cells,) and (genes,).
    pointers, columns, values
        Counts, CSR.
    smallest
        First node of both scales.
    by_ratio, by_level
        Factors at the nodes, (classes, nodes).
    """
    n_genes = expected.shape[1]
    result, levels, memory = np.empty_like(expected), np.empty(n_genes, np.float32), np.empty(n_genes, np.float32)
    for i in range(len(expected)):
        for g in range(n_genes):
            levels[g] = max(expected[i, g], _TINY)
        _log(levels, memory)
        for g in range(n_genes):
            levels[g] = levels[g] * _LOG2E - smallest
            ratio = levels[g] - log_library[i] - log_frequency[g]
            result[i, g] = _on_line(by_ratio[0], ratio) * _on_line(by_level[0], levels[g])
        for k in range(pointers[i], pointers[i + 1]):
            g = columns[k]
            kind = min(np.int64(values[k]), len(by_ratio) - 1)
            ratio = levels[g] - log_library[i] - log_frequency[g]
            result[i, g] = _on_line(by_ratio[kind], ratio) * _on_line(by_level[kind], levels[g])
    return result
