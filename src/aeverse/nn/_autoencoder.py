"""One autoencoder, and several that are trained on the same batches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from aeverse.nn._batch import Batch
from aeverse.nn._correction import Correction
from aeverse.nn._corruption import Corruption
from aeverse.nn._decoder import Decoder
from aeverse.nn._encoder import Encoder
from aeverse.nn._likelihoods import Likelihood
from aeverse.nn._penalties import Penalty
from aeverse.nn._units import Units


class AutoencoderNet(nn.Module):
    """Encoder, decoder and likelihood.

    Parameters
    ----------
    encoder, decoder, likelihood
        The parts.
    corrupt
        What is done to a training batch before the encoder reads it; None: nothing.
    prior_weight
        Weight of the Gaussian prior on the decoder, for the share that one sample has in it.
    penalties
        Called with the net, the code of a batch and the batch; their costs are added to the loss.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        likelihood: Likelihood,
        corrupt: Corruption | None = None,
        prior_weight: float = 0.0,
        penalties: Sequence[Penalty] = (),
    ):
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.corrupt, self.prior_weight, self.penalties = corrupt, prior_weight, list(penalties)

    def encode(self, batch: Batch) -> Tensor:
        """Code of a batch, (samples, latent)."""
        return self.encoder(batch.x, batch.library, batch.covariate)

    def mean(self, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Tensor:
        """Expected data of codes, (samples, features)."""
        hidden = self.decoder(code, covariate)
        return self.likelihood.mean(hidden, self.decoder.weight, self.decoder.bias, library)

    @torch.no_grad()
    def rotate_to_information(self, mean: Tensor, power: float, covariance: Tensor | None = None) -> None:
        """Turn and scale the code by what its dimensions change in the data; what is decoded stays the same.

        The axes become those of the Fisher information of the likelihood at the data's mean (which gives the divergence
        between what two codes stand for, to second order), in order. Each is as long as its information to the power of
        `power`: at 0.5 distances would be divergences, and what is abundant would drown the rest; at 0 all dimensions
        would count alike, noise too. Dimensions that guidance asks for stay as they are.

        Parameters
        ----------
        mean
            Mean of each feature; for counts the mean profile, summing to one.
        power
            Between 0 and 0.5.
        covariance
            Of the codes of the samples, (n_latent, n_latent); None: they are spread alike in all directions.
        """
        encoder, n = self.encoder, self.encoder.n_latent
        information = self.likelihood.information(self.decoder.loadings_at_zero(), mean).double()
        free = slice(encoder.n_guided, n)
        information = information[free, free]
        root = torch.eye(n - encoder.n_guided, dtype=torch.float64, device=mean.device)
        if covariance is not None:
            values, vectors = torch.linalg.eigh(covariance.double()[free, free])
            root = vectors * values.clamp_min(1e-9 * float(values[-1]) + 1e-12).sqrt()
        values, axes = torch.linalg.eigh(root.T @ information @ root)
        values, axes = values.flip(0), axes.flip(1)
        scale = values.clamp_min(1e-6 * float(values[0]) + 1e-12) ** power
        turn = torch.eye(n, dtype=torch.float64, device=mean.device)
        turn[free, free] = torch.linalg.solve(root.T, axes * scale)
        self.rotate(turn)

    @torch.no_grad()
    def rotate(self, matrix: Tensor) -> None:
        """Multiply the code by a matrix (n_latent, n_latent); what is decoded stays the same."""
        reach, matrix = self.decoder.code_weight, matrix.double()
        self.encoder.axes.copy_(self.encoder.axes.double() @ matrix)
        reach.copy_(torch.linalg.solve(matrix, reach.double().T).T)

    @torch.no_grad()
    def fix_signs(self) -> None:
        """Turn the sign of each dimension that stands for a program, so that more of the code is more of the program."""
        if self.decoder.mask is not None:
            self.rotate(torch.where((self.decoder.loadings * self.decoder.mask).sum(0) < 0, -1.0, 1.0).diag())

    @property
    def draws(self) -> bool:
        """Whether the loss draws random numbers even when its inputs are corrupted already."""
        return self.encoder.variational or bool(self.penalties)

    def corrupted(self, batch: Batch) -> Batch:
        """What the encoder is given of a training batch."""
        return batch if self.corrupt is None else self.corrupt(batch)

    def loss(self, batch: Batch, inputs: Batch | None = None) -> Tensor:
        """Negative log-likelihood, prior and penalties, by sample; `inputs`: the batch as it was `corrupted`."""
        inputs = self.corrupted(batch) if inputs is None else inputs
        code = self.encoder.coded(inputs.x, inputs.library, inputs.covariate)
        hidden = self.decoder(code.draw(batch.generator), batch.covariate)
        if self.training:
            self.decoder.learn_precision()
        misfit = self.likelihood.loss(hidden, self.decoder.weight, self.decoder.bias, batch.target, batch.library)
        penalty = sum(cost(self, code, batch) for cost in self.penalties)
        return misfit / len(batch) + self.prior_weight * self.decoder.prior() + penalty


class Ensemble(nn.Module):
    """Members that are trained on the same batches and answer together: codes side by side, means averaged.

    With a `correction` and `units`, learned when they are trained, `encode` gives the latent values of the members without what
    covariates do to them, in these units; that is also what the rest takes.
    """

    members: Sequence[AutoencoderNet]

    def __init__(self, members: Iterable[AutoencoderNet]):
        super().__init__()
        self.members = nn.ModuleList(members)  # type: ignore[assignment] # it does not say what it is a list of
        self.units: Units | None = None
        self.correction: Correction | None = None

    def loss(self, batch: Batch) -> Tensor:
        """Mean of the members' losses."""
        return torch.stack([share() for share in self.losses(batch)]).sum()

    def losses(self, batch: Batch) -> list[Callable[[], Tensor]]:
        """What adds up to the loss: the share of each member, which any thread may compute; random numbers are drawn here.

        Each learns from a part of the batch of its own, so that any number costs 1.5. Members that draw further numbers have
        one share together, since these depend on their order.
        """
        n, k = len(batch), len(self.members)
        size = math.ceil(n * min(1, 1.5 / k))
        starts = [round(i * (n - size) / max(k - 1, 1)) for i in range(k)]
        parts = [(member, batch.part(a, a + size)) for member, a in zip(self.members, starts, strict=True)]
        if any(member.draws for member in self.members):
            return [lambda: torch.stack([member.loss(part) for member, part in parts]).mean()]

        def share(member: AutoencoderNet, part: Batch, inputs: Batch) -> Tensor:
            return member.loss(part, inputs) / k

        return [functools.partial(share, member, part, member.corrupted(part)) for member, part in parts]

    def latent(self, batch: Batch) -> Tensor:
        """Latent values of all members side by side, (samples, members x latent)."""
        return torch.cat([member.encode(batch) for member in self.members], 1)

    def encode(self, batch: Batch) -> Tensor:
        """The embedding: latent values in the ensemble's units, without what covariates do, (samples, members x latent)."""
        code = self.latent(batch)
        if self.correction is not None:
            assert batch.covariate is not None
            code = self.correction(code, batch.covariate)
        return code if self.units is None else self.units(code)

    def mean(self, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Tensor:
        """Average of the members' expected data, (samples, features)."""
        means = self.means(code, library, covariate)
        total = next(means)
        for mean in means:
            total.add_(mean)
        return total.div_(len(self.members))

    def means(self, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None) -> Iterator[Tensor]:
        """Each member's expected data."""
        if self.units is not None:
            code = self.units.undo(code)
        if self.correction is not None:
            assert covariate is not None
            code = self.correction.inverse(code, covariate)
        for member, member_code in zip(self.members, code.chunk(len(self.members), 1), strict=True):
            yield member.mean(member_code, library, covariate)

    def variance(
        self, mean: Tensor, code: Tensor, library: Tensor | None = None, covariate: Tensor | None = None
    ) -> Tensor:
        """Variance of the members' average, (samples, features); zero for one member."""
        k = len(self.members)
        squares = torch.zeros_like(mean)
        for member_mean in self.means(code, library, covariate):
            squares.add_(member_mean.sub_(mean).square_())
        return squares / (k * max(k - 1, 1))
