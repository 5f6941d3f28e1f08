"""Penalties on the code of an autoencoder: one small class each, called with the net, the code of a batch and the batch.

Each returns its cost by sample, which `AutoencoderNet.loss` adds to the negative log-likelihood. Corruptions, the other
way to regularize, are in ``_corruption.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor

from aeverse.nn._batch import Batch
from aeverse.nn._decoder import Decoder
from aeverse.nn._encoder import Code, Encoder, Projection
from aeverse.nn._likelihoods import Likelihood
from aeverse.nn._random import normal_like

EDGE = 1e-4  # activities are kept away from 0 and 1


class Net(Protocol):
    """What penalties look at: an `AutoencoderNet`."""

    encoder: Encoder
    decoder: Decoder
    likelihood: Likelihood


Penalty = Callable[[Net, Code, Batch], Tensor]
"""Cost by sample."""


class Sparsity:
    """L1 norm of the code, each unit weighted by the length of its way into the decoder [Olshausen1996]_.

    Without that length a net would shrink its code and stretch its decoder.
    """

    def __init__(self, weight: float, n_guided: int = 0):
        self.weight, self.n_guided = weight, n_guided

    def __call__(self, net: Net, code: Code, batch: Batch) -> Tensor:
        """Cost by sample."""
        reach = net.decoder.code_weight.norm(dim=0)
        return self.weight * (code.mean.abs() * reach)[:, self.n_guided :].sum(1).mean()


class TargetActivity:
    """Kullback-Leibler divergence between the activity that units should have and that they have on average [Ng2011]_.

    For a code between 0 and 1, such as that of a sigmoid.
    """

    def __init__(self, weight: float, target: float, n_guided: int = 0):
        self.weight, self.target, self.n_guided = weight, target, n_guided

    def __call__(self, net: Net, code: Code, batch: Batch) -> Tensor:
        """Cost by sample."""
        target, activity = self.target, code.mean[:, self.n_guided :].mean(0).clamp(EDGE, 1 - EDGE)
        divergence = target * torch.log(target / activity)
        divergence = divergence + (1 - target) * torch.log((1 - target) / (1 - activity))
        return self.weight * divergence.sum()


class Contraction:
    """Squared Frobenius norm of the Jacobian of the code by the standardized inputs [Rifai2011]_.

    The Jacobian is that of what follows the first layer, times the first layer's weights; the inputs themselves, sparse or
    not, are never touched. For one layer followed by an elementwise activation the norm is exact. For deeper encoders it
    is an unbiased estimate: the squared length of ``J.T v`` for one random direction ``v`` of the code a sample
    [Hutchinson1989]_.
    """

    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, net: Net, code: Code, batch: Batch) -> Tensor:
        """Cost by sample."""
        return self.weight * self.norms(net, code, batch.generator).mean()

    @staticmethod
    def norms(net: Net, code: Code, generator: Generator | None = None) -> Tensor:
        """Squared Frobenius norm of each row's Jacobian, or an estimate of it."""
        encoder = net.encoder
        layer = encoder.input_layer
        gain = layer.gain**2 if isinstance(layer, Projection) else 1.0  # the axes of a projection are orthonormal
        if encoder.is_one_layer:
            slope = torch.autograd.grad(code.mean.sum(), code.hidden, create_graph=True)[0]
            return gain * (slope.square() @ encoder.first.square().sum(0))
        direction = normal_like(code.mean, generator)
        back = torch.autograd.grad((code.mean * direction).sum(), code.hidden, create_graph=True)[0]
        return gain * ((back @ (encoder.first.T @ encoder.first)) * back).sum(1)


class Divergence:
    """Kullback-Leibler divergence of the code's posterior from the standard normal, in nats [Kingma2014]_.

    Its weight grows from zero to `weight` over the first `warm_up` batches, lest the code be given up before the decoder
    has learned to use it [Bowman2016]_. Squared errors are no nats until they are divided by the noise's variance; instead
    of that, the divergence is multiplied by it [Rybkin2021]_.
    """

    def __init__(self, weight: float = 1.0, warm_up: int = 1):
        self.weight, self.warm_up, self.seen = weight, warm_up, 0

    def __call__(self, net: Net, code: Code, batch: Batch) -> Tensor:
        """Cost by sample."""
        self.seen += 1
        share = min(1.0, self.seen / max(self.warm_up, 1))
        return self.weight * net.likelihood.noise * share * self.by_unit(code).sum()

    @staticmethod
    def by_unit(code: Code) -> Tensor:
        """Divergence of each dimension of the code, mean over the rows."""
        log_variance = code.log_variance
        assert log_variance is not None, "the encoder is not variational"
        return 0.5 * (code.mean.square() + log_variance.exp() - 1 - log_variance).mean(0)


class GraphTarget:
    """Squared distance of the leading dimensions of the code from where the sample lies in a neighbor graph.

    The coordinates come with the batch (``batch.graph_target``), from `diffusion_coordinates` of the training samples; the
    encoder learns to predict them and so places new samples in the graph too (an autoencoder with the manifold's
    coordinates as a target, after diffusion nets [Mishne2019]_). Of each, the error is multiplied by its `target_weights`.
    """

    def __init__(self, weight: float, target_weights: Tensor | None = None):
        self.weight, self.target_weights = (
            weight,
            torch.ones(1, dtype=torch.float32) if target_weights is None else target_weights,
        )

    def __call__(self, net: Net, code: Code, batch: Batch) -> Tensor:
        """Cost by sample."""
        assert batch.graph_target is not None, "the batch has no coordinates to be guided by"
        error = (code.mean[:, : batch.graph_target.shape[1]] - batch.graph_target).square()
        return self.weight * (error * self.target_weights.to(error.device)).mean()
