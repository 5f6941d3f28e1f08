"""The training loop: a learning rate that falls when held-out scores rise no more, averaged weights, the best restored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aeverse import _runtime
from aeverse.train._state import Checkpoint, restore, state_of

SAVE_EVERY = 100  # steps between two checkpoints
RISING, START = 0.21, 10  # share of a cycle in which the rate rises, from a tenth of its peak

History = dict[str, list[float]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    The learning rate rises, stays at its peak while the held-out score gets better, and falls to zero. How long it stays
    need not be known beforehand: after `patience` judgments that were no better, or in time for the last of `n_steps`, it
    falls.

    Parameters
    ----------
    n_steps
        Most steps.
    judge_every
        Steps between two judgments.
    learning_rate
        Peak of the learning rate (Adam).
    cycle
        Steps in which the rate rises and falls, together; None: all of them, so that it stays at no rate.
    average
        Decay of the exponential average of the weights; the average is what is judged and kept.
    patience
        Judgments without a better one after which the rate falls; if it falls already, training ends.
    min_delta
        A judgment is better if it is higher than the last better one by this much.
    clip
        Largest norm of the gradient.
    keep_start
        Judge the weights that training starts from too, and keep them where nothing better comes.
    """

    n_steps: int
    judge_every: int
    learning_rate: float = 4e-3
    cycle: int | None = None
    average: float = 0.99
    patience: int = 3
    min_delta: float = 0.0
    clip: float = 100.0
    keep_start: bool = False

    @property
    def rising(self) -> int:
        """Steps in which the rate rises."""
        return max(1, round(RISING * min(self.cycle or self.n_steps, self.n_steps)))

    @property
    def falling(self) -> int:
        """Steps in which it falls."""
        return min(self.cycle or self.n_steps, self.n_steps) - self.rising

    def rate(self, step: int, last: int) -> float:
        """Learning rate of a step, from 1 on, where training ends after step `last`."""
        if step <= self.rising:
            share, low = (step - 1) / self.rising, 1 / START
        else:
            share, low = min(1.0, (last - step + 1) / max(self.falling, 1)), 0.0
        return self.learning_rate * (low + (1 - low) * (1 - math.cos(math.pi * share)) / 2)


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


class _Run:
    """Training under way: weights, their average, the best of them, and where the schedule stands."""

    def __init__(self, module: nn.Module, schedule: Schedule, spread: Callable = map):
        self.module, self.schedule, self.spread = module, schedule, spread
        self.parameters = [p for p in module.parameters() if p.requires_grad]  # looking for them takes time
        self.optimizer = torch.optim.Adam(self.parameters, schedule.learning_rate, betas=(0.9, 0.99), fused=True)
        self.averaged = AveragedWeights(module, schedule.average)
        self.history: History = {"step": [], "loss": [], "heldout": []}
        self.step, self.last, self.total = 0, schedule.n_steps, 0.0
        self.best_score = -math.inf
        self.best_weights: dict[str, Tensor] | None = None
        self.better_than, self.waited = -math.inf, 0

    def advance(self, batch) -> None:
        """One step."""
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step, self.last)
        for parameter in self.parameters:
            parameter.grad = None
        value = sum(self.spread(_descend, _losses(self.module, batch)))
        if not math.isfinite(value):
            raise FloatingPointError(
                "the loss is not finite; look for extreme values in the data or lower the learning rate"
            )
        _clip([p.grad for p in self.parameters if p.grad is not None], self.schedule.clip)
        self.optimizer.step()
        self.averaged.update()
        self.total += value

    def judge(self, judge: Callable[[], float]) -> None:
        """Judge the averaged weights, keep them if they are the best, and decide how long training goes on."""
        if self.step:
            self.averaged.swap()
        self.module.eval()
        score = judge()
        if not math.isfinite(score):
            raise FloatingPointError("the held-out score is not finite")
        if score > self.best_score:
            self.best_score, self.best_weights = score, _weights(self.module)
        if self.step:
            self.averaged.swap()
        self.module.train()
        since = self.step - (self.history["step"][-1] if self.history["step"] else 0)
        for key, value in zip(self.history, (self.step, self.total / since if since else math.nan, score), strict=True):
            self.history[key].append(value)
        self.total = 0.0
        self._wait(score)

    def _wait(self, score: float) -> None:
        if self.last < self.schedule.n_steps:  # the end is set already
            return
        if score > self.better_than + self.schedule.min_delta or self.better_than == -math.inf:
            self.better_than, self.waited = score, 0
            return
        self.waited += 1
        if self.waited == self.schedule.patience:
            end = self.step + self.schedule.falling
            self.last = end if end <= self.last else self.step  # it falls already: no need to go on


