"""What is done to stored counts before they are multiplied, in loops that numba compiles, as those of `_kernels`."""

from __future__ import annotations

import numpy as np

from aeverse.nn._kernels import compiled

MANY = 64  # molecules from which on drawing one by one would take long


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
def dense(values, pointers, columns, n_columns):
    """Dense matrix of CSR."""
    result = np.zeros((len(pointers) - 1, n_columns), np.float32)
    for i in range(len(pointers) - 1):
        for k in range(pointers[i], pointers[i + 1]):
            result[i, columns[k]] = values[k]
    return result
