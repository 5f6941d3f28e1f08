"""Poisson deviance explained on held-out molecules."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.metrics._codes import as_counts, as_data

BLOCK_ENTRIES = 10_000_000
SMALLEST_MEAN = 1e-6


@checked
def deviance_explained(
    denoised: np.ndarray | sp.spmatrix,
    train: np.ndarray | sp.spmatrix,
    test: np.ndarray | sp.spmatrix,
    *,
    per_gene: bool = False,
) -> float | np.ndarray:
    """Share of the Poisson deviance of held-out molecules that a denoised matrix explains (D2).

    ``1 - deviance(test, expected) / deviance(test, library size x gene mean)``. Expected are the rows of `denoised`,
    rescaled to the library sizes of `train`, then to the share of the molecules that `test` has: so any scale of
    `denoised` will do. 0 means no better than the gene means, below 0 worse; 1 cannot be reached, since the held-out
    counts themselves are noise. This is molecular cross-validation [Batson2019]_.

    Parameters
    ----------
    denoised
        Expected counts, made from `train` alone; (cells, genes), any scale, not logarithmic.
    train, test
        The two parts of the counts, as from `aeverse.pp.thin_counts`; (cells, genes).
    per_gene
        Return one value for each gene (NaN for a gene without held-out molecules).

    Returns
    -------
    A number, or an array of shape (genes,).

    Raises
    ------
    ValueError
        The shapes differ.

    Examples
    --------
    >>> import aeverse as ae, numpy as np
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.pp.thin_counts(adata, 0.9)
    >>> train, test = adata.layers["thinned"], adata.layers["thinned_rest"]
    >>> gene_means = np.ones((adata.n_obs, 1)) * np.asarray(train.mean(0))
    >>> abs(round(ae.metrics.deviance_explained(gene_means, train, test), 2)) < 0.05
    True
    """
    train, test = as_counts(train, "train"), as_counts(test, "test")
    denoised = denoised if sp.issparse(denoised) else as_data(denoised, "denoised")
    if not denoised.shape == train.shape == test.shape:
        raise ValueError(f"shapes differ: denoised {denoised.shape}, train {train.shape}, test {test.shape}.")
    values: Any = sp.csr_matrix(denoised) if sp.issparse(denoised) else denoised
    total = float(train.sum())
    share = float(test.sum()) / total if total else 0.0
    library = np.asarray(train.sum(1), np.float64) * share
    frequency = np.asarray(train.sum(0), np.float64) / max(total, 1.0)
    deviance, null = np.zeros(train.shape[1]), np.zeros(train.shape[1])
    step = max(1, BLOCK_ENTRIES // max(train.shape[1], 1))
    for start in range(0, train.shape[0], step):
        rows = slice(start, start + step)
        mean = _slots.dense(values[rows])
        mean = np.maximum(np.nan_to_num(mean.astype(np.float64)), 0)
        sums = mean.sum(1, keepdims=True)
        mean *= library[rows] / np.where(sums == 0, 1, sums)
        observed = test[rows].toarray().astype(np.float64)
        deviance += _poisson_deviance(observed, mean)
        null += _poisson_deviance(observed, library[rows] * frequency)
    if not per_gene:
        return float(1 - deviance.sum() / null.sum()) if null.sum() else 0.0
    molecules = np.asarray(test.sum(0)).ravel() > 0
    return np.where(molecules, 1 - deviance / np.where(null == 0, 1, null), np.nan)


def _poisson_deviance(observed: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Deviance of each column."""
    mean = np.maximum(mean, SMALLEST_MEAN)
    stored = observed > 0
    logarithms = np.zeros_like(mean)
    logarithms[stored] = observed[stored] * np.log(observed[stored] / mean[stored])
    return 2 * (mean - observed + logarithms).sum(0)
