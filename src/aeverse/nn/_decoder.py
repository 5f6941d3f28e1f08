"""Decoders: layers behind the code, and one output layer whose rows belong to features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from aeverse.nn._random import linear

PACE = 0.05  # at which precisions follow the loadings, a step
LOADINGS_PER_BIAS = 300  # a bias is held this much less tightly than a loading


class _WeightedSquares(torch.autograd.Function):
    """Sum of squares, each row with a weight; in fewer passes over the memory than by torch's operations."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        weighted = weight * x
        ctx.save_for_backward(weighted)
        return torch.dot(weighted.view(-1), x.reshape(-1))

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (weighted,) = ctx.saved_tensors
        return weighted * (2 * gradient), None


class Decoder(nn.Module):
    """From a code to the inputs of the likelihood, ``eta = hidden @ weight.T + bias``.

    The likelihood gets hidden, weight and bias rather than eta, so that it can work in blocks and on some features only.

    Parameters
    ----------
    n_latent, n_hidden, n_features
        Widths; ``n_hidden=()`` is a linear decoder, whose weights are loadings.
    bias
        Start of the output bias, (features,): what the decoder returns for a code of zero.
    n_covariates
        Columns of covariates (one-hot categories, numbers), each with an output of its own for every feature.
    mask
        Weights (features, n_latent), zero where a dimension of the code may not reach a feature; loadings start from them
        (linear decoder only).
    prior_precision
        Of the Gaussian prior on loadings and offsets, 1 / variance. Where `data_precision` is set (what the data say of a
        loading of each feature, (features, 1)), that of the loadings is learned for each feature.
    generator
        Where the weights that training starts from are drawn; None: torch's global generator.
    """

    initial_bias: Tensor
    prior_precision: Tensor
    data_precision: Tensor | None
    prior_mean: Tensor | None
    mask: Tensor | None

    def __init__(
        self,
        n_latent: int,
        n_hidden: Sequence[int],
        n_features: int,
        *,
        bias: Tensor | None = None,
        n_covariates: int = 0,
        mask: Tensor | None = None,
        prior_precision: float = 1.0,
        generator: Generator | None = None,
    ):
        super().__init__()
        if mask is not None and n_hidden:
            raise ValueError("a decoder with a mask must be linear")
        layers: list[nn.Module] = []
        widths = [n_latent, *n_hidden]
        for width, following in itertools.pairwise(widths):
            layers += [linear(width, following, generator), nn.LayerNorm(following, dtype=torch.float32), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.loadings = nn.Parameter(torch.empty(n_features, widths[-1], dtype=torch.float32))
        nn.init.normal_(self.loadings, std=0.1 * widths[-1] ** -0.5, generator=generator)
        self.covariate_offsets = (
            nn.Parameter(torch.zeros(n_features, n_covariates, dtype=torch.float32)) if n_covariates else None
        )
        start = torch.zeros(n_features, dtype=torch.float32) if bias is None else bias
        self.bias = nn.Parameter(start.clone())
        self.register_buffer("initial_bias", start.clone())
        self.common_precision = prior_precision
        self.register_buffer(
            "prior_precision", torch.full((n_features, 1), prior_precision, dtype=torch.float32), persistent=False
        )
        self.register_buffer("data_precision", None, persistent=False)  # of a loading; None: precisions stay
        self.register_buffer("prior_mean", None, persistent=False)  # of the prior on the loadings; None: zero
        self.register_buffer("mask", mask)
        if mask is not None:
            self.loadings.data.copy_(0.1 * mask)

    @property
    def weight(self) -> Tensor:
        """Output weights, (features, hidden + covariates)."""
        loadings = self.loadings if self.mask is None else self.loadings * (self.mask != 0)
        return loadings if self.covariate_offsets is None else torch.cat([loadings, self.covariate_offsets], 1)

    @property
    def code_weight(self) -> Tensor:
        """Weights of the first layer that reads the code, (its outputs, n_latent)."""
        return next(self.layers.parameters()) if len(self.layers) else self.loadings

    def loadings_at_zero(self) -> Tensor:
        """How each dimension of the code moves each feature, at a code of zero, (features, n_latent)."""
        if not len(self.layers):
            return self.weight[:, : self.loadings.shape[1]]
        zero = self.code_weight.new_zeros(self.code_weight.shape[1])
        return self.loadings @ torch.autograd.functional.jacobian(self.layers, zero)

    def prior(self) -> Tensor:
        """Minus the log density of a Gaussian prior on the loadings and on what a bias may leave its start by.

        Without it, the optimizer moves the loadings of a rare gene as fast as those of an abundant one, and fits noise.
        """
        deviation = self.loadings if self.prior_mean is None else self.loadings - self.prior_mean
        bias_penalty = (self.bias - self.initial_bias).square().sum() / LOADINGS_PER_BIAS
        if self.covariate_offsets is not None:
            bias_penalty = bias_penalty + self.covariate_offsets.square().sum()
        return 0.5 * (_WeightedSquares.apply(deviation, self.prior_precision) + self.common_precision * bias_penalty)

    @torch.no_grad()
    def learn_precision(self) -> None:
        """Move the precision of each feature's loadings towards what explains them best, a little at a time.

        That is where 1 / prior_precision is the mean square of the loadings and of their errors (automatic relevance
        determination [MacKay1995]_): features that the code says nothing of lose their loadings, the others keep them.
        """
        if self.data_precision is None:
            return
        error = 1 / (self.data_precision + self.prior_precision)
        best = 1 / (self.loadings.square().mean(1, keepdim=True) + error)
        self.prior_precision.lerp_(best, PACE)

    @torch.no_grad()
    def start_here(self, features: Tensor) -> None:
        """Center the prior at the present bias, and at the present loadings of `features`, (features,) booleans."""
        self.initial_bias.copy_(self.bias)
        self.prior_mean = self.loadings.detach().clone() * features[:, None].to(self.loadings.device)

    @torch.no_grad()
    def regroup(self, output: Tensor, start: Tensor) -> None:
        """Give features outputs of their own that start from those which they shared.

        Parameters
        ----------
        output
            Position of each feature's present output, (features,).
        start
            What each feature's bias would have started from, (features,); it keeps how far the shared bias has moved.
        """
        output = output.to(self.bias.device)
        moved = self.bias - self.initial_bias
        self.initial_bias = start.to(moved)
        self.bias = nn.Parameter(self.initial_bias + moved[output])
        self.loadings = nn.Parameter(self.loadings[output])
        self.prior_precision = self.prior_precision[output]
        if self.covariate_offsets is not None:
            self.covariate_offsets = nn.Parameter(self.covariate_offsets[output])

    def forward(self, code: Tensor, covariate: Tensor | None = None) -> Tensor:
        """Last hidden layer, (rows, hidden + covariates)."""
        hidden = self.layers(code)
        if self.covariate_offsets is None:
            return hidden
        assert covariate is not None
        return torch.cat([hidden, covariate], 1)
