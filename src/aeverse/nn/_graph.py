"""Neighbor graphs: local kernels, their fusion over modalities, smoothing along them, diffusion coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

WIDTH_FLOOR = 0.3  # of the median bandwidth: a few duplicates must not tear the graph
KERNEL_FLOOR = 1e-3  # a neighbor never counts for nothing
DENSE_UP_TO = 2000  # rows up to which the dense eigendecomposition is the faster one
BLOCK_ENTRIES = 20_000_000  # distances held at a time


def nearest(x: np.ndarray, k: int, *, among: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest neighbors, block by block.

    Parameters
    ----------
    x
        (rows, dimensions).
    k
        Neighbors wanted.
    among
        (candidates, dimensions) to search in; None: `x` itself, each row left out of its own neighbors.

    Returns
    -------
    Euclidean distances and positions, both (rows, k), nearest first.
    """
    among, itself = (x, True) if among is None else (among, False)
    center = among.mean(0)  # distances do not change, rounding does
    queries, candidates = (torch.as_tensor(a - center, dtype=torch.float32) for a in (x, among))
    k = min(k, len(candidates) - itself)
    size = (candidates**2).sum(1)
    block = max(1, BLOCK_ENTRIES // max(len(candidates), 1))
    distances = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        square = torch.addmm(size, rows, candidates.T, alpha=-2)  # less the rows' own size, which changes no order
        if itself:
            square[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = torch.inf
        squares, where = square.topk(k, largest=False)
        distances[start : start + block] = (squares + (rows**2).sum(1, keepdim=True)).clamp_min(0).sqrt().numpy()
        indices[start : start + block] = where.numpy()
    return distances, indices


def local_kernel(distances: np.ndarray, indices: np.ndarray) -> sp.csr_matrix:
    """Symmetric Gaussian kernel with self-tuning bandwidths [Zelnik2004]_, its rows then normalized to one.

    Parameters
    ----------
    distances, indices
        As from `nearest`; the bandwidth of a row is its distance to the middle one of its neighbors.

    Returns
    -------
    Sparse (rows, rows).
    """
    n, k = distances.shape
    width = distances[:, (k - 1) // 2]
    positive = width[width > 0]
    width = np.maximum(width, WIDTH_FLOOR * np.median(positive) if positive.size else 1.0)
    weight = np.exp(-(distances**2) / (width[:, None] * width[indices])) + KERNEL_FLOOR
    kernel = sp.csr_matrix((weight.ravel(), (np.repeat(np.arange(n), k), indices.ravel())), shape=(n, n))
    return row_normalized(kernel + kernel.T)


def row_normalized(matrix: sp.spmatrix) -> sp.csr_matrix:
    """SparseRows that sum to one; empty rows stay empty."""
    total = np.asarray(matrix.sum(1)).ravel()
    return sp.csr_matrix(sp.diags(1 / np.where(total > 0, total, 1)) @ matrix)


def fuse(
    kernels: Sequence[sp.csr_matrix], rows: Sequence[np.ndarray], weights: Sequence[float], n: int
) -> sp.csr_matrix:
    """Mean of several kernels, each over some of the `n` samples; a sample averages the kernels that it is in.

    Parameters
    ----------
    kernels
        Row-normalized kernels, one a modality.
    rows
        For each kernel the positions of its rows among the `n` samples.
    weights
        For each kernel how much it counts.
    n
        Number of samples.

    Returns
    -------
    Sparse (n, n) whose rows sum to one, or to zero for a sample without any modality.
    """
    total = sp.csr_matrix((n, n))
    for kernel, where, weight in zip(kernels, rows, weights, strict=True):
        kernel = kernel.tocoo()
        total = total + sp.csr_matrix((weight * kernel.data, (where[kernel.row], where[kernel.col])), shape=(n, n))
    return row_normalized(total)


def smooth(graph: sp.csr_matrix, values: np.ndarray, rows: np.ndarray, n_steps: int) -> np.ndarray:
    """Average values along a graph; samples that have no value take that of their neighbors.

    Parameters
    ----------
    graph
        Row-normalized (n, n).
    values
        (len(rows), dimensions), the values of some of the samples.
    rows
        Which samples have a value.
    n_steps
        Steps of the walk.

    Returns
    -------
    (n, dimensions); zero where no value is within reach.
    """
    n = graph.shape[0]
    value, share = np.zeros((n, values.shape[1])), np.zeros((n, 1))
    value[rows], share[rows] = values, 1
    for _ in range(n_steps):
        value, share = graph @ value, graph @ share
    return value / np.maximum(share, 1e-6)


def diffusion_coordinates(graph: sp.csr_matrix, n_coordinates: int, time: int = 2) -> np.ndarray:
    """Leading coordinates of a diffusion along the graph [Coifman2006]_, the constant one left out.

    Parameters
    ----------
    graph
        Non-negative (n, n); symmetrized here.
    n_coordinates
        Coordinates wanted; fewer where there are too few samples.
    time
        Power of the eigenvalues.

    Returns
    -------
    (n, n_coordinates), the sign of each fixed so that its largest entry is positive.
    """
    symmetric = graph + graph.T
    root = np.sqrt(np.maximum(np.asarray(symmetric.sum(1)).ravel(), 1e-12))
    symmetric = sp.csr_matrix(sp.diags(1 / root) @ symmetric @ sp.diags(1 / root))
    n = len(root)
    k = min(n_coordinates + 1, n)
    if n <= DENSE_UP_TO or k >= n - 1:
        values, vectors = np.linalg.eigh(symmetric.toarray())
    else:
        values, vectors = sp.linalg.eigsh(symmetric, k, which="LA", v0=root / np.linalg.norm(root), tol=1e-4)
    top = np.argsort(-values)[:k]
    coordinates = vectors[:, top[1:]] / (root / np.linalg.norm(root))[:, None] * values[top[1:]] ** time
    sign = np.sign(coordinates[np.abs(coordinates).argmax(0), np.arange(coordinates.shape[1])])
    return coordinates * np.where(sign == 0, 1, sign)
