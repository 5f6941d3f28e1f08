"""The training loop: one cycle of the learning rate, averaged weights, early stop, best weights restored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aeverse import _settings


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Parameters
    ----------
    n_steps
        Most steps; the learning rate's cycle spans all of them.
    judge_every
        Steps between two judgements.
    learning_rate
        Peak of the cycle (Adam).
    average
        Decay of the exponential average of the weights; the average is what is judged and kept.
    patience
        Stop after this many judgements without a better one.
    clip
        Largest norm of the gradient.
    keep_start
        Judge the weights that training starts from too, and keep them where nothing better comes.
    """

    n_steps: int
    judge_every: int
    learning_rate: float = 4e-3
    average: float = 0.99
    patience: int = 3
    clip: float = 100.0
    keep_start: bool = False


class AveragedWeights:
    """Exponential average of a module's parameters (Polyak averaging), with the bias of its start removed."""

    def __init__(self, module: nn.Module, decay: float):
        self.parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
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


@_settings.learning()
def train(
    module: nn.Module,
    batches: Iterator,
    judge: Callable[[], float],
    schedule: Schedule,
    *,
    progress: bool | None = None,
) -> dict[str, list[float]]:
    """Train a module in place and leave the best averaged weights in it.

    Parameters
    ----------
    module
        Has ``loss(batch)``, a scalar.
    batches
        Gives batches without end.
    judge
        Called now and then with the averaged weights in the module; higher is better (held-out deviance explained).
    schedule
        How long and how fast.
    progress
        Show a bar; None: on a terminal or in a notebook.

    Returns
    -------
    History: ``step``, ``loss`` (mean since the last judgement), ``heldout``, a list each; with `keep_start` also of step
    0, which has no loss.

    Raises
    ------
    FloatingPointError
        The loss is not finite before the first judgement. Later, training stops with a warning and keeps the best weights.
    KeyboardInterrupt
        Interrupted before the first judgement. Later, training stops with a warning and keeps the best weights.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, schedule.learning_rate, betas=(0.9, 0.99), fused=True)
    # a share of 0.2 would have torch divide by zero where there are five steps
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, schedule.n_steps, pct_start=0.21, div_factor=10, cycle_momentum=False
    )
    averaged = AveragedWeights(module, schedule.average)
    history: dict[str, list[float]] = {"step": [], "loss": [], "heldout": []}
    best_score, best_weights, waited, total = -math.inf, None, 0, 0.0
    if schedule.keep_start:
        module.eval()
        best_score, best_weights = judge(), _weights(module)
        history = {"step": [0], "loss": [math.nan], "heldout": [best_score]}
    bar = _settings.progress_bar(schedule.n_steps, "training", progress)
    module.train()
    try:
        for step in range(1, schedule.n_steps + 1):
            total += _step(module, next(batches), optimizer, schedule.clip)
            cycle.step()
            averaged.update()
            bar.update()
            if step % schedule.judge_every and step < schedule.n_steps:
                continue
            averaged.swap()
            module.eval()
            score = judge()
            if not math.isfinite(score):
                raise FloatingPointError("the held-out score is not finite")
            if score > best_score:
                best_score, best_weights, waited = score, _weights(module), 0
            else:
                waited += 1
            averaged.swap()
            module.train()
            since = step - (history["step"][-1] if history["step"] else 0)
            for key, value in zip(history, (step, total / since, score), strict=True):
                history[key].append(value)
            total = 0.0
            bar.set_postfix_str(f"held-out {score:.4f}")
            if waited >= schedule.patience:
                break
    except (KeyboardInterrupt, FloatingPointError) as error:
        if best_weights is None:
            raise
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"stopped: {error}"
        _settings.warn(f"Training was {what}; the best weights so far are kept.")
    finally:
        bar.close()
    assert best_weights is not None  # the last step was judged
    module.load_state_dict(best_weights)
    module.eval()
    return history


def _step(module: nn.Module, batch, optimizer: torch.optim.Optimizer, clip: float) -> float:
    optimizer.zero_grad()
    loss: Tensor = module.loss(batch)  # type: ignore[operator] # a Module does not say which methods it has
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(
            "the loss is not finite; look for extreme values in the data or lower the learning rate"
        )
    loss.backward()
    _clip([p.grad for p in module.parameters() if p.grad is not None], clip)
    optimizer.step()
    return value


def _clip(gradients: list[Tensor], largest: float) -> None:
    """Shorten gradients that are longer, all together, than `largest`; torch's function rewrites those that are not, too."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if norm > largest:
        torch._foreach_mul_(gradients, largest / norm)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
