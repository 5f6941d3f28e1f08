"""Loops over rows of counts, compiled by numba when first used and kept in its cache: for the CPU, on one thread.

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
_TINY = np.float32(1e-30)
MANY = 64  # molecules from which on drawing one by one would take long
FEW = 8  # molecules up to which the gamma functions of a count are a product

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
def _weighted_logs(x, weights):
    """Sum of ``weights * log(x)`` for `x` of at least one; `x` is lost."""
    bits, total = x.view(np.int32), np.float32(0)
    for g in range(len(x)):
        n = (bits[g] >> np.int32(23)) - np.int32(127)
        bits[g] -= n << np.int32(23)
        weights_n = np.float32(n)
        total += weights[g] * weights_n * _LN2
    for g in range(len(x)):
        high = x[g] > _SQRT2
        z = (x[g] * _HALF if high else x[g]) - _ONE
        p = _L0 + z * (_L1 + z * (_L2 + z * (_L3 + z * (_L4 + z * (_L5 + z * (_L6 + z * (_L7 + z * _L8)))))))
        total += weights[g] * (z - _HALF * z * z + z * z * z * p + (_LN2 if high else np.float32(0)))
    return total


@part
def _of_count(x, mu, theta):
    """What a count of at least one adds to the loss of a zero."""
    ratio = (theta + mu) / mu
    if x > FEW:
        return x * math.log(ratio) + math.lgamma(x + 1) - math.lgamma(theta + x) + math.lgamma(theta)
    product, j = 1.0, 0.0
    while j < x:
        product *= ratio * (j + 1) / (theta + j)
        j += 1
    return math.log(product)


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
    memory, gradient = np.empty(n_genes, np.float32), np.empty(n_genes, np.float32)
    for i in range(len(logits)):
        mu = logits[i]
        _means(mu, library[i], memory)
        total = np.float32(0)  # of the gradient by log(mu)
        for g in range(n_genes):
            memory[g] = _ONE + mu[g] / theta[g]
            gradient[g] = mu[g] / memory[g]  # the posterior mean of an entry without counts
            total += gradient[g]
        loss += _weighted_logs(memory, theta)
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
            loss += math.lgamma(x + 1) - x * math.log(m)
        share = molecules / max(library[i], _TINY)
        for g in range(n_genes):
            mu[g] *= share
        for k in range(pointers[i], pointers[i + 1]):
            mu[columns[k]] -= values[k]
    return loss


@compiled
def thinned(values, pointers, keep, seed):
    """Binomial draws of counts with the probability of their row, divided by it; counts above `MANY` are left out.

    The random bits are those of splitmix64 (Steele, Lea and Flood, 2014).
    """
    survivors, state = np.zeros(len(values), np.float32), np.uint64(seed)
    for i in range(len(pointers) - 1):
        threshold = np.uint64(np.float64(keep[i]) * 4294967296.0)
        for k in range(pointers[i], pointers[i + 1]):
            n = 0
            for _ in range(int(values[k]) if values[k] <= MANY else 0):
                state += np.uint64(0x9E3779B97F4A7C15)
                z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                n += ((z ^ (z >> np.uint64(31))) >> np.uint64(32)) < threshold
            survivors[k] = n / keep[i]
    return survivors


@compiled
def log_normalized(values, pointers, columns, factor, scale):
    """``log1p(values * factor of the row) * scale of the column``."""
    result = np.zeros(len(values), np.float32)
    for i in range(len(pointers) - 1):
        for k in range(pointers[i], pointers[i + 1]):
            if values[k] != 0:
                result[k] = np.float32(math.log1p(values[k] * factor[i])) * scale[columns[k]]
    return result


@compiled
def dense(values, pointers, columns, n_columns):
    """Dense matrix of CSR."""
    result = np.zeros((len(pointers) - 1, n_columns), np.float32)
    for i in range(len(pointers) - 1):
        for k in range(pointers[i], pointers[i + 1]):
            result[i, columns[k]] = values[k]
    return result
