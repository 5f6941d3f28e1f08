"""Likelihoods: how the decoder's output explains the data. One class each; they all answer the same questions.

``loss``         negative log-likelihood of a mini-batch, summed
``mean``         expected value, in the units of the data
``deviance``     of each feature, given the mean; missing entries (NaN) do not count
``information``  Fisher information of the code, (latent, latent), given loadings (features, latent) and the data's mean
``noise``        variance that the loss takes for one: a loss in nats is ``loss / noise``
``draw``         data, given the mean, from a generator (None: torch's global one)
``complaint``    what is wrong with values that the likelihood does not allow
``empty``        one to load weights into
``start``        of values that are no counts: one for training data, and the decoder's bias to start from

A new likelihood is a class and its place in `LIKELIHOODS`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn

from aeverse.nn._count_loss import count_loss, softmax_means
from aeverse.nn._encoder import SMALLEST_SD, BinaryInput, DenseInput, LogitInput, ValueInput
from aeverse.nn._moments import Matrix, moments
from aeverse.nn._random import normal_like
from aeverse.nn._rows import SparseRows
from aeverse.nn._special import fraction_logit

SMALLEST = 1e-6
NOISE_STEP = 0.05  # share of a batch in the running mean of the noise


class Likelihood(nn.Module):
    """What all likelihoods answer, see above. Some need the library sizes, others ignore them."""

    name: ClassVar[str]
    kind: ClassVar[str]  # of data that it is for
    is_count: ClassVar[bool] = False
    corruptions: ClassVar[tuple[str, ...]] = ("masking",)  # that suit it; the first is the default
    noise: Tensor | float

    def loss(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, target: SparseRows | Tensor, library: Tensor | None = None
    ) -> Tensor:
        """Negative log-likelihood of a mini-batch, summed."""
        raise NotImplementedError

    def mean(self, hidden: Tensor, weight: Tensor, bias: Tensor, library: Tensor | None = None) -> Tensor:
        """Expected value, in the units of the data."""
        raise NotImplementedError

    @staticmethod
    def information(loadings: Tensor, mean: Tensor) -> Tensor:
        """Fisher information of the code, given loadings and the data's mean."""
        raise NotImplementedError

    def deviance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Of each feature, given the mean."""
        raise NotImplementedError

    def draw(self, mean: Tensor, generator: Generator | None = None) -> Tensor:
        """Data, given the mean."""
        raise NotImplementedError

    @staticmethod
    def complaint(values: np.ndarray, place: str) -> str | None:
        """What is wrong with finite values, which stand in `place`; None: nothing."""
        return None

    @classmethod
    def empty(cls, n_features: int) -> Likelihood:
        """To load weights into."""
        return cls()


class ValueLikelihood(Likelihood):
    """Of values that are no counts."""

    input_layer: ClassVar[type[ValueInput]] = DenseInput  # that an encoder reads them through

    @classmethod
    def start(cls, x: Matrix) -> tuple[ValueLikelihood, np.ndarray]:
        """The likelihood of training data (samples, features), and the bias from which the decoder starts."""
        raise NotImplementedError


class Poisson(Likelihood):
    """Counts on library size x softmax. Given the library size this is the multinomial likelihood."""

    name, kind, is_count, corruptions = "poisson", "counts", True, ("thinning",)
    noise = 1.0
    dispersion: Tensor | None

    def __init__(self, dispersion: Tensor | None = None):
        super().__init__()
        self.register_buffer("dispersion", dispersion)

    def loss(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, target: SparseRows | Tensor, library: Tensor | None = None
    ) -> Tensor:
        """Negative log-likelihood of sparse counts."""
        assert isinstance(target, SparseRows)
        assert library is not None
        return count_loss(hidden, weight, bias, target, library, self.dispersion)

    def mean(self, hidden: Tensor, weight: Tensor, bias: Tensor, library: Tensor | None = None) -> Tensor:
        """Expected counts at the given library sizes."""
        assert library is not None
        return softmax_means(hidden, weight, bias, library)

    @staticmethod
    def deviance(x: Tensor, mean: Tensor) -> Tensor:
        """Poisson deviance."""
        mean = mean.clamp_min(SMALLEST)
        return 2 * (torch.xlogy(x, x / mean) - x + mean).sum(0)

    @staticmethod
    def deviance_of_rows(counts: SparseRows, mean: Tensor) -> Tensor:
        """Poisson deviance of sparse counts: of an entry without counts it is twice the mean."""
        x = counts.values
        at_counts = torch.xlogy(x, x / mean[counts.row_index(), counts.columns].clamp_min(SMALLEST)) - x
        return 2 * mean.sum(0).index_add_(0, counts.columns, at_counts)

    @staticmethod
    def information(loadings: Tensor, mean: Tensor) -> Tensor:
        """Of a code, by molecule."""
        average = mean @ loadings
        return (loadings * mean[:, None]).T @ loadings - torch.outer(average, average)

    def draw(self, mean: Tensor, generator: Generator | None = None) -> Tensor:
        """Counts."""
        if self.dispersion is None:
            return torch.poisson(mean, generator=generator)
        shape = self.dispersion.expand_as(mean)
        rate = torch._standard_gamma(shape, generator=generator) / (shape / mean.clamp_min(1e-30))
        return torch.poisson(rate.clamp_min(torch.finfo(rate.dtype).tiny), generator=generator)


class NegativeBinomial(Poisson):
    """Counts with gene-wise dispersions theta: variance ``mu + mu**2 / theta``."""

    name = "nb"
    dispersion: Tensor

    def __init__(self, n_features: int, dispersion: float = 10.0):
        super().__init__(torch.full((n_features,), dispersion, dtype=torch.float32))

    @classmethod
    def empty(cls, n_features: int) -> NegativeBinomial:
        """To load weights into."""
        return cls(n_features)


class Gaussian(ValueLikelihood):
    """Continuous values, standardized by feature inside; the decoder speaks in standard deviations."""

    name, kind = "gaussian", "continuous"
    corruptions: ClassVar[tuple[str, ...]] = ("masking", "gaussian")
    center: Tensor
    scale: Tensor
    residual: Tensor
    noise: Tensor

    def __init__(self, mean: Tensor, sd: Tensor):
        super().__init__()
        self.register_buffer("center", mean)
        self.register_buffer("scale", sd)
        self.register_buffer("residual", torch.ones_like(sd))  # standard deviation of what the decoder leaves
        self.register_buffer(
            "noise", torch.ones((), dtype=torch.float32)
        )  # its running mean square over all features, while training

    @classmethod
    def start(cls, x: Matrix) -> tuple[Gaussian, np.ndarray]:
        """At the moments of the features; the decoder starts at zero, their mean."""
        mean, sd = moments(x)
        unit = np.where(sd < SMALLEST_SD, np.float32(1), sd)
        return cls(torch.from_numpy(mean), torch.from_numpy(unit)), np.zeros(len(mean))

    @classmethod
    def empty(cls, n_features: int) -> Gaussian:
        """To load weights into."""
        return cls(torch.zeros(n_features, dtype=torch.float32), torch.ones(n_features, dtype=torch.float32))

    def standardize(self, x: Tensor) -> Tensor:
        """From units of the data to units of the decoder."""
        return (x - self.center) / self.scale

    def restore(self, eta: Tensor) -> Tensor:
        """From units of the decoder to units of the data."""
        return eta * self.scale + self.center

    def loss(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, target: SparseRows | Tensor, library: Tensor | None = None
    ) -> Tensor:
        """Half the squared error of the standardized values."""
        assert isinstance(target, Tensor)
        error = torch.nan_to_num(hidden @ weight.T + bias - self.standardize(target)).square().sum()
        if self.training:
            mean = error.detach() / (~torch.isnan(target)).sum().clamp_min(1)
            self.noise.lerp_(mean.to(self.noise.dtype), NOISE_STEP)
        return 0.5 * error

    def mean(self, hidden: Tensor, weight: Tensor, bias: Tensor, library: Tensor | None = None) -> Tensor:
        """Expected value in the units of the data."""
        return self.restore(hidden @ weight.T + bias)

    def deviance(self, x: Tensor, mean: Tensor) -> Tensor:
        """Squared error of the standardized values."""
        return torch.nan_to_num(self.standardize(x) - self.standardize(mean)).square().sum(0)

    @staticmethod
    def information(loadings: Tensor, mean: Tensor) -> Tensor:
        """Of a code, at unit variance."""
        return loadings.T @ loadings

    def draw(self, mean: Tensor, generator: Generator | None = None) -> Tensor:
        """Values around the mean, with the residual variance of each feature."""
        return self.restore(self.standardize(mean) + self.residual * normal_like(mean, generator))


class LogitGaussian(Gaussian):
    """Fractions between 0 and 1 (methylation beta values): Gaussian on the logit, as M-values (Du et al., 2010)."""

    name, kind, corruptions = "fractions", "fractions", ("masking",)
    input_layer = LogitInput

    @classmethod
    def start(cls, x: Matrix) -> tuple[Gaussian, np.ndarray]:
        """At the moments of the logits."""
        return super().start(fraction_logit(torch.as_tensor(x if isinstance(x, np.ndarray) else x.toarray())).numpy())

    @staticmethod
    def complaint(values: np.ndarray, place: str) -> str | None:
        """They must lie between 0 and 1."""
        if not values.size or (values.min() >= 0 and values.max() <= 1):
            return None
        return (
            f"likelihood='fractions' needs values between 0 and 1, but {place} spans {values.min():.4g} to "
            f"{values.max():.4g}; divide percentages by 100, or use likelihood='gaussian' for M-values."
        )

    def standardize(self, x: Tensor) -> Tensor:
        """Logit, then units of the decoder."""
        return super().standardize(fraction_logit(x))

    def restore(self, eta: Tensor) -> Tensor:
        """Back to fractions."""
        return torch.sigmoid(super().restore(eta))


class Bernoulli(ValueLikelihood):
    """0 or 1: somatic mutations, accessibility."""

    name, kind = "bernoulli", "binary"
    input_layer = BinaryInput
    noise = 1.0

    @classmethod
    def start(cls, x: Matrix) -> tuple[Bernoulli, np.ndarray]:
        """At the logit of each feature's frequency, which half a sample keeps from 0 and 1."""
        frequency, least = moments(x)[0], 0.5 / (x.shape[0] + 1)
        frequency = np.clip(frequency, least, 1 - least)
        return cls(), np.log(frequency / (1 - frequency))

    @staticmethod
    def complaint(values: np.ndarray, place: str) -> str | None:
        """They must be 0 and 1."""
        nonbinary = values[~np.isin(values, (0, 1))]
        return (
            f"likelihood='bernoulli' needs 0 and 1, but {place} holds values such as {nonbinary[0]:.4g}."
            if nonbinary.size
            else None
        )

    def loss(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, target: SparseRows | Tensor, library: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy."""
        assert isinstance(target, Tensor)
        observed = ~torch.isnan(target)
        eta = hidden @ weight.T + bias
        return nn.functional.binary_cross_entropy_with_logits(
            eta, torch.nan_to_num(target), weight=observed.to(eta.dtype), reduction="sum"
        )

    def mean(self, hidden: Tensor, weight: Tensor, bias: Tensor, library: Tensor | None = None) -> Tensor:
        """Probability of 1."""
        return torch.sigmoid(hidden @ weight.T + bias)

    @staticmethod
    def deviance(x: Tensor, mean: Tensor) -> Tensor:
        """Binomial deviance."""
        mean = mean.clamp(SMALLEST, 1 - SMALLEST)
        return -2 * torch.nan_to_num(torch.xlogy(x, mean) + torch.xlogy(1 - x, 1 - mean)).sum(0)

    @staticmethod
    def information(loadings: Tensor, mean: Tensor) -> Tensor:
        """Of a code, at the data's frequencies."""
        return (loadings * (mean * (1 - mean))[:, None]).T @ loadings

    @staticmethod
    def draw(mean: Tensor, generator: Generator | None = None) -> Tensor:
        """0 or 1."""
        return torch.bernoulli(mean, generator=generator)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    likelihood.name: likelihood for likelihood in (NegativeBinomial, Poisson, Gaussian, Bernoulli, LogitGaussian)
}
