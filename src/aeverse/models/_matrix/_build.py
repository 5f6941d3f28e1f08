"""Putting nets together: members from parts and settings, penalties, and empty networks to load weights into."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from aeverse.models._matrix import _counts, _values
from aeverse.models._matrix._network import NetParts, Network
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._batches import Batches
from aeverse.models._shared._features import Features
from aeverse.models._shared._gene_sets import gene_set_matrix
from aeverse.models._shared._neighbors import target_weights
from aeverse.nn import (
    Alignment,
    AutoencoderNet,
    Contraction,
    Corruption,
    Decoder,
    Divergence,
    Encoder,
    Ensemble,
    Guidance,
    Masking,
    Noise,
    Penalty,
    Projection,
    Sparsity,
    TargetActivity,
    Thinning,
    Units,
)

# Weights of the penalties, as shares of the deviance of a sample from the mean one.
ACTIVITY, CONTRACTION, GUIDANCE = 0.1, 0.2, 1.0
NOISE = 0.5  # Gaussian corruption, in standard deviations of a feature


def build(
    settings: Settings,
    features: Features,
    batches: Batches,
    parts: NetParts,
    generator: torch.Generator,
    *,
    n_samples: int = 1,
    device: torch.device | str = "cpu",
) -> Network:
    """A new network: members of different random weights, on a device.

    Parameters
    ----------
    settings
        What the nets are.
    features, batches
        What they know.
    parts
        What of them depends on the data.
    generator
        Gives the random weights.
    n_samples
        Samples of training, among which the prior on the decoder is shared out.
    device
        Where the network is to be.
    """
    members = [_new_member(settings, features, batches, parts, generator, n_samples) for _ in range(settings.n_models)]
    ensemble, n_features = Ensemble(members).to(device), len(features.names)
    if settings.is_count:
        return _counts.CountNetwork(ensemble, settings, n_features, parts.rare)
    return _values.ValueNetwork(ensemble, settings, n_features)


def rebuild(settings: Settings, features: Features, batches: Batches, tree: Mapping[str, Any]) -> Network:
    """The network whose `tree` this is."""
    n_features, n_inputs = len(features.names), len(features.inputs)
    if settings.is_count:
        parts = _counts.empty_parts(settings, n_features, n_inputs)
    else:
        parts = _values.empty_parts(settings, n_features, n_inputs, len(tree["ensemble"]["members.0.encoder.first"]))
    network = build(settings, features, batches, parts, torch.Generator())  # of weights that are replaced
    if "units.matrix" in tree["ensemble"]:
        n, floats = settings.n_code, torch.float32
        network.ensemble.units = Units(torch.zeros(n, dtype=floats), torch.eye(n, dtype=floats))
    if "alignment.shifts" in tree["ensemble"]:
        empty = torch.zeros(tree["ensemble"]["alignment.shifts"].shape, dtype=torch.float32)
        network.ensemble.alignment = Alignment(empty, empty.clone())
    network.load_tree(tree)
    return network


def _new_member(
    settings: Settings,
    features: Features,
    batches: Batches,
    parts: NetParts,
    generator: torch.Generator,
    n_samples: int,
) -> AutoencoderNet:
    input_layer, n_covariates = copy.deepcopy(parts.input_layer), len(batches.names)
    encoder = Encoder(
        input_layer,
        input_layer.axes.shape[1] if isinstance(input_layer, Projection) else len(features.inputs),
        settings.n_hidden,
        settings.n_latent,
        n_covariates=n_covariates,
        code_layer=code_layer(settings),
        skip=settings.recipe.skip,
        n_free=settings.n_guided,
        variational="variational" in settings.regularizers,
        generator=generator,
    )
    sets = settings.gene_sets
    decoder = Decoder(
        settings.n_latent,
        settings.n_hidden[::-1] if settings.decoder == "mlp" else (),
        len(parts.bias),
        bias=torch.as_tensor(parts.bias, dtype=torch.float32),
        n_covariates=n_covariates,
        programmes=None if sets is None else torch.as_tensor(gene_set_matrix(sets, features.names)),
        precision=settings.prior_precision,
        generator=generator,
    )
    decoder.information = parts.information
    corrupt = _corruption(settings, parts) if "denoising" in settings.regularizers else None
    return AutoencoderNet(encoder, decoder, copy.deepcopy(parts.likelihood), corrupt, prior_weight=1 / n_samples)


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


def _corruption(settings: Settings, parts: NetParts) -> Corruption:
    """What is done to a batch before the encoder reads it."""
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
        costs.append(Guidance(GUIDANCE * weight, None if power is None else target_weights(target, power)))
    return costs
