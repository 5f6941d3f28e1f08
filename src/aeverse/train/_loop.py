"""The training loop: one cycle of the learning rate, averaged weights, early stop, best weights restored."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aeverse import _settings


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Parameters
    ----------
    n_epochs
        Most passes over the data; the learning rate's cycle spans all of them.
    learning_rate
        Peak of the cycle (Adam).
    average
        Decay of the exponential average of the weights; the average is what is judged and kept.
    patience
        Stop after this many judgements without a better one.
    clip
        Largest norm of the gradient.
    """

    n_epochs: int = 20
    learning_rate: float = 4e-3
    weight_decay: float = 0.0
    average: float = 0.99
    patience: int = 3
    clip: float = 100.0


class AveragedWeights:
    """Exponential average of a module's parameters (Polyak averaging), with the bias of its start removed."""

    def __init__(self, module: nn.Module, decay: float):
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.decay, self.steps = decay, 0
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average; early on, the average is a plain mean of all steps."""
        self.steps += 1
        decay = min(self.decay, 1 - 1 / (self.steps + 1))
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their average."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            present = parameter.clone()
            parameter.copy_(average)
            average.copy_(present)


def train(
    module: nn.Module,
    batches: Callable[[], Iterable],
    judge: Callable[[], float],
    schedule: Schedule,
    *,
    steps_per_epoch: int,
    progress: bool | None = None,
) -> dict[str, list[float]]:
    """Train a module in place and leave the best averaged weights in it.

    Parameters
    ----------
    module
        Has ``loss(batch)``, a scalar.
    batches
        Called once an epoch; gives the epoch's batches.
    judge
        Called after each epoch with the averaged weights in the module; higher is better (held-out deviance explained).
    schedule
        How long and how fast.
    steps_per_epoch
        Number of batches in an epoch.
    progress
        Show a bar; None: on a terminal or in a notebook.

    Returns
    -------
    History: ``epoch``, ``loss`` (mean over the epoch), ``heldout``, a list each.

    Raises
    ------
    FloatingPointError
        The loss is not finite before any epoch ended. Later, training stops with a warning and keeps the best weights.
    KeyboardInterrupt
        Interrupted before any epoch ended. Later, training stops with a warning and keeps the best weights.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    optimizer = torch.optim.AdamW(
        parameters, schedule.learning_rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=fused
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, schedule.n_epochs * steps_per_epoch, pct_start=0.3, cycle_momentum=False
    )
    averaged = AveragedWeights(module, schedule.average)
    history: dict[str, list[float]] = {"epoch": [], "loss": [], "heldout": []}
    best_score, best_weights, waited = -math.inf, None, 0
    bar = _settings.progress_bar(schedule.n_epochs, "training", progress)
    try:
        for epoch in range(1, schedule.n_epochs + 1):
            module.train()
            total = 0.0
            for batch in batches():
                total += _step(module, batch, optimizer, schedule.clip)
                cycle.step()
                averaged.update()
            averaged.swap()
            module.eval()
            score = judge()
            if score > best_score or best_weights is None:
                best_score, best_weights, waited = score, _weights(module), 0
            else:
                waited += 1
            averaged.swap()
            for key, value in zip(history, (epoch, total / steps_per_epoch, score), strict=True):
                history[key].append(value)
            bar.set_postfix_str(f"held-out {score:.4f}")
            bar.update()
            if waited >= schedule.patience:
                break
    except (KeyboardInterrupt, FloatingPointError) as error:
        if best_weights is None:
            raise
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"stopped: {error}"
        warnings.warn(f"Training was {what}; the best weights so far are kept.", UserWarning, stacklevel=2)
    finally:
        bar.close()
    module.load_state_dict(best_weights)
    module.eval()
    return history


def _step(module: nn.Module, batch, optimizer: torch.optim.Optimizer, clip: float) -> float:
    optimizer.zero_grad()
    loss: Tensor = module.loss(batch)  # type: ignore[operator]
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError("the loss is not finite; look for extreme values in the data or lower the learning rate")
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), clip)
    optimizer.step()
    return value


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
