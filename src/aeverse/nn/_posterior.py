"""The gamma posterior of an entry's expression: what the decoder expects, corrected by the count that was seen.

Given the mean `mu` of the decoder, the expression of gene g in cell i is gamma distributed with mean `mu` and shape
``theta = theta_g * (mu / center_g) ** slope_g * factor_i * scale``, and the count is Poisson given the expression, so that
counts are negative binomial. The slope says whether a gene's relative spread is the same at all levels (0, the usual choice)
or shrinks where it is high; the factor says that some cells are described better than others; the scale is that of an entry,
one of three, for data in which most counts are near what is expected and a few far from it. All are empirical-Bayes estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from aeverse.nn._calibration import Calibration
from aeverse.nn._expression import Expression
from aeverse.nn._rows import SparseRows
from aeverse.nn._special import beyond_zero, runs_compiled, sums_of_log1p


def _geometric(low: float, high: float, n: int) -> tuple[float, ...]:
    return tuple(low * (high / low) ** (i / (n - 1)) for i in range(n))


THETAS = _geometric(0.03, 300, 14)
SLOPES = (0.0, 0.35, 0.7)
FACTORS = _geometric(0.2, 5, 9)
SCALES = (0.05, 1.0, 10.0)
PSEUDO_ENTRIES = 100.0  # of scale 1, that the estimate of the scales' probabilities is given beside those of the data
N_BINS = 10  # genes of similar expression share a prior
SMALLEST = 1e-6

Means = Callable[[], Iterator[tuple[SparseRows, Tensor]]]


class _Histogram:
    """Weights of positive values by their size, four bins an octave, and the mean value of each bin.

    The likelihood of the many entries without counts, or with one, is a sum over all of them of a smooth function, wanted
    for many parameters: one pass makes the bins, and the function is then taken of their means, to a relative error below
    0.001. How many of the entries of a bin have one molecule is in `single`.
    """

    first, n_bins = (127 - 24) * 4, (24 + 16) * 4  # from 2**-24 to 2**16

    def __init__(self, n_rows: int, device: torch.device):
        self.weights, self.totals, self.single = (
            torch.zeros(n_rows, self.n_bins, dtype=torch.float32, device=device) for _ in range(3)
        )

    def add(self, values: Tensor, row: Tensor, weights: Tensor, single: Tensor) -> None:
        """Add values (a, b) to the rows that `row` (broadcast) names; `single`: positions of those with one molecule."""
        if runs_compiled(values):
            from aeverse.nn import _posterior_kernels  # numba takes a second to load

            block = (values, weights, single, row.expand_as(values))
            bins = (self.weights, self.totals, self.single)
            _posterior_kernels.add_to_histogram(*(t.numpy() for t in block), self.first, *(t.numpy() for t in bins))
            return
        index = self._bin(values, row)
        one = index[single]
        adding = (
            (self.weights, index, weights),
            (self.totals, index, weights * values),
            (self.single, one, torch.ones_like(one, dtype=values.dtype)),
        )
        for total, where, added in adding:
            total.view(-1).index_add_(0, where, added.reshape(-1))

    def _bin(self, values: Tensor, row: Tensor) -> Tensor:
        bins = (values.view(torch.int32) >> 21).sub_(self.first)  # the exponent and two bits of the mantissa
        return bins.clamp_(0, self.n_bins - 1).add_(row * self.n_bins).view(-1)

    def number(self, values: Tensor, row: Tensor) -> Tensor:
        """How many of some values are in each bin, (rows, bins)."""
        return torch.bincount(self._bin(values, row), minlength=self.weights.numel()).view_as(self.weights)

    def means(self) -> Tensor:
        """Weighted mean of the values in each bin, (rows, bins); zero in empty ones."""
        return self.totals / self.weights.clamp_min(1e-30)


class GammaPosterior(nn.Module):
    """Dispersions of genes and cells, and the posterior that follows from them.

    Attributes
    ----------
    constant_theta
        Dispersions with slope 0, for training, (genes,).
    theta, slope, center
        Dispersion of each gene at the mean `center`, and how it changes with the mean, (genes,).
    factor_prior
        How the cells' factors are distributed over the grid, (9,).
    scale_prior
        How each gene's entries are distributed over the three scales, (genes, 3).
    calibration
        Last correction of what is expected, by molecules that were held out (`Calibration`); 1 everywhere before its own `fit`.

    Examples
    --------
    >>> import torch, scipy.sparse as sp, numpy as np
    >>> from aeverse.nn import GammaPosterior, SparseRows
    >>> rng = np.random.default_rng(0)
    >>> counts = SparseRows.from_scipy(sp.csr_matrix(rng.poisson(rng.gamma(2.0, 3.0 / 2.0, size=(2000, 20)))))
    >>> posterior, mu = GammaPosterior(20), torch.full(counts.shape, 3.0)
    >>> posterior.fit(lambda: iter([(counts, mu)]))
    >>> 1.7 < posterior.constant_theta.mean().item() < 2.3
    True
    >>> posterior.given(mu, counts).mean().shape
    torch.Size([2000, 20])
    """

    constant_theta: Tensor
    theta: Tensor
    slope: Tensor
    center: Tensor
    factor_prior: Tensor
    scale_prior: Tensor

    def __init__(self, n_features: int):
        super().__init__()
        self.register_buffer("constant_theta", torch.full((n_features,), 10.0, dtype=torch.float32))
        self.register_buffer("theta", torch.full((n_features,), 10.0, dtype=torch.float32))
        self.register_buffer("slope", torch.zeros(n_features, dtype=torch.float32))
        self.register_buffer("center", torch.ones(n_features, dtype=torch.float32))
        self.register_buffer("factor_prior", torch.full((len(FACTORS),), 1 / len(FACTORS), dtype=torch.float32))
        self.calibration = Calibration(n_features)
        self.register_buffer("scale_prior", torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float32).repeat(n_features, 1))

    @torch.no_grad()
    def fit(self, means: Means, *, quick: bool = False) -> None:
        """Estimate from counts and means of the same cells; `means` gives them in blocks, each time it is called.

        `quick` leaves out slopes and scales, which take time: enough while training.
        """
        slopes = (0.0,) if quick else SLOPES
        histogram, squares = _Histogram(len(self.theta), self.theta.device), torch.zeros_like(self.theta)
        molecules, many = torch.zeros_like(self.theta), []
        gene = torch.arange(len(self.theta), device=self.theta.device, dtype=torch.int32)
        for counts, mu in means():
            entry, one, more = _entries(counts)
            histogram.add(mu, gene, torch.ones_like(mu), entry[one])
            squares += mu.square().sum(0)
            molecules.index_add_(0, counts.columns, counts.values)
            many.append((counts.values[more], counts.columns[more], mu.view(-1)[entry[more]]))
        self.center.copy_(squares / histogram.totals.sum(1).clamp_min(SMALLEST)).clamp_(min=SMALLEST)
        x, gene, mu = (torch.cat(parts) for parts in zip(*many, strict=True))
        log_likelihood = self._gene_log_likelihood(histogram, x, gene, mu, slopes)
        n, theta = len(THETAS), torch.tensor(THETAS, dtype=torch.float32, device=self.theta.device)
        slope = torch.tensor(slopes, dtype=torch.float32, device=self.theta.device).repeat_interleave(n)
        groups = torch.argsort(molecules, stable=True).tensor_split(min(N_BINS, len(molecules)))
        for genes in groups:
            gene_likelihood = log_likelihood[genes]
            self.constant_theta[genes] = 1 / (responsibilities(gene_likelihood[:, :n]) @ (1 / theta))
            weights = responsibilities(gene_likelihood)
            self.theta[genes] = 1 / (weights @ (1 / theta.repeat(len(slopes))))
            self.slope[genes] = weights @ slope
        cells = torch.cat([self._cell_log_likelihood(counts, mu, self._gene_shape(mu)) for counts, mu in means()])
        self.factor_prior.copy_(npmle(cells))
        if not quick:
            self._fit_scales(histogram, groups, x, gene, mu)

    def _fit_scales(self, histogram: _Histogram, groups: Sequence[Tensor], x: Tensor, gene: Tensor, mu: Tensor) -> None:
        """Scales of entries, from the histogram of the means, and, of entries with more than one molecule, one by one."""
        used = histogram.weights.any(0)
        means, single = histogram.means()[:, used].clamp_min(SMALLEST), histogram.single[:, used]
        none = (histogram.weights - histogram.number(mu, gene))[:, used] - single
        shape = self._gene_shape(means.T).T
        own_shape = self._gene_shape(mu, gene)
        zeros, ones, many = [], [], []
        for scale in SCALES:
            t, entry_shape = shape * scale, own_shape * scale
            logs = torch.log1p(means / t)
            zeros.append(-t * logs)
            ones.append(-(t + 1) * logs)
            many.append(beyond_zero(entry_shape, x, mu) - entry_shape * torch.log1p(mu / entry_shape))
        group = torch.empty(len(self.theta), dtype=torch.long, device=x.device)
        for i, genes in enumerate(groups):
            group[genes] = i
        none_of, one_of, many_of = torch.stack(zeros), torch.stack(ones), torch.stack(many)
        for i, genes in enumerate(groups):
            among = group[gene] == i
            parts = none_of[:, genes], one_of[:, genes], many_of[:, among]
            often = torch.cat([none[genes].flatten(), single[genes].flatten(), torch.ones_like(x[among])])
            logs = torch.cat([part.flatten(1) for part in parts], 1)[:, often > 0].T
            self.scale_prior[genes] = _scale_prior(logs, often[often > 0]).to(self.scale_prior)

    def _gene_log_likelihood(
        self, histogram: _Histogram, x: Tensor, gene: Tensor, mu: Tensor, slopes: Sequence[float]
    ) -> Tensor:
        """Of each gene at each slope and theta, up to a constant, (genes, slopes x thetas).

        From the histogram of the means, and, of entries with more than one molecule, counts `x`, genes and means.
        """
        blocks, used, thetas = [], histogram.weights.any(0), torch.tensor(THETAS, dtype=mu.dtype, device=mu.device)
        means, weights, single = (v[:, used] for v in (histogram.means(), histogram.weights, histogram.single))
        for slope in slopes:
            level = (means / self.center[:, None]).clamp_min_(SMALLEST).pow_(slope)
            ratio, weighted = means / level, level * weights
            level_many = (mu / self.center[gene]).clamp_min_(SMALLEST).pow_(slope)
            total = -sums_of_log1p(ratio, weighted, single, thetas)
            for row, theta in zip(total, THETAS, strict=True):
                row.index_add_(0, gene, beyond_zero(theta * level_many, x, mu))
            blocks.append(total)
        return torch.cat(blocks).T

    @staticmethod
    def _cell_log_likelihood(counts: SparseRows, mu: Tensor, shape: Tensor) -> Tensor:
        """Of each cell at each factor, up to a constant, (cells, factors)."""
        entry, one, more = _entries(counts)
        cell = torch.arange(len(mu), device=mu.device, dtype=torch.int32)[:, None]
        histogram = _Histogram(len(mu), mu.device)
        histogram.add(mu / shape, cell, shape, entry[one])
        x, rows, stored, gene_shape = (
            counts.values[more],
            counts.row_index()[more],
            mu.view(-1)[entry[more]],
            shape.view(-1)[entry[more]],
        )
        factors = torch.tensor(FACTORS, dtype=mu.dtype, device=mu.device)
        total = -sums_of_log1p(histogram.means(), histogram.weights, histogram.single, factors)
        for row, factor in zip(total, FACTORS, strict=True):
            row.index_add_(0, rows, beyond_zero(gene_shape * factor, x, stored))
        return total.T

    def _gene_shape(self, mu: Tensor, gene: Tensor | slice = slice(None)) -> Tensor:
        return (mu / self.center[gene]).clamp_min_(SMALLEST).pow_(self.slope[gene]).mul_(self.theta[gene])

    def _shape(self, mu: Tensor, counts: SparseRows) -> Tensor:
        """Shape theta of the gamma prior of every entry, (cells, genes)."""
        shape = self._gene_shape(mu)
        log_likelihood = self._cell_log_likelihood(counts, mu, shape)
        weights = responsibilities(log_likelihood, self.factor_prior)
        return shape.div_(weights @ (1 / torch.tensor(FACTORS, dtype=torch.float32, device=mu.device)[:, None]))

    def given(self, mu: Tensor, counts: SparseRows) -> Expression:
        """Distribution of the expression of a block of entries, with means `mu`, given their counts."""
        scales = [(scale, prior) for scale, prior in zip(SCALES, self.scale_prior.T, strict=True) if prior.any()]

        def calibration(mean: Tensor) -> Tensor:
            return self.calibration(mean, mu.sum(1, keepdim=True), counts)

        fitted_calibration = calibration if self.calibration.is_fitted else None
        return Expression(mu, counts, self._shape(mu, counts), scales, fitted_calibration)


def _entries(counts: SparseRows) -> tuple[Tensor, Tensor, Tensor]:
    """Position of each stored entry in the dense matrix; which of them are one, and which are more."""
    return counts.flat_index(), (counts.values == 1).nonzero().squeeze(1), (counts.values > 1).nonzero().squeeze(1)


def npmle(log_likelihood: Tensor, n_steps: int = 100) -> Tensor:
    """Distribution over the grid that makes all rows together most likely.

    The nonparametric maximum-likelihood estimate (Kiefer and Wolfowitz, 1956), by expectation-maximization.
    """
    likelihood = torch.exp(log_likelihood - log_likelihood.amax(1, keepdim=True))
    if runs_compiled(likelihood):
        from aeverse.nn import _posterior_kernels

        return torch.from_numpy(_posterior_kernels.npmle(likelihood.contiguous().numpy(), n_steps))
    prior = likelihood.new_full((likelihood.shape[1],), 1 / likelihood.shape[1])
    for _ in range(n_steps):
        posterior = likelihood * prior
        prior = (posterior / posterior.sum(1, keepdim=True)).mean(0)
    return prior


def _scale_prior(log_likelihood: Tensor, often: Tensor, n_steps: int = 10) -> Tensor:
    """Distribution over the scales that makes entries most likely, from (entries, scales) and how often each occurs.

    As `npmle`, but with few, similar likelihoods, for which expectation-maximization needs thousands of steps; these
    are Newton's, in the logarithms of the probabilities, which add up to one where the gradient is zero.
    """
    likelihood = torch.exp(log_likelihood - log_likelihood.amax(1, keepdim=True)).double()
    usual = torch.tensor(SCALES, dtype=torch.float32, device=often.device).eq(1).double()
    often = torch.cat([often.double(), often.new_full((1,), PSEUDO_ENTRIES)])
    likelihood = torch.cat([likelihood, usual[None]])
    prior = 0.9 * usual + 0.1 / len(SCALES)
    for _ in range(n_steps):
        share = likelihood * prior / (likelihood @ prior)[:, None]
        curvature = share.T @ (share * often[:, None])
        ridge = 1e-6 * often.sum() * torch.eye(len(prior), dtype=prior.dtype, device=prior.device)
        step = torch.linalg.solve(curvature + ridge, often @ share - often.sum() * prior)
        prior = prior * step.clamp(-2, 2).exp()
    return prior / prior.sum()


def responsibilities(log_likelihood: Tensor, prior: Tensor | None = None) -> Tensor:
    """Posterior of each row over the grid, under the given prior or the one that the rows have in common."""
    prior = npmle(log_likelihood) if prior is None else prior
    return torch.softmax(
        log_likelihood + prior.clamp_min(1e-30).log(), 1
    )  # a row may be unlike all that made the prior
