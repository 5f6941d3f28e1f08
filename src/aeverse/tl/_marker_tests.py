"""The statistics behind `tl.markers`: dispersions, count splitting, the test of a cluster, p-values of several splits."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.special import gammaincc, ndtr

N_BINS = 20  # of the genes by their mean, that share a dispersion
GENES_AT_ONCE = 1000  # that are dense at a time
LEAST_AGREEMENT = 0.5  # Jaccard index of a reference group and the clusters that stand for it
SMALLEST_SKEW = 1e-3  # below it a gamma distribution is the normal one


def dispersions(counts: sp.csr_matrix, clusters: np.ndarray) -> np.ndarray:
    """Negative binomial dispersion of each gene within clusters, (genes,): the variance is ``mean + dispersion mean²``.

    By moments about depth x the cluster's profile. A gene has the larger one of its own value and of that of the genes with
    a similar mean: too large a dispersion costs power, too small a one leaves the halves of a count dependent.

    Parameters
    ----------
    counts
        (cells, genes).
    clusters
        Integers from 0, (cells,).
    """
    depth = _sums(counts, 1)
    member = sp.csr_matrix(clusters == np.arange(clusters.max() + 1)[:, None], dtype=np.float32)
    totals, depths = (member @ counts).toarray(), member @ depth
    profile = totals / np.maximum(depths, 1)[:, None]
    weighted = (member @ sp.diags(depth) @ counts).toarray()
    expected_squares = (profile**2 * (member @ depth**2)[:, None]).sum(0)
    squares = _sums(counts.multiply(counts), 0) - 2 * (weighted * profile).sum(0) + expected_squares
    n_cells = counts.shape[0]
    excess = squares * n_cells / max(n_cells - len(totals), 1) - totals.sum(0)
    dispersion = excess / np.maximum(expected_squares, 1e-12)
    bins = np.array_split(np.argsort(totals.sum(0), kind="stable"), min(N_BINS, counts.shape[1]))
    shared = np.empty(counts.shape[1])
    for genes in bins:
        shared[genes] = excess[genes].sum() / max(expected_squares[genes].sum(), 1e-12)
    return np.maximum(np.maximum(dispersion, shared), 0)


def split_counts(
    counts: sp.csr_matrix, dispersion: np.ndarray, rng: np.random.Generator
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Two halves of negative binomial counts that are independent given the means [Neufeld2023]_.

    The share of the molecules of an entry that goes to the first half is beta distributed. Without dispersion it is one half,
    and the split is that of Poisson counts.
    """
    size = 1 / np.maximum(dispersion[counts.indices], 1e-8)
    share = np.where(size < 1e6, rng.beta(size / 2, size / 2), 0.5)
    first_half = rng.binomial(np.rint(counts.data).astype(np.int64), np.nan_to_num(share, nan=0.5)).astype(np.float32)
    halves = [
        sp.csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
        for data in (first_half, counts.data - first_half)
    ]
    for half in halves:
        half.eliminate_zeros()
    return halves[0], halves[1]


def group_scores(counts: sp.csr_matrix, member: sp.csr_matrix, dispersion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Is the mean Pearson residual of a group's cells that of as many cells drawn at random?

    Residuals know the depth of a cell, so that a group of deep cells has no markers for its depth.

    Parameters
    ----------
    counts
        Which the groups have not seen, (cells, genes).
    member
        1 where a cell is in a group, (groups, cells).
    dispersion
        Of these counts, (genes,).

    Returns
    -------
    z scores and two-sided p-values, (groups, genes) both; 0 and 1 for a group without cells, or with all of them. The
    p-value is that of a gamma distribution with the mean, the variance and the skewness that permuting the cells would give.
    """
    n_cells, n_genes = counts.shape
    depth, profile = _sums(counts, 1), _sums(counts, 0) / max(counts.sum(), 1)
    size = _sums(member, 1)[:, None]
    scores, p = np.zeros((len(size), n_genes), np.float32), np.ones((len(size), n_genes))
    columns = counts.tocsc()
    for start in range(0, n_genes, GENES_AT_ONCE):
        block = slice(start, start + GENES_AT_ONCE)
        mean = (depth[:, None] * profile[block]).astype(np.float32)
        residuals = columns[:, block].toarray() - mean
        residuals /= np.sqrt(np.maximum(mean + dispersion[block].astype(np.float32) * mean**2, 1e-12))
        residuals -= residuals.mean(0)
        squares = residuals * residuals
        second, third = squares.mean(0), np.einsum("ij,ij->j", squares, residuals) / n_cells
        variance = size * (n_cells - size) / (n_cells - 1) * second
        moment = size * (n_cells - size) * (n_cells - 2 * size) / ((n_cells - 1) * max(n_cells - 2, 1)) * third
        sd = np.sqrt(np.where(variance > 0, variance, np.inf))
        scores[:, block] = z = (member @ residuals) / sd
        p[:, block] = gamma_p_values(z, moment / sd**3)
    return scores, p


def gamma_p_values(z: np.ndarray, skew: np.ndarray) -> np.ndarray:
    """Two-sided p-values of standardized sums with a given skewness (Pearson's type III distribution).

    A gamma distribution ends where sums of counts still occur (a cluster without a molecule), so that the short tail is at
    least that of the normal distribution.
    """
    z = np.where(skew < 0, -z, z)
    skew = np.abs(skew)
    is_gamma = skew > SMALLEST_SKEW
    g = np.where(is_gamma, skew, 1.0)
    long = np.where(is_gamma, gammaincc(4 / g**2, np.maximum(2 / g * (z + 2 / g), 0)), ndtr(-z))
    return np.minimum(2 * np.minimum(long, np.maximum(1 - long, ndtr(z))), 1.0)


def matched(clusterings: list[np.ndarray], reference: np.ndarray, n_groups: int) -> sp.csr_matrix:
    """The cells that stand for each reference group in another clustering, 1 or 0, (groups, cells).

    In each clustering they are the cells of all clusters that have clearly more than half of their cells in the group: by
    one standard deviation of a fair coin, lest small clusters be chosen for chance. Of the clusterings the one is taken
    that agrees best (Jaccard index); if that is below one half, the group has no cells.

    Parameters
    ----------
    clusterings
        Of the same cells at several resolutions, integers from 0, (cells,) each.
    reference
        Group of each cell, integers from 0, (cells,).
    """
    n_cells = len(reference)
    sizes = np.bincount(reference, minlength=n_groups)
    best, chosen = np.full(n_groups, LEAST_AGREEMENT), np.zeros((n_groups, n_cells), bool)
    for clusters in clusterings:
        table = np.zeros((clusters.max() + 1, n_groups), np.int64)
        np.add.at(table, (clusters, reference), 1)
        n = table.sum(1)[:, None]
        inside = table - n / 2 > np.sqrt(n) / 2  # (clusters, groups)
        shared, size = (table * inside).sum(0), (n * inside).sum(0)
        agreement = shared / np.maximum(sizes + size - shared, 1)
        better = agreement >= best
        best = np.where(better, agreement, best)
        chosen[better] = inside.T[better][:, clusters]
    return sp.csr_matrix(chosen, dtype=np.float32)


def combined(p: np.ndarray) -> np.ndarray:
    """Twice the median of the p-values of several splits, (splits, …): valid however the splits depend [Meinshausen2009]_."""
    return np.minimum(2 * np.quantile(p, 0.5, axis=0, method="higher"), 1.0)


def _sums(x, axis: int) -> np.ndarray:
    return np.asarray(x.sum(axis), np.float64).ravel()
