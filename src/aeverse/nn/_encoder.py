"""Encoders: an input layer that normalizes, and layers that compress."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from aeverse.nn._moments import Matrix, moments
from aeverse.nn._random import linear, normal_like
from aeverse.nn._rows import SparseRows, product
from aeverse.nn._special import fraction_logit, runs_compiled

SMALLEST_SD = 1e-6  # a feature that varies less is constant
BURDEN_SHARE = 0.05  # of the variance of binary inputs that the number of ones is given
READ_ROWS = 1024  # samples that are read at a time


class InputLayer(nn.Module):
    """What an encoder reads its features through: called with features and library sizes, gives normalized values.

    Attributes
    ----------
    shift
        What the encoder subtracts behind its first matrix product; None: nothing.
    """

    shift: Tensor | None


class CountInput(InputLayer):
    """Counts to scaled ``log1p(counts / library size * median library size)``; sparse stays sparse.

    Centering would make the matrix dense: the encoder subtracts `shift` behind its first matrix product instead.
    """

    shift: Tensor
    scale: Tensor
    median_library: Tensor

    def __init__(self, mean: Tensor, sd: Tensor, median_library: float):
        super().__init__()
        self.register_buffer("shift", mean / sd)
        self.register_buffer("scale", 1 / sd)
        self.register_buffer(
            "median_library", torch.tensor([float(median_library)], dtype=torch.float32)
        )  # anndata 0.11 compresses no scalar

    def forward(self, counts: SparseRows, library: Tensor) -> SparseRows:
        """Scaled log-normalized values of the stored entries."""
        factor = (self.median_library / library.clamp_min(1.0)).ravel()
        if runs_compiled(counts.values):
            from aeverse.nn import _kernels  # numba takes a second to load

            entries = (t.numpy() for t in (counts.values, counts.pointers, counts.columns, factor, self.scale))
            return counts.with_values(torch.from_numpy(_kernels.log_normalized(*entries)))
        values = torch.log1p(counts.values * factor[counts.row_index()])
        return counts.with_values(values * self.scale[counts.columns])


class ValueInput(InputLayer):
    """An input layer of values that are no counts: learned from the training samples, `n_outputs` values wide."""

    n_outputs: int

    @classmethod
    def of(cls, x: Matrix) -> ValueInput:
        """From the training samples, (samples, features read)."""
        raise NotImplementedError

    @classmethod
    def empty(cls, n_inputs: int) -> ValueInput:
        """To load weights into."""
        raise NotImplementedError


class DenseInput(ValueInput):
    """Standardized values, clipped; a missing value (NaN) becomes zero, the feature's mean.

    SparseRows are scaled up for what they lack, so that a code is as long as that of a complete sample.
    """

    limit = 10.0  # standard deviations
    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, sd: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / sd)
        self.shift, self.n_outputs = None, len(mean)

    @classmethod
    def of(cls, x: Matrix) -> DenseInput:
        """Constant features become zero."""
        mean, sd = moments(x)
        return cls(torch.from_numpy(mean), torch.from_numpy(np.where(sd < SMALLEST_SD, np.float32(np.inf), sd)))

    @classmethod
    def empty(cls, n_inputs: int) -> DenseInput:
        """To load weights into."""
        return cls(torch.zeros(n_inputs, dtype=torch.float32), torch.ones(n_inputs, dtype=torch.float32))

    def forward(self, x: Tensor, library: Tensor | None = None) -> Tensor:
        """Standardize."""
        missing = torch.isnan(x)
        values = ((x - self.mean) * self.scale).clamp(-self.limit, self.limit).masked_fill(missing, 0.0)
        return values * (1 - missing.to(values.dtype).mean(1, keepdim=True)).clamp_min(0.01).rsqrt()


class LogitInput(DenseInput):
    """As `DenseInput`, on the logit of fractions."""

    @classmethod
    def of(cls, x: Matrix) -> DenseInput:
        """From the moments of the logits."""
        return super().of(fraction_logit(torch.as_tensor(_dense(x))).numpy())

    def forward(self, x: Tensor, library: Tensor | None = None) -> Tensor:
        """Logit, then standardize."""
        return super().forward(fraction_logit(x))


class BinaryInput(ValueInput):
    """0/1 as the profile of a sample: rows of unit length less their mean, and, as one more input, how many ones.

    A tumor with a thousand mutations is then compared by which genes they hit, not by how many there are.
    """

    mean: Tensor
    scale: Tensor
    log_burden: Tensor

    def __init__(self, mean: Tensor, scale: float, log_burden: tuple[float, float]):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float32))
        self.register_buffer("log_burden", torch.tensor(log_burden, dtype=torch.float32))
        self.shift, self.n_outputs = None, len(mean) + 1

    @classmethod
    def of(cls, x: Matrix) -> BinaryInput:
        """From the profiles of the training samples."""
        n, n_features = x.shape
        total = squares = torch.zeros(1, dtype=torch.float64)
        burdens = []
        for start in range(0, n, READ_ROWS):
            block = torch.as_tensor(_dense(x[start : start + READ_ROWS]), dtype=torch.float32)
            profile, burden = cls.profile(block)
            total, squares = total + profile.double().sum(0), squares + profile.double().square().sum()
            burdens.append(burden)
        mean, burden = total / n, torch.cat(burdens)
        variance = max(float(squares / n - mean.square().sum()), 1e-9)
        spread = max(float(burden.std(correction=0)), 1e-3) / (BURDEN_SHARE * n_features) ** 0.5
        return cls(mean.float(), (n_features / variance) ** 0.5, (float(burden.mean()), spread))

    @classmethod
    def empty(cls, n_inputs: int) -> BinaryInput:
        """To load weights into."""
        return cls(torch.zeros(n_inputs, dtype=torch.float32), 1.0, (0.0, 1.0))

    @staticmethod
    def profile(x: Tensor) -> tuple[Tensor, Tensor]:
        """SparseRows of unit length (missing entries zero), and the logarithm of one more than the expected number of ones."""
        missing = torch.isnan(x)
        ones = x.masked_fill(missing, 0.0)
        share = (1 - missing.to(x.dtype).mean(1, keepdim=True)).clamp_min(0.01)
        burden = torch.log1p(ones.sum(1, keepdim=True) / share)
        return ones / ones.square().sum(1, keepdim=True).clamp_min(1e-9).sqrt(), burden

    def forward(self, x: Tensor, library: Tensor | None = None) -> Tensor:
        """Centerd profile and standardized burden, (rows, features + 1)."""
        profile, burden = self.profile(x)
        return torch.cat([(profile - self.mean) * self.scale, (burden - self.log_burden[0]) / self.log_burden[1]], 1)


def _dense(x: Matrix) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else x.toarray()


class Projection(InputLayer):
    """Scores of what another input layer gives on fixed axes, such as its principal components above noise.

    With few samples and many features a first layer that learns a weight for every feature learns their noise.

    Parameters
    ----------
    inner
        `DenseInput`, `LogitInput` or `BinaryInput`.
    center, axes
        (columns,) and orthonormal (columns, components).
    gain
        Factor on the scores.
    """

    inner: InputLayer
    center: Tensor
    axes: Tensor
    gain: Tensor

    def __init__(self, inner: InputLayer, center: Tensor, axes: Tensor, gain: float):
        super().__init__()
        self.inner = inner
        self.register_buffer("center", center)
        self.register_buffer("axes", axes)
        self.register_buffer("gain", torch.tensor(float(gain), dtype=torch.float32))
        self.shift = None

    def forward(self, x: Tensor, library: Tensor | None = None) -> Tensor:
        """Scores, (rows, components)."""
        return (self.inner(x, library) - self.center) @ self.axes * self.gain


@dataclass(frozen=True)
class Code:
    """What an encoder says about a batch.

    Parameters
    ----------
    mean
        The code, (rows, latent).
    log_variance
        Of a variational encoder, the logarithm of the variance of its posterior around the mean; else None.
    hidden
        Output of the first layer, before any activation: what `Contraction` differentiates by.
    """

    mean: Tensor
    log_variance: Tensor | None
    hidden: Tensor

    def draw(self, generator: Generator | None = None) -> Tensor:
        """The mean, or a draw around it: ``mean + sd * noise`` (reparameterised [Kingma2014]_)."""
        if self.log_variance is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.log_variance) * normal_like(self.mean, generator)


class Encoder(nn.Module):
    """Multi-layer perceptron from features (sparse or dense) to a code.

    Parameters
    ----------
    input_layer
        `CountInput`, `DenseInput`, `LogitInput`, `BinaryInput` or `Projection`.
    n_inputs, n_hidden, n_latent
        Widths; ``n_hidden=()`` gives one affine map.
    n_covariates
        Columns of covariates (one-hot categories, numbers) that the first layer also reads.
    activation
        Class of the activation between layers.
    code_layer
        What the last affine map is followed by: None for LayerNorm (all codes then have the same length, which steadies
        training), ``nn.Identity()`` for a linear code, ``nn.Sigmoid()`` or ``nn.ReLU()`` for active and silent units.
    skip
        A linear way from the inputs to the code beside the hidden layers. The code starts as the first inputs themselves,
        to which the hidden layers have nothing to add yet.
    n_guided
        So many leading dimensions are spared by the `code_layer` (those that `GraphTarget` asks for).
    variational
        The encoder also returns a standard deviation of the code (variational autoencoder).
    generator
        Where the weights that training starts from are drawn; None: torch's global generator.

    Attributes
    ----------
    axes
        Linear map that the code is given at last, the identity until `AutoencoderNet.rotate_to_information`.
    """

    axes: Tensor

    def __init__(
        self,
        input_layer: InputLayer,
        n_inputs: int,
        n_hidden: Sequence[int],
        n_latent: int,
        *,
        n_covariates: int = 0,
        activation: type[nn.Module] = nn.GELU,
        code_layer: nn.Module | None = None,
        skip: bool = False,
        n_guided: int = 0,
        variational: bool = False,
        generator: Generator | None = None,
    ):
        super().__init__()
        n_out = n_latent * (2 if variational else 1)
        widths = [*n_hidden, n_out]
        self.skipped = n_out if skip and n_hidden else 0
        self.n_latent, self.n_guided, self.variational = n_latent, n_guided, variational
        self.input_layer = input_layer
        self.first = nn.Parameter(torch.empty(n_inputs, widths[0] + self.skipped, dtype=torch.float32))
        self.first_bias = nn.Parameter(torch.zeros(widths[0] + self.skipped, dtype=torch.float32))
        nn.init.normal_(self.first, std=n_inputs**-0.5, generator=generator)
        n_first = widths[0] + self.skipped
        self.covariate = linear(n_covariates, n_first, generator, bias=False) if n_covariates else None
        layers: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers += [nn.LayerNorm(width, dtype=torch.float32), activation(), linear(width, following, generator)]
        self.rest = nn.Sequential(*layers)
        if self.skipped:
            for parameter in self.rest[-1].parameters():
                nn.init.zeros_(parameter)
            first_inputs = torch.eye(n_inputs, n_latent - n_guided, dtype=torch.float32)
            self.first.data[:, -self.skipped :] = 0
            start = widths[0] + n_guided
            self.first.data[:, start : start + n_latent - n_guided] = first_inputs
        self.code_layer = nn.LayerNorm(n_latent - n_guided, dtype=torch.float32) if code_layer is None else code_layer
        self.register_buffer("axes", torch.eye(n_latent, dtype=torch.float32))

    @property
    def is_one_layer(self) -> bool:
        """Whether the code is an elementwise function of one affine map of the inputs."""
        return len(self.rest) == 0 and not isinstance(self.code_layer, nn.LayerNorm)

    def standardized(self, x: SparseRows | Tensor, library: Tensor | None = None) -> SparseRows | Tensor:
        """The features as the input layer has normalized them, before any projection."""
        layer = self.input_layer
        return (layer.inner if isinstance(layer, Projection) else layer)(x, library)

    @property
    def input_weights(self) -> Tensor:
        """Weights of the first layer by standardized feature, (features, width)."""
        layer = self.input_layer
        return layer.gain * (layer.axes @ self.first) if isinstance(layer, Projection) else self.first

    def hidden(self, x: SparseRows | Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Tensor:
        """Output of the first layer, before its activation."""
        x = self.input_layer(x, library)
        bias = (
            self.first_bias if self.input_layer.shift is None else self.first_bias - self.input_layer.shift @ self.first
        )
        hidden = product(x, self.first) + bias
        return hidden if self.covariate is None else hidden + self.covariate(covariate)

    def coded(self, x: SparseRows | Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Code:
        """Code of each row, with what the penalties ask for."""
        return self.from_hidden(self.hidden(x, library, covariate))

    def from_hidden(self, hidden: Tensor) -> Code:
        """Code, given the output of the first layer."""
        past = hidden[:, hidden.shape[1] - self.skipped :]
        out = self.rest(hidden[:, : hidden.shape[1] - self.skipped])
        out = out + past if self.skipped else out
        mean, log_variance = out.chunk(2, 1) if self.variational else (out, None)
        if self.n_guided:
            mean = torch.cat([mean[:, : self.n_guided], self.code_layer(mean[:, self.n_guided :])], 1)
        else:
            mean = self.code_layer(mean)
        return Code(mean @ self.axes, log_variance, hidden)

    def forward(self, x: SparseRows | Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Tensor:
        """Code of each row, (rows, latent)."""
        return self.coded(x, library, covariate).mean
