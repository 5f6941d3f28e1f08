"""Putting nets together: members from parts and settings, and empty networks to load weights into."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from aeverse.models._matrix import _counts, _values
from aeverse.models._matrix._network import NetParts, Network
from aeverse.models._matrix._regularizers import code_layer, corruption
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._correction import empty_correction
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._features import Features
from aeverse.models._shared._gene_sets import gene_set_matrix
from aeverse.nn import AutoencoderNet, Decoder, Encoder, Ensemble, Projection, Units


def build(
    settings: Settings,
    features: Features,
    covariates: Covariates,
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
    features, covariates
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
    members = [
        _new_member(settings, features, covariates, parts, generator, n_samples) for _ in range(settings.n_models)
    ]
    ensemble, n_features = Ensemble(members).to(device), len(features.names)
    if settings.is_count:
        return _counts.CountNetwork(ensemble, settings, n_features, parts.rare)
    return _values.ValueNetwork(ensemble, settings, n_features)


def rebuild(settings: Settings, features: Features, covariates: Covariates, tree: Mapping[str, Any]) -> Network:
    """The network whose `tree` this is."""
    n_features, n_inputs = len(features.names), len(features.inputs)
    if settings.is_count:
        parts = _counts.empty_parts(settings, n_features, n_inputs)
    else:
        parts = _values.empty_parts(settings, n_features, n_inputs, len(tree["ensemble"]["members.0.encoder.first"]))
    network = build(settings, features, covariates, parts, torch.Generator())  # of weights that are replaced
    prefix = "correction."
    if corrected := {k.removeprefix(prefix): a for k, a in tree["ensemble"].items() if k.startswith(prefix)}:
        network.ensemble.correction = empty_correction(covariates, settings.n_code, corrected)
    if "units.matrix" in tree["ensemble"]:
        n, floats = settings.n_code, torch.float32
        network.ensemble.units = Units(torch.zeros(n, dtype=floats), torch.eye(n, dtype=floats))
    network.load_tree(tree)
    return network


def _new_member(
    settings: Settings,
    features: Features,
    covariates: Covariates,
    parts: NetParts,
    generator: torch.Generator,
    n_samples: int,
) -> AutoencoderNet:
    input_layer, n_covariates = copy.deepcopy(parts.input_layer), covariates.n_columns
    encoder = Encoder(
        input_layer,
        input_layer.axes.shape[1] if isinstance(input_layer, Projection) else len(features.inputs),
        settings.n_hidden,
        settings.n_latent,
        n_covariates=n_covariates,
        code_layer=code_layer(settings),
        skip=settings.recipe.skip,
        n_guided=settings.n_guided,
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
        mask=None if sets is None else torch.as_tensor(gene_set_matrix(sets, features.names)),
        prior_precision=settings.prior_precision,
        generator=generator,
    )
    decoder.data_precision = parts.information
    likelihood, corrupt = copy.deepcopy(parts.likelihood), corruption(settings, parts)
    return AutoencoderNet(encoder, decoder, likelihood, corrupt, prior_weight=1 / n_samples)
