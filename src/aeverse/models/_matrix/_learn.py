"""Training a network, and what is done to it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from aeverse.models._matrix._checkpoint import TrainingCheckpoint
from aeverse.models._matrix._network import Matrix, Network
from aeverse.models._matrix._regularizers import penalties
from aeverse.models._shared._covariates import Covariates
from aeverse.nn import AutoencoderNet, generator_on
from aeverse.train import Deviances, History, Samples, StoredSamples, train

UNGUIDED_LENGTH = 0.1  # of the dimensions beside guided ones: there for linear models, not felt by neighbors
MOMENT_ROWS = 4096  # samples whose second moments are taken at a time


def learn(
    network: Network,
    source: Samples | StoredSamples,
    samples: Samples,
    heldout: Matrix,
    rng: np.random.Generator,
    generator: torch.Generator,
    keep_start: bool,
    callback: Callable[[History], bool | None] | None,
    checkpoint: str | Path | None,
    progress: bool | None,
) -> History:
    """Train; of the weights that were judged, those that explain most of what was held out stay.

    Parameters
    ----------
    network
        To be trained, in place.
    source
        What is learned from.
    samples, heldout
        The same samples, or some of them, in memory, and what training does not see of them.
    rng
        Gives the samples that judge, and the batches.
    generator
        Gives what corrupts the batches, and draws of the code.
    keep_start
        The network starts from another model: stay with it where nothing better comes.
    callback
        Called after each judgment with the history so far; training ends where it returns True.
    checkpoint
        File that keeps where training stands; None: none does.
    progress
        Show a bar; None: on a terminal or in a notebook.
    """
    settings = network.settings
    training, heldout_entries = network.as_trained(samples), network.heldout_as_trained(heldout)
    batches = training if isinstance(source, Samples) else source.mapped(network.as_trained)
    judged = np.sort(rng.permutation(len(training))[: settings.recipe.n_judged])

    def judge() -> float:
        part = training.some(judged)
        network.refresh(part, quick=True)  # dispersions: training goes on with them
        return network.deviances(part, heldout_entries[judged]).explained

    n_steps = settings.n_steps(batches.n_batches(settings.batch_size))
    if {*settings.regularizers} - {"denoising"}:
        unit = network.null_loss(training)
        for member in network.ensemble.members:
            member.penalties = penalties(settings, unit, n_steps, training.graph_target)
    on_device = generator_on(network.device, generator)
    assert on_device is not None
    keeper = (
        None if checkpoint is None else TrainingCheckpoint(checkpoint, network, on_device, training, heldout_entries)
    )
    n_done = 0 if keeper is None else keeper.n_steps
    stream = batches.shuffled(rng, settings.batch_size, on_device, skip=max(n_done - 1, 0))
    if n_done:
        next(stream)  # now `rng` stands where it stood, even if no further batch is asked for
    schedule = settings.schedule(n_steps, keep_start)
    history = train(network.ensemble, stream, judge, schedule, callback=callback, checkpoint=keeper, progress=progress)
    network.split_rare()
    return history


def finish(
    network: Network,
    samples: Samples,
    heldout: Matrix,
    rng: np.random.Generator,
    covariates: Covariates,
    labels: np.ndarray | None,
) -> Deviances:
    """Give the code its signs, moments, axes and units, which changes nothing that is decoded; the verdict, on all samples.

    What covariates do to the code is taken out before the units are learned: batches that lie apart would else count as
    populations, and their distance be kept. `labels`: see `Network.measure_noise`.
    """
    settings = network.settings
    for member in network.ensemble.members:
        member.fix_signs()
        if "variational" in settings.regularizers:
            standardize_code(member, samples)
    if settings.may_rotate and not settings.in_noise_units:
        network.rotate(samples)
    network.refresh(_some(samples, settings.recipe.n_refreshed, rng))
    deviances = network.calibrate(samples, heldout)
    if settings.n_guided and settings.recipe.graph_target == "smoothed" and settings.may_rotate:
        _shorten_unguided(network, samples)
    if not settings.dimensions_mean_something:
        network.correct(samples, covariates)
    if settings.in_noise_units:
        network.measure_noise(samples, labels)
    return deviances


def _some(samples: Samples, n: int | None, rng: np.random.Generator) -> Samples:
    return samples if n is None else samples.some(np.sort(rng.permutation(len(samples))[:n]))


@torch.no_grad()
def standardize_code(member: AutoencoderNet, samples: Samples) -> None:
    """Turn a variational code so that over all samples its second moments are those of the prior that one draws from."""
    moments: torch.Tensor | float = 0.0
    for _, batch in samples.blocks(MOMENT_ROWS):
        code = member.encoder.coded(batch.x, batch.library, batch.covariate)
        assert code.log_variance is not None
        moments = moments + (code.mean.T @ code.mean + code.log_variance.exp().sum(0).diag()).double()
    values, axes = torch.linalg.eigh(moments / len(samples))
    member.rotate(axes * values.clamp_min(1e-6).rsqrt() @ axes.T)


def _shorten_unguided(network: Network, samples: Samples) -> None:
    """Scale what is beside the guided dimensions to `UNGUIDED_LENGTH` of their length."""
    members, n = network.ensemble.members, network.settings.n_guided
    for member, code in zip(members, np.split(network.encode(samples), len(members), 1), strict=True):
        guided, unguided = code[:, :n].var(0).sum(), code[:, n:].var(0).sum()
        if not guided:  # all samples lie in one place there
            continue
        ratio = float(np.sqrt(guided / max(unguided, 1e-12)))
        matrix = torch.eye(code.shape[1], dtype=torch.float64)
        matrix[n:, n:] *= UNGUIDED_LENGTH * ratio
        member.rotate(matrix.to(network.device))
