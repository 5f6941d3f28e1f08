"""Starting from a model of other data: what the nets have in common is copied, feature by feature."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import pandas as pd
import torch

from aeverse import _settings
from aeverse.nn import AutoencoderNet, Projection

if TYPE_CHECKING:
    from aeverse.models._autoencoder import Autoencoder, Config

TRAINING = ("n_epochs", "batch_size", "learning_rate", "strength", "share_heldout", "random_state")
SMALLEST_SHARE_OF_INPUTS = 0.1  # of what the other model reads, that the new data must have
RATE, SLOWER = 4e-3, 4  # the learning rate is divided: what was learnt before must not be shaken off


def settings_from(config: Config, init: Autoencoder) -> Config:
    """What the net is comes from the other model, how it is trained from here."""
    own = {name: getattr(config, name) for name in TRAINING}
    return dataclasses.replace(init.settings, **own | {"learning_rate": (config.learning_rate or RATE) / SLOWER})


def shared_inputs(init: Autoencoder, names: pd.Index):
    """Positions, in the new data, of the features that the other model reads; those that it does not are not read."""
    if not names.is_unique or not init.var_names.is_unique:
        raise ValueError("feature names are not unique; call adata.var_names_make_unique() before fit(init=).")
    found = names.get_indexer(init.var_names[init.inputs])
    message = f"{(found >= 0).sum()} of the {len(found)} features that the model in init= reads were found"
    if (found >= 0).mean() < SMALLEST_SHARE_OF_INPUTS:
        raise ValueError(
            f"{message}; do the names match? That model has {list(init.var_names[:3])} …, the data {list(names[:3])} …."
        )
    if (found < 0).any():
        _settings.log(f"{message}; it starts without the others.")
    return found[found >= 0]


def input_from(init: Autoencoder, model: Autoencoder) -> torch.nn.Module:
    """The other model's input layer, for the features that the new model reads."""
    read = torch.as_tensor(init.var_names[init.inputs].get_indexer(model.var_names[model.inputs]))
    layer, n_old = copy.deepcopy(init.net.members[0].encoder.input_layer).cpu(), len(init.inputs)
    for module in layer.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.ndim and len(buffer) >= n_old:  # one entry a feature, and perhaps one more
                setattr(module, name, torch.cat([buffer[:n_old][read], buffer[n_old:]]))
    return layer  # type: ignore[return-value]


@torch.no_grad()
def start_from(member: AutoencoderNet, old: AutoencoderNet, init: Autoencoder, model: Autoencoder) -> None:
    """Copy what a member of the other model learnt into a new one; features without a counterpart keep their start.

    The Gaussian prior on the decoder is centred at what was copied, so that few samples change little [Li2018]_. Effects
    of batches are not copied: the new net starts as an average one.
    """
    known = torch.as_tensor(model.var_names.isin(init.var_names))
    there = torch.as_tensor(init.var_names.get_indexer(model.var_names[known.numpy()]))
    read = torch.as_tensor(init.var_names[init.inputs].get_indexer(model.var_names[model.inputs]))
    untie = old.encoder.axes.double().cpu()

    encoder, source = member.encoder, old.encoder
    encoder.first.copy_(source.first if isinstance(source.input_layer, Projection) else source.first[read])
    encoder.first_bias.copy_(source.first_bias)
    if source.covariate is not None:
        encoder.first_bias.add_(source.covariate.weight.mean(1))
    encoder.rest.load_state_dict(source.rest.state_dict())
    encoder.code_layer.load_state_dict(source.code_layer.state_dict())

    decoder, taught = member.decoder, old.decoder
    decoder.layers.load_state_dict(taught.layers.state_dict())
    offset = 0.0 if taught.offsets is None else taught.offsets.mean(1)
    bias = (taught.bias + offset)[there]
    if member.likelihood.is_count:  # a profile: its level among the other genes is that of the new data
        bias = bias - bias.logsumexp(0) + decoder.bias[known].logsumexp(0)
    decoder.bias[known] = bias
    loadings = taught.loadings[there]
    if len(taught.layers):
        decoder.reach.copy_((taught.reach.double() @ untie.T).float())
        decoder.loadings[known] = loadings
    else:
        decoder.loadings[known] = (loadings.double() @ untie.T).float()
    decoder.start.copy_(decoder.bias)
    decoder.center = decoder.loadings.detach().clone() * known[:, None]
    for name, buffer in member.likelihood.named_buffers():
        other = old.likelihood.get_buffer(name)
        if buffer.ndim == 1:
            buffer[known] = other[there]
