"""The expression of entries given their counts: a gamma distribution, or a mixture of some, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from aeverse.nn._rows import SparseRows
from aeverse.nn._special import beyond_zero, runs_compiled


class Expression:
    """Distribution of the expression of every entry of a block, given its count.

    Before the count is seen, the expression is gamma distributed with mean ``mu`` and a shape that is one of
    ``scale * shape``, with known probabilities. A count far from ``mu`` makes the small shapes likely, under which it is
    believed. The count is Poisson given the expression.

    Parameters
    ----------
    mu
        Means, (cells, genes).
    counts
        What was seen.
    shape
        Shapes, (cells, genes).
    scales
        Factors on the shape, each with its probability for every gene, (genes,) or a number.
    calibration
        Called with the mean expression: factors on the expression, (cells, genes). None: all are 1.

    Examples
    --------
    >>> import torch, scipy.sparse as sp
    >>> from aeverse.nn import Expression, SparseRows
    >>> counts, mu = SparseRows.from_scipy(sp.csr_matrix([[0.0, 9.0]])), torch.ones(1, 2)
    >>> Expression(mu, counts, torch.full((1, 2), 4.0)).mean()
    tensor([[0.8000, 2.6000]])
    >>> outliers = Expression(mu, counts, torch.full((1, 2), 4.0), [(1.0, torch.tensor(0.9)), (0.05, torch.tensor(0.1))])
    >>> bool(outliers.mean()[0, 1] > 6)
    True
    """

    def __init__(
        self,
        mu: Tensor,
        counts: SparseRows,
        shape: Tensor,
        scales: Sequence[tuple[float, Tensor | float]] = ((1.0, 1.0),),
        calibration: Callable[[Tensor], Tensor] | None = None,
    ):
        self.mu, self.counts, self.shape, self.calibration = mu, counts, shape, calibration
        self.scales, self.priors = zip(*scales, strict=True)
        self.x, self.entry = counts.values, counts.flat_index()

    @cached_property
    def shapes(self) -> list[Tensor]:
        """Each of the shapes that the prior may have, (cells, genes)."""
        return [self.shape if scale == 1 else self.shape * scale for scale in self.scales]

    @cached_property
    def weights(self) -> Sequence[Tensor | float]:
        """Probability of each, given the count, (cells, genes); of one shape only, the number 1."""
        if len(self.scales) == 1:
            return (1.0,)
        logs = self.mu.new_empty(len(self.scales), *self.mu.shape)
        for log, shape, prior in zip(logs, self.shapes, self._log_priors(), strict=True):
            self._log_likelihood(shape, prior, out=log)
        return logs.softmax(0).unbind()

    def _log_priors(self) -> Tensor:
        """Logarithms of the probabilities before the count is seen, (scales, genes)."""
        n_genes = self.mu.shape[1]
        priors = [torch.as_tensor(prior, dtype=self.mu.dtype, device=self.mu.device) for prior in self.priors]
        return torch.stack([prior.expand(n_genes) for prior in priors]).clamp_min(1e-30).log()

    def _log_likelihood(self, shape: Tensor, log_prior: Tensor, out: Tensor) -> None:
        """Of the counts and of the shape, up to a constant that is the same for all shapes, (cells, genes)."""
        torch.div(self.mu, shape, out=out)
        torch.addcmul(log_prior, shape, out.log1p_(), value=-1, out=out)
        stored = beyond_zero(shape.view(-1)[self.entry], self.x, self.mu.view(-1)[self.entry])
        out.view(-1)[self.entry] += stored

    @cached_property
    def _means(self) -> list[Tensor]:
        """Mean given each shape: ``mu (shape + x) / (shape + mu)``."""
        means = []
        for shape in self.shapes:
            weight = self.mu / (self.mu + shape)
            mean = weight * shape
            mean.view(-1)[self.entry] += weight.view(-1)[self.entry] * self.x
            means.append(mean)
        return means

    def _average(self, values: Sequence[Tensor]) -> Tensor:
        """Over the shapes, by how likely each is."""
        total = values[0] * self.weights[0]
        for value, weight in zip(values[1:], self.weights[1:], strict=True):
            assert isinstance(weight, Tensor)  # of one shape only, the weight is a number
            total.addcmul_(value, weight)
        return total

    @cached_property
    def _mean(self) -> Tensor:
        """Mean before the calibration."""
        if runs_compiled(self.mu):
            from aeverse.nn import _kernels  # numba takes a second to load

            entries = (self.counts.pointers, self.counts.columns, self.counts.values)
            scales = torch.tensor(self.scales, dtype=torch.float32)
            parts = (self.mu.contiguous(), self.shape.contiguous(), *entries, scales, self._log_priors())
            return torch.from_numpy(_kernels.posterior_mean(*(part.numpy() for part in parts)))
        return self._average(self._means)

    @cached_property
    def _factor(self) -> Tensor | float:
        return 1.0 if self.calibration is None else self.calibration(self._mean)

    def mean(self) -> Tensor:
        """Mean of each entry, (cells, genes)."""
        return self._mean * self._factor

    def variance(self, spread: Tensor | None = None) -> Tensor:
        """Variance of each entry, (cells, genes).

        `spread` is the variance of `mu` itself (between members); it counts by how far the mean follows `mu`.
        """
        deviations = [mean - self._mean for mean in self._means]
        parts = zip(self._means, self.shapes, deviations, strict=True)
        variance = self._average(
            [mean * (self.mu / (self.mu + shape)) + apart.square() for mean, shape, apart in parts]
        )
        if spread is not None:
            variance += spread * self._slope(deviations).square_()
        return variance * self._factor**2

    def _slope(self, deviations: Sequence[Tensor]) -> Tensor:
        """Derivative of the mean by `mu`: of the mean given each shape, and of how likely the shapes are."""
        slopes = []
        for shape, mean, apart in zip(self.shapes, self._means, deviations, strict=True):
            follows = shape / (self.mu * (self.mu + shape)).clamp_min(1e-30)
            misses = -self.mu * follows
            misses.view(-1)[self.entry] += follows.view(-1)[self.entry] * self.x
            slopes.append(mean * follows + misses * apart)
        return self._average(slopes)

    def detection_probability(self, depth: float) -> Tensor:
        """Probability that an entry without counts would have some at `depth` times the cell's depth, (cells, genes).

        Given the zero and the shape, the expression is gamma with rate ``1 + shape / mu``, so that the next ``depth - 1``
        times the molecules bring none with probability ``(1 + (depth - 1) mu / (shape + mu)) ** -shape``.
        """
        more = (depth - 1) * self._factor
        return self._average([-torch.expm1(-t * torch.log1p(more * self.mu / (self.mu + t))) for t in self.shapes])
