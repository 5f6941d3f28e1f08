"""Decoders: layers behind the code, and one output layer whose rows belong to features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from aeverse.nn._random import linear

PACE = 0.05  # at which precisions follow the loadings, a step
LOADINGS_PER_BIAS = 300  # a bias is held this much less tightly than a loading


class Decoder(nn.Module):
    """From a code to the inputs of the likelihood, ``eta = hidden @ weight.T + bias``.

    The likelihood gets hidden, weight and bias rather than eta, so that it can work in blocks and on some features only.

    Parameters
    ----------
    n_latent, n_hidden, n_features
        Widths; ``n_hidden=()`` is a linear decoder, whose weights are loadings.
    bias
        Start of the output bias, (features,): what the decoder says when the code says nothing.
    n_covariates
        One-hot covariates (batches), each with an output of its own for every feature.
    programmes
        Weights (features, n_latent), zero where a dimension of the code may not reach a feature; loadings start from them
        (linear decoder only).
    precision
        Of the Gaussian prior on loadings and offsets, 1 / variance. Where `information` is set (what the data say of a
        loading of each feature, (features, 1)), that of the loadings is learnt for each feature.
    generator
        Where the weights that training starts from are drawn; None: torch's global generator.
    """

    start: Tensor
    precision: Tensor
    information: Tensor | None
    center: Tensor | None
    programmes: Tensor | None

    def __init__(
        self,
        n_latent: int,
        n_hidden: Sequence[int],
        n_features: int,
        *,
        bias: Tensor | None = None,
        n_covariates: int = 0,
        programmes: Tensor | None = None,
        precision: float = 1.0,
        generator: Generator | None = None,
    ):
        super().__init__()
        if programmes is not None and n_hidden:
            raise ValueError("a decoder of programmes must be linear")
        layers: list[nn.Module] = []
        widths = [n_latent, *n_hidden]
        for width, following in itertools.pairwise(widths):
            layers += [linear(width, following, generator), nn.LayerNorm(following, dtype=torch.float32), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.loadings = nn.Parameter(torch.empty(n_features, widths[-1], dtype=torch.float32))
        nn.init.normal_(self.loadings, std=0.1 * widths[-1] ** -0.5, generator=generator)
        self.offsets = (
            nn.Parameter(torch.zeros(n_features, n_covariates, dtype=torch.float32)) if n_covariates else None
        )
        start = torch.zeros(n_features, dtype=torch.float32) if bias is None else bias
        self.bias = nn.Parameter(start.clone())
        self.register_buffer("start", start.clone())
        self.common_precision = precision
        self.register_buffer("precision", torch.full((n_features, 1), precision, dtype=torch.float32), persistent=False)
        self.register_buffer("information", None, persistent=False)  # of a loading in the data; None: precisions stay
        self.register_buffer("center", None, persistent=False)  # of the prior on the loadings; None: zero
        self.register_buffer("programmes", programmes)
        if programmes is not None:
            self.loadings.data.copy_(0.1 * programmes)

    @property
    def weight(self) -> Tensor:
        """Output weights, (features, hidden + covariates)."""
        loadings = self.loadings if self.programmes is None else self.loadings * (self.programmes != 0)
        return loadings if self.offsets is None else torch.cat([loadings, self.offsets], 1)

    @property
    def reach(self) -> Tensor:
        """Weights of the first layer that reads the code, (its outputs, n_latent)."""
        return next(self.layers.parameters()) if len(self.layers) else self.loadings

    def loadings_at_zero(self) -> Tensor:
        """How each dimension of the code moves each feature, at a code of zero, (features, n_latent)."""
        if not len(self.layers):
            return self.weight[:, : self.loadings.shape[1]]
        zero = self.reach.new_zeros(self.reach.shape[1])
        return self.loadings @ torch.autograd.functional.jacobian(self.layers, zero)

    def prior(self) -> Tensor:
        """Minus the log density of a Gaussian prior on the loadings and on what a bias may leave its start by.

        Without it, the optimiser moves the loadings of a rare gene as fast as those of an abundant one, and fits noise.
        """
        away = self.loadings if self.center is None else self.loadings - self.center
        others = (self.bias - self.start).square().sum() / LOADINGS_PER_BIAS
        if self.offsets is not None:
            others = others + self.offsets.square().sum()
        scaled = torch.linalg.vector_norm(self.precision.sqrt() * away).square()
        return 0.5 * (scaled + self.common_precision * others)

    @torch.no_grad()
    def learn_precision(self) -> None:
        """Move the precision of each feature's loadings towards what explains them best, a little at a time.

        That is where 1 / precision is the mean square of the loadings and of their errors (automatic relevance
        determination [MacKay1995]_): features that the code says nothing of lose their loadings, the others keep them.
        """
        if self.information is None:
            return
        error = 1 / (self.information + self.precision)
        best = 1 / (self.loadings.square().mean(1, keepdim=True) + error)
        self.precision.lerp_(best, PACE)

    @torch.no_grad()
    def start_here(self, known: Tensor) -> None:
        """Center the prior at the present bias, and at the present loadings of `known` features, (features,) booleans."""
        self.start.copy_(self.bias)
        self.center = self.loadings.detach().clone() * known[:, None].to(self.loadings.device)

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
        moved = self.bias - self.start
        self.start = start.to(moved)
        self.bias = nn.Parameter(self.start + moved[output])
        self.loadings = nn.Parameter(self.loadings[output])
        self.precision = self.precision[output]
        if self.offsets is not None:
            self.offsets = nn.Parameter(self.offsets[output])

    def forward(self, code: Tensor, covariate: Tensor | None = None) -> Tensor:
        """Last hidden layer, (rows, hidden + covariates)."""
        hidden = self.layers(code)
        if self.offsets is None:
            return hidden
        assert covariate is not None
        return torch.cat([hidden, covariate], 1)
