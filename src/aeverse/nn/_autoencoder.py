"""One autoencoder, and several that are trained on the same batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aeverse.nn._corruption import thin
from aeverse.nn._decoder import Decoder
from aeverse.nn._encoder import Encoder
from aeverse.nn._rows import Rows

EMPHASIS = 0.35


@dataclass(frozen=True)
class Batch:
    """A mini-batch: what the encoder reads, what the decoder has to explain, and what both are told."""

    x: Rows | Tensor
    target: Rows | Tensor
    library: Tensor | None = None
    covariate: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def part(self, start: int, stop: int) -> Batch:
        """Samples ``start`` to ``stop``."""

        def cut(values):
            if values is None:
                return None
            return values.block(start, stop) if isinstance(values, Rows) else values[start:stop]

        return Batch(cut(self.x), cut(self.target), cut(self.library), cut(self.covariate))


class AutoencoderNet(nn.Module):
    """Encoder, decoder and likelihood.

    Parameters
    ----------
    encoder, decoder, likelihood
        The parts; a net that only decodes has no encoder.
    corrupt
        What is done to a training batch before the encoder reads it; None: nothing.
    prior_weight
        Weight of the Gaussian prior on the decoder, for the share that one sample has in it.
    """

    def __init__(
        self,
        encoder: Encoder | None,
        decoder: Decoder,
        likelihood: nn.Module,
        corrupt: Callable[[Batch], Batch] | None = None,
        prior_weight: float = 0.0,
    ):
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.corrupt, self.prior_weight = corrupt, prior_weight

    def encode(self, batch: Batch) -> Tensor:
        """Code of a batch, (samples, latent)."""
        assert self.encoder is not None
        return self.encoder(batch.x, batch.library, batch.covariate)

    def mean(self, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Tensor:
        """Expected data of codes, (samples, features)."""
        hidden = self.decoder(code, covariate)
        return self.likelihood.mean(hidden, self.decoder.weight, self.decoder.bias, library)

    @torch.no_grad()
    def orient(self, frequency: Tensor) -> None:
        """Turn and scale the code of a softmax decoder by what its dimensions change in the profiles.

        What is decoded stays the same. The axes become those of the Fisher information at the mean profile (which gives
        the Kullback-Leibler divergence between the profiles of two codes to second order), in order; each is as long as
        its information to the power of `EMPHASIS`. At 0.5 distances would be divergences, and the abundant genes of
        the great lineages would drown the rest; at 0 all dimensions would count alike, noise too.

        Parameters
        ----------
        frequency
            Mean profile, (genes,), summing to one.
        """
        assert self.encoder is not None
        loadings = self.decoder.loadings
        mean = frequency @ loadings
        information = (loadings * frequency[:, None]).T @ loadings - torch.outer(mean, mean)
        values, axes = torch.linalg.eigh(information.double())
        values, axes = values.flip(0), axes.flip(1)
        scale = values.clamp_min(1e-6 * float(values[0]) + 1e-12) ** EMPHASIS
        self.encoder.axes.copy_(self.encoder.axes.double() @ (axes * scale))
        loadings.copy_(loadings.double() @ (axes / scale))

    def loss(self, batch: Batch) -> Tensor:
        """Negative log-likelihood and prior, by sample."""
        code = self.encode(batch if self.corrupt is None else self.corrupt(batch))
        hidden = self.decoder(code, batch.covariate)
        total = self.likelihood.loss(hidden, self.decoder.weight, self.decoder.bias, batch.target, batch.library)
        return total / len(batch) + self.prior_weight * self.decoder.prior()


class Ensemble(nn.Module):
    """Members that are trained on the same batches and answer together: codes side by side, means averaged."""

    def __init__(self, members: Iterable[AutoencoderNet]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def loss(self, batch: Batch) -> Tensor:
        """Mean of the members' losses. Each learns from a part of the batch of its own, so that any number costs two."""
        n, k = len(batch), len(self.members)
        size = math.ceil(n * min(1, 2 / k))
        starts = [round(i * (n - size) / max(k - 1, 1)) for i in range(k)]
        losses = [m.loss(batch.part(a, a + size)) for m, a in zip(self.members, starts, strict=True)]
        return torch.stack(losses).mean()

    def encode(self, batch: Batch) -> Tensor:
        """Codes of all members, (samples, members x latent)."""
        return torch.cat([member.encode(batch) for member in self.members], 1)

    def mean(self, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Tensor:
        """Average of the members' expected data, (samples, features)."""
        total = None
        for mean in self.means(code, library, covariate):
            total = mean if total is None else total.add_(mean)
        return total.div_(len(self.members))

    def means(self, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Iterator[Tensor]:
        """Each member's expected data."""
        for member, own in zip(self.members, code.chunk(len(self.members), 1), strict=True):
            yield member.mean(own, library, covariate)

    def variance(
        self, mean: Tensor, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None
    ) -> Tensor:
        """Variance of the members' average, (samples, features); zero for one member."""
        k = len(self.members)
        squares = torch.zeros_like(mean)
        for own in self.means(code, library, covariate):
            squares.add_(own.sub_(mean).square_())
        return squares / (k * max(k - 1, 1))


class Thinning:
    """Corrupt counts: each sample keeps a share of its molecules, drawn between ``1 - strength`` and 1."""

    def __init__(self, strength: float = 0.6):
        self.strength = strength

    def __call__(self, batch: Batch) -> Batch:
        keep = 1 - self.strength * torch.rand(len(batch), device=batch.x.device)
        return replace(batch, x=thin(batch.x, keep[batch.x.row_of_entry()]))
