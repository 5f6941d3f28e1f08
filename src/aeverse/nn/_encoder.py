"""Encoders: an input layer that normalises, and layers that compress."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aeverse.nn._rows import Rows, product


class CountInput(nn.Module):
    """Counts to scaled ``log1p(counts / library size * median library size)``; sparse stays sparse.

    Centring would make the matrix dense: the encoder subtracts `shift` behind its first matrix product instead.
    """

    shift: Tensor
    scale: Tensor
    median_library: Tensor

    def __init__(self, mean: Tensor, sd: Tensor, median_library: float):
        super().__init__()
        self.register_buffer("shift", mean / sd)
        self.register_buffer("scale", 1 / sd)
        self.register_buffer("median_library", torch.tensor(float(median_library)))

    def forward(self, counts: Rows, library: Tensor) -> Rows:
        """Scaled log-normalised values of the stored entries."""
        factor = (self.median_library / library.clamp_min(1.0)).ravel()
        values = torch.log1p(counts.values * factor[counts.row_of_entry()])
        return counts.with_values(values * self.scale[counts.columns])


class DenseInput(nn.Module):
    """Standardised values; a missing value (NaN) becomes zero, the feature's mean."""

    def __init__(self, mean: Tensor, sd: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / sd)
        self.shift = None

    def forward(self, x: Tensor, library: Tensor | None = None) -> Tensor:
        """Standardise."""
        return torch.nan_to_num((x - self.mean) * self.scale)


class Encoder(nn.Module):
    """Multi-layer perceptron from features (sparse or dense) to a code.

    Parameters
    ----------
    input_layer
        `CountInput` or `DenseInput`.
    n_inputs, n_hidden, n_latent
        Widths; ``n_hidden=()`` gives one linear map.
    n_covariates
        Columns of a one-hot covariate that every layer's input is extended with.
    activation
        Class of the activation between layers.
    normalize
        LayerNorm behind every layer, the code included: all codes then have the same length, which steadies training.

    Attributes
    ----------
    axes
        Linear map that the code is given at last, the identity until `AutoencoderNet.orient`.
    """

    def __init__(
        self,
        input_layer: nn.Module,
        n_inputs: int,
        n_hidden: Sequence[int],
        n_latent: int,
        *,
        n_covariates: int = 0,
        activation: type[nn.Module] = nn.GELU,
        normalize: bool = True,
    ):
        super().__init__()
        widths = [*n_hidden, n_latent]
        self.input_layer = input_layer
        self.first = nn.Parameter(torch.empty(n_inputs, widths[0]))
        self.first_bias = nn.Parameter(torch.zeros(widths[0]))
        nn.init.normal_(self.first, std=n_inputs**-0.5)
        self.covariate = nn.Linear(n_covariates, widths[0], bias=False) if n_covariates else None
        layers: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers += [nn.LayerNorm(width)] if normalize else []
            layers += [activation(), nn.Linear(width, following)]
        layers += [nn.LayerNorm(n_latent)] if normalize else []
        self.rest = nn.Sequential(*layers)
        self.register_buffer("axes", torch.eye(n_latent))

    def forward(self, x: Rows | Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Tensor:
        """Code of each row, (rows, latent)."""
        x = self.input_layer(x, library)
        bias = (
            self.first_bias if self.input_layer.shift is None else self.first_bias - self.input_layer.shift @ self.first
        )
        hidden = product(x, self.first) + bias
        if self.covariate is not None:
            hidden = hidden + self.covariate(covariate)
        return self.rest(hidden) @ self.axes