@_runtime.learning()
def train(
    module: nn.Module,
    batches: Iterator,
    judge: Callable[[], float],
    schedule: Schedule,
    *,
    callback: Callable[[History], bool | None] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool | None = None,
) -> History:
    """Train a module in place and leave the best averaged weights in it.

    Parameters
    ----------
    module
        Has ``loss(batch)``, a scalar; or ``losses(batch)``, functions without arguments that give its summands, which are
        called on several threads.
    batches
        Gives batches without end.
    judge
        Called now and then with the averaged weights in the module; higher is better (held-out deviance explained).
    schedule
        How long and how fast.
    callback
        Called after each judgment with the history so far; training ends where it returns True.
    checkpoint
        Keeps where training stands, now and then and at its end; where it holds a state, training goes on from there.
    progress
        Show a bar; None: on a terminal or in a notebook.

    Returns
    -------
    History: ``step``, ``loss`` (mean since the last judgment), ``heldout``, a list each; with `keep_start` also of step
    0, which has no loss.

    Raises
    ------
    FloatingPointError
        The loss is not finite before the first judgment. Later, training stops with a warning and keeps the best weights.
    KeyboardInterrupt
        Interrupted before the first judgment. Later, training stops with a warning and keeps the best weights.
    """
    with _runtime.threads() as spread:
        return _trained(_Run(module, schedule, spread), batches, judge, callback, checkpoint, progress)


def _trained(
    run: _Run,
    batches: Iterator,
    judge: Callable[[], float],
    callback: Callable[[History], bool | None] | None,
    checkpoint: Checkpoint | None,
    progress: bool | None,
) -> History:
    """See `train`."""
    module, schedule = run.module, run.schedule
    if checkpoint is not None and checkpoint.state is not None:
        restore(run, checkpoint.state)
    elif schedule.keep_start:
        run.judge(judge)
    bar = _runtime.progress_bar(schedule.n_steps, "training", progress)
    bar.update(run.step)
    module.train()
    try:
        while run.step < run.last:
            run.advance(next(batches))
            bar.update()
            if not run.step % schedule.judge_every or run.step >= run.last:
                run.judge(judge)
                bar.set_postfix_str(f"held-out {run.history['heldout'][-1]:.4f}")
                if callback is not None and callback({key: [*values] for key, values in run.history.items()}):
                    run.last = run.step
            if checkpoint is not None and (not run.step % SAVE_EVERY or run.step >= run.last):
                checkpoint.write(state_of(run))
    except (KeyboardInterrupt, FloatingPointError) as error:
        if run.best_weights is None:
            raise
        event = "interrupted" if isinstance(error, KeyboardInterrupt) else f"stopped: {error}"
        _runtime.warn(f"Training was {event}; the best weights so far are kept.")
    finally:
        bar.close()
    assert run.best_weights is not None  # the last step was judged
    module.load_state_dict(run.best_weights)
    module.eval()
    return run.history


def _losses(module: Any, batch) -> list[Callable[[], Tensor]]:
    """What adds up to the loss of a batch: of an ensemble, the shares of its members; else the loss."""
    return module.losses(batch) if hasattr(module, "losses") else [lambda: module.loss(batch)]


def _descend(share: Callable[[], Tensor]) -> float:
    """A part of the loss; its gradient is added to those of the parameters."""
    loss = share()
    loss.backward()
    return loss.item()


def _clip(gradients: list[Tensor], largest: float) -> None:
    """Shorten gradients that are longer, all together, than `largest`; torch's function rewrites those that are not, too."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if norm > largest:
        torch._foreach_mul_(gradients, largest / norm)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
