"""What the scores of embeddings share: checked input, and the inverse Simpson index of neighborhoods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots


def as_code(code: np.ndarray, name: str = "code") -> np.ndarray:
    """An embedding as float64, (samples, dimensions), without missing values."""
    code = _numbers(code, name)
    if code.ndim != 2 or 0 in code.shape:
        raise ValueError(f"{name} must have the shape (samples, dimensions), found {code.shape}.")
    if not np.isfinite(code).all():
        raise ValueError(f"{name} has missing or infinite values.")
    return code


def as_data(x, name: str = "x") -> np.ndarray:
    """Data as float64, (samples, features); missing entries are NaN."""
    x = _numbers(_slots.dense(x), name)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have the shape (samples, features), found {x.shape}.")
    if np.isinf(x).any():
        raise ValueError(f"{name} has infinite values; set what is missing to NaN.")
    return x


def as_counts(x, name: str) -> sp.csr_matrix:
    """Counts, (cells, genes), as CSR of float64."""
    x = x if sp.issparse(x) else _numbers(x, name)
    if x.ndim != 2:
        raise ValueError(f"{name} must have the shape (cells, genes), found {x.shape}.")
    x = sp.csr_matrix(x, dtype=np.float64)
    if not np.isfinite(x.data).all() or (x.data < 0).any():
        raise ValueError(f"{name} has negative, missing or infinite values; pass counts.")
    return x


def _numbers(values, name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold numbers, found {np.asarray(values).dtype}.") from error


def as_labels(labels, n: int, name: str = "labels") -> np.ndarray:
    """Labels as objects; None where unknown (NaN, ``"NA"``, ``"unknown"``, …)."""
    labels = np.asarray(labels, dtype=object)
    if labels.ndim != 1:
        raise ValueError(f"{name} must be one for each sample, found an array of shape {labels.shape}.")
    values = pd.Series(labels)
    if len(values) != n:
        raise ValueError(f"{len(values)} {name} for {n} samples.")
    values = _slots.unknown_as_nan(values)
    return np.array([str(v) if is_value else None for v, is_value in zip(values, values.notna(), strict=True)], object)


def is_known(labels: np.ndarray) -> np.ndarray:
    """Which labels are there."""
    return np.array([label is not None for label in labels], bool)


def neighbors(code: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and positions of the nearest samples, each sample first among its own, as scIB has it."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=min(k, len(code))).fit(code).kneighbors(code)


def inverse_simpson(distances: np.ndarray, indices: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Local inverse Simpson index (LISI) [Korsunsky2019]_: the effective number of groups around each sample.

    Parameters
    ----------
    distances, indices
        As from `neighbors`; a sample does not count for itself.
    groups
        Integers from 0.

    Returns
    -------
    One number a sample. Neighbors weigh ``exp(-beta * distance)``, with the beta that gives a perplexity of a third of
    their number.
    """
    n, k = distances.shape
    other = indices != np.arange(n)[:, None]
    target, beta = np.log(max(k // 3, 1)), np.ones(n)
    low, high = np.full(n, -np.inf), np.full(n, np.inf)
    for _ in range(50):
        entropy, weight = _entropy(distances, other, beta)
        wrong = np.abs(entropy - target) >= 1e-5
        if not wrong.any():
            break
        low = np.where(wrong & (entropy > target), beta, low)
        high = np.where(wrong & (entropy <= target), beta, high)
        up = np.where(np.isinf(high), beta * 2, (beta + high) / 2)
        down = np.where(np.isinf(low), beta / 2, (beta + low) / 2)
        beta = np.where(wrong, np.where(entropy > target, up, down), beta)
    entropy, weight = _entropy(distances, other, beta)
    share = np.zeros((n, int(groups.max()) + 1))
    np.add.at(share, (np.arange(n)[:, None], groups[indices]), weight)
    simpson = (share**2).sum(1)
    return np.where(simpson > 0, 1 / np.where(simpson > 0, simpson, 1), np.nan)


def _entropy(distances: np.ndarray, other: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy of the neighbors' weights, and the weights, which sum to one."""
    weight = np.where(other, np.exp(-distances * beta[:, None]), 0)
    total = weight.sum(1)
    safe = np.where(total > 0, total, 1)
    entropy = np.where(total > 0, np.log(safe) + beta * (distances * weight).sum(1) / safe, 0)
    return entropy, weight / safe[:, None]
