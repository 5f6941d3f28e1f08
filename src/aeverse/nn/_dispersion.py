"""Gene-wise dispersions of the negative binomial, by empirical Bayes on a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aeverse.nn._rows import Rows

GRID = tuple(math.exp(math.log(0.03) + i * (math.log(300) - math.log(0.03)) / 13) for i in range(14))
"""The values of theta that are considered."""


def dispersion_log_likelihood(counts: Rows, mu: Tensor) -> Tensor:
    """Log-likelihood of each gene at each theta of `GRID`, up to a constant by gene; sums over blocks of cells.

    Parameters
    ----------
    counts, mu
        Counts and their means, (cells, genes). Only the entries with counts need the gamma function.

    Returns
    -------
    (genes, 14).
    """
    x, gene = counts.values, counts.columns
    stored = mu[counts.row_of_entry(), gene]
    total = mu.new_zeros(len(GRID), mu.shape[1])
    buffer = torch.empty_like(mu)
    for row, theta in zip(total, GRID, strict=True):
        torch.mul(mu, 1 / theta, out=buffer)
        row -= theta * buffer.log1p_().sum(0)  # every entry as if it were zero
        terms = torch.lgamma(x + theta) - math.lgamma(theta) - x * torch.log(stored + theta)
        row.index_add_(0, gene, terms)
    return total.T


def shrunken_dispersion(log_likelihood: Tensor, *, n_steps: int = 100) -> Tensor:
    """Dispersions from `dispersion_log_likelihood`, shrunken towards what is common among the genes.

    The distribution of theta over the genes is estimated without assuming its shape (Kiefer and Wolfowitz, 1956), by
    expectation-maximisation on the grid; a gene's theta is the inverse of its posterior mean of ``1 / theta``, so that
    the expected variance is right.

    Examples
    --------
    >>> import torch, scipy.sparse as sp, numpy as np
    >>> from aeverse.nn import Rows, dispersion_log_likelihood, shrunken_dispersion
    >>> rng = np.random.default_rng(0)
    >>> x = rng.poisson(rng.gamma(2.0, 3.0 / 2.0, size=(2000, 20)))
    >>> theta = shrunken_dispersion(dispersion_log_likelihood(Rows.from_scipy(sp.csr_matrix(x)), torch.full(x.shape, 3.0)))
    >>> 1.7 < theta.mean().item() < 2.3
    True
    """
    likelihood = torch.exp(log_likelihood - log_likelihood.amax(1, keepdim=True))
    prior = likelihood.new_full((len(GRID),), 1 / len(GRID))
    for _ in range(n_steps):
        posterior = likelihood * prior
        posterior /= posterior.sum(1, keepdim=True)
        prior = posterior.mean(0)
    return 1 / (posterior @ (1 / torch.tensor(GRID, dtype=posterior.dtype, device=posterior.device)))
