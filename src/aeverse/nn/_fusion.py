"""Encoders of several modalities fused to one code, any of them missing; all members of an ensemble in one product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from aeverse.nn._random import uniform_like


@dataclass
class FusionBatch:
    """Some samples, for each member of the ensemble its own.

    Parameters
    ----------
    x
        Modality -> (members, rows, features); zero where a sample lacks it.
    weights
        (members, rows, modalities): how much each counts, 0 where it is missing. In the order of `x`.
    target
        (members, rows, targets) for the head.
    covariate
        (members, rows, covariates) for the decoders, or None.
    generator
        Where training draws what it hides; None: torch's global generator.
    """

    x: dict[str, Tensor]
    weights: Tensor
    target: Tensor
    covariate: Tensor | None = None
    generator: Generator | None = None


class EnsembleLinear(nn.Module):
    """One affine map a member: (members, rows, inputs) -> (members, rows, outputs)."""

    def __init__(self, n_members: int, n_in: int, n_out: int, gain: float = 1.0, *, generator: Generator | None = None):
        super().__init__()
        start = torch.randn(n_members, n_in, n_out, generator=generator, dtype=torch.float32)
        self.weight = nn.Parameter(start * gain / max(n_in, 1) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(n_members, 1, n_out, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map of each member to its rows."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleMLP(nn.Module):
    """One hidden layer (LayerNorm, GELU), and a linear way past it where `skip`."""

    def __init__(
        self,
        n_members: int,
        n_in: int,
        n_hidden: int,
        n_out: int,
        *,
        gain: float = 1.0,
        skip: bool = False,
        generator: Generator | None = None,
    ):
        super().__init__()
        self.first = EnsembleLinear(n_members, n_in, n_hidden, generator=generator)
        self.second = EnsembleLinear(n_members, n_hidden, n_out, gain, generator=generator)
        self.skip = EnsembleLinear(n_members, n_in, n_out, generator=generator) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of each member."""
        hidden = self.first(x)
        out = self.second(nn.functional.gelu(nn.functional.layer_norm(hidden, hidden.shape[-1:])))
        return out if self.skip is None else out + self.skip(x)


class FusionNet(nn.Module):
    """Per modality an encoder and a linear decoder; the code is the weighted mean over the modalities that are there.

    A head predicts, from the same code, where the sample lies in the neighbor graph. Training hides input entries
    (`masking`) and whole modalities (`modality_dropout`) and asks for all of them back.

    Parameters
    ----------
    sizes
        Modality -> number of features.
    n_targets
        Outputs of the head.
    n_members, n_hidden, n_latent
        Size of the ensemble, of the hidden layers, of the code.
    n_covariates
        Columns of covariates (one-hot categories, numbers) that the decoders also read.
    masking
        Share of the input entries that are set to zero while training.
    modality_dropout
        Probability that a modality of a sample is hidden while training; one always stays.
    skip
        Whether the encoders have a linear way past their hidden layer.
    generator
        Where the weights that training starts from are drawn; None: torch's global generator.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        n_targets: int,
        *,
        n_members: int = 4,
        n_hidden: int = 64,
        n_latent: int = 32,
        n_covariates: int = 0,
        masking: float = 0.5,
        modality_dropout: float = 0.25,
        skip: bool = True,
        generator: Generator | None = None,
    ):
        super().__init__()
        self.modalities = list(sizes)  # module names may not hold every character that a modality's name may
        self.n_members, self.masking, self.modality_dropout = n_members, masking, modality_dropout
        self.encoders = nn.ModuleList(
            EnsembleMLP(n_members, s, n_hidden, n_latent, skip=skip, generator=generator) for s in sizes.values()
        )
        self.decoders = nn.ModuleList(
            EnsembleLinear(n_members, n_latent + n_covariates, s, 0.5, generator=generator) for s in sizes.values()
        )
        self.head = EnsembleMLP(n_members, n_latent, n_hidden, n_targets, gain=0.5, generator=generator)
        self.register_buffer("target_weights", torch.ones(n_targets, dtype=torch.float32))

    def encode(self, x: Mapping[str, Tensor], weights: Tensor) -> Tensor:
        """Code, (members, rows, n_latent); zero for a sample without any modality."""
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
        return sum(
            weights[..., [i]] * f(x[m]) for i, (m, f) in enumerate(zip(self.modalities, self.encoders, strict=True))
        )

    def decode(self, code: Tensor, covariate: Tensor | None = None) -> dict[str, Tensor]:
        """Every modality, (members, rows, features) each."""
        if covariate is not None:
            code = torch.cat([code, covariate], -1)
        return {m: f(code) for m, f in zip(self.modalities, self.decoders, strict=True)}

    def loss(self, batch: FusionBatch) -> Tensor:
        """Squared errors of the head and of every modality that a sample has, from what was left of the input."""
        inputs = {
            m: v * (uniform_like(v, batch.generator) >= self.masking) / (1 - self.masking) ** 0.5
            for m, v in batch.x.items()
        }
        code = self.encode(inputs, self._drop(batch.weights, batch.generator))
        loss = ((self.head(code) - batch.target) ** 2 * self.target_weights).mean((1, 2)).sum()
        for i, (modality, decoded) in enumerate(self.decode(code, batch.covariate).items()):
            error = ((decoded - batch.x[modality]) ** 2).mean(-1)
            loss = loss + (error * batch.weights[..., i]).mean(1).sum()
        return loss

    def _drop(self, weights: Tensor, generator: Generator | None) -> Tensor:
        kept_weights = weights * (uniform_like(weights, generator) >= self.modality_dropout)
        return torch.where(kept_weights.sum(-1, keepdim=True) > 0, kept_weights, weights)
