"""Regularizers: what each adds to a net. A new one is a name in `_choices.Regularizer`, and what it adds here."""

from __future__ import annotations

import numpy as np
import torch

from aeverse.models._matrix._network import NetParts
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._neighbors import target_weights
from aeverse.nn import (
    Contraction,
    Corruption,
    Divergence,
    GraphTarget,
    Masking,
    Noise,
    Penalty,
    Projection,
    Sparsity,
    TargetActivity,
    Thinning,
)

# Weights of the penalties, as shares of the deviance of a sample from the mean one.
ACTIVITY, CONTRACTION, GRAPH_TARGET = 0.1, 0.2, 1.0
NOISE = 0.5  # Gaussian corruption, in standard deviations of a feature


def code_layer(settings: Settings) -> torch.nn.Module | None:
    """What follows the encoder's last affine map; None: LayerNorm."""
    if "sparse" in settings.regularizers:
        return torch.nn.ReLU() if settings.target_activity is None else torch.nn.Sigmoid()
    if "contractive" in settings.regularizers and not settings.n_hidden:
        return torch.nn.Sigmoid()  # the autoencoder of the paper; of an affine map it would be mere weight decay
    named = settings.gene_sets is not None  # how active a pathway is must not depend on the others
    if named or "variational" in settings.regularizers or not settings.recipe.layer_norm:
        return torch.nn.Identity()
    return None


def corruption(settings: Settings, parts: NetParts) -> Corruption | None:
    """What ``"denoising"`` does to a batch before the encoder reads it."""
    if "denoising" not in settings.regularizers:
        return None
    if settings.corruption == "thinning":
        return Thinning()
    if settings.corruption == "masking" or not isinstance(parts.input_layer, Projection):
        return Masking()
    return Noise(NOISE / parts.input_layer.inner.get_buffer("scale"))


def penalties(settings: Settings, unit: float, n_steps: int, target: np.ndarray | None) -> list[Penalty]:
    """Penalties on the code.

    Parameters
    ----------
    settings
        Which, and how strong.
    unit
        Loss of a sample without a code; the weights are shares of it.
    n_steps
        Steps of training.
    target
        What the leading dimensions are to predict, (samples, dimensions).
    """
    recipe, weight = settings.recipe, settings.strength * unit
    costs: list[Penalty] = []
    if "sparse" in settings.regularizers:
        activity, n = settings.target_activity, settings.n_guided
        costs.append(
            Sparsity(recipe.sparsity * weight, n)
            if activity is None
            else TargetActivity(ACTIVITY * weight, activity, n)
        )
    if "contractive" in settings.regularizers:
        costs.append(Contraction(CONTRACTION * weight))
    if "variational" in settings.regularizers:
        costs.append(Divergence(settings.strength, warm_up=n_steps // 2))
    if target is not None:
        power = recipe.target_power
        costs.append(GraphTarget(GRAPH_TARGET * weight, None if power is None else target_weights(target, power)))
    return costs
