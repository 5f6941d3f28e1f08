"""Starting from a model of other data: what the nets have in common is copied, feature by feature."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch

from aeverse import _runtime
from aeverse.models._matrix._counts import Counts
from aeverse.models._matrix._fitted import FittedAutoencoder
from aeverse.models._matrix._network import Network
from aeverse.models._matrix._on_disk import CountsOnDisk
from aeverse.models._matrix._settings import Settings
from aeverse.models._matrix._values import Values
from aeverse.models._shared._features import Features
from aeverse.nn import AutoencoderNet, Encoder, InputLayer, Projection


def shared_features(source: FittedAutoencoder, names: pd.Index) -> Features:
    """Features of new data; the encoder reads those that the other model reads and the data have."""
    if not names.is_unique or not source.features.names.is_unique:
        raise ValueError("feature names are not unique; call adata.var_names_make_unique() before fit(init=).")
    positions = source.features.positions_in(names, "the model starts without the others", _runtime.log)
    inputs = source.features.inputs if positions is None else positions[source.features.inputs]
    return Features(names, inputs[inputs >= 0])


def choose_features(
    names: pd.Index,
    training: Counts | CountsOnDisk | Values,
    mask: np.ndarray | None,
    settings: Settings,
    source: FittedAutoencoder | None,
) -> Features:
    """The features of training data, and which of them the encoder reads: those of another model, of a mask, or the best."""
    if source is not None:
        return shared_features(source, names)
    return Features(names, training.choose_inputs(settings.n_inputs) if mask is None else np.flatnonzero(mask))


def input_from(source: FittedAutoencoder, features: Features) -> InputLayer:
    """The other model's input layer, for the features that the new model reads."""
    read = torch.as_tensor(_positions_read(source, features))
    layer, n_old = (
        copy.deepcopy(source.network.ensemble.members[0].encoder.input_layer).cpu(),
        len(source.features.inputs),
    )
    for module in layer.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.ndim and len(buffer) >= n_old:  # one entry a feature, and perhaps one more
                setattr(module, name, torch.cat([buffer[:n_old][read], buffer[n_old:]]))
    return layer


@torch.no_grad()
def start_from(source: FittedAutoencoder, network: Network, features: Features) -> None:
    """Copy what each member of the other model learned into a new one; features without a counterpart keep their start.

    The Gaussian prior on the decoder is centered at what was copied, so that few samples change little [Li2018]_. Effects
    of covariates are not copied: the new net starts as an average one.
    """
    is_shared = torch.as_tensor(features.names.isin(source.features.names))
    counterpart = torch.as_tensor(source.features.names.get_indexer(features.names[is_shared.numpy()]))
    read = torch.as_tensor(_positions_read(source, features))
    average = torch.as_tensor(source.covariates.average(1))[0] if source.covariates.keys else None
    for member, old in zip(network.ensemble.members, source.network.ensemble.members, strict=True):
        _copy_encoder(member.encoder, old.encoder, read, average)
        _copy_decoder(member, old, is_shared, counterpart, average)
        for name, buffer in member.likelihood.named_buffers():
            if buffer.ndim == 1:
                buffer[is_shared] = old.likelihood.get_buffer(name)[counterpart].to(buffer.device)


def _positions_read(source: FittedAutoencoder, features: Features) -> np.ndarray:
    """Which of the inputs of the other model each input of the new one is."""
    return source.features.names[source.features.inputs].get_indexer(features.names[features.inputs])


def _copy_encoder(encoder: Encoder, source: Encoder, read: torch.Tensor, average: torch.Tensor | None) -> None:
    encoder.first.copy_(source.first if isinstance(source.input_layer, Projection) else source.first[read])
    encoder.first_bias.copy_(source.first_bias)
    if source.covariate is not None and average is not None:
        of_average = source.covariate(average.to(source.first_bias.device))
        encoder.first_bias.add_(of_average.to(encoder.first_bias.device))
    encoder.rest.load_state_dict(source.rest.state_dict())
    encoder.code_layer.load_state_dict(source.code_layer.state_dict())


def _copy_decoder(
    member: AutoencoderNet,
    old: AutoencoderNet,
    is_shared: torch.Tensor,
    counterpart: torch.Tensor,
    average: torch.Tensor | None,
) -> None:
    """Without the rotation that the code of the other model was given at last."""
    decoder, source, device = member.decoder, old.decoder, member.decoder.bias.device
    unrotate = old.encoder.axes.double().T
    decoder.layers.load_state_dict(source.layers.state_dict())
    offsets = source.covariate_offsets
    offset = 0.0 if offsets is None or average is None else offsets @ average.to(offsets.device)
    bias = (source.bias + offset)[counterpart].to(device)
    if member.likelihood.is_count:  # a profile: its level among the other genes is that of the new data
        bias = bias - bias.logsumexp(0) + decoder.bias[is_shared].logsumexp(0)
    decoder.bias[is_shared] = bias
    if len(source.layers):
        decoder.code_weight.copy_((source.code_weight.double() @ unrotate).float())
        loadings = source.loadings[counterpart]
    else:
        loadings = (source.loadings[counterpart].double() @ unrotate).float()
    decoder.loadings[is_shared] = loadings.to(device)
    decoder.start_here(is_shared)
