"""Where training stands, as a tree of numbers and arrays, and going on from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from aeverse.nn import Divergence

PLAIN = "step", "last", "total", "best_score", "better_than", "waited", "history"  # numbers, and lists of them


class Checkpoint(Protocol):
    """Keeps where training stands."""

    state: Mapping[str, Any] | None  # from which training goes on; None: it starts anew

    def write(self, state: Mapping[str, Any]) -> None:
        """Keep the state, in the place of an older one."""


def state_of(run: Any) -> dict[str, Any]:
    """All that the next steps of a run depend on, apart from batches and random numbers."""
    best, optimizer = run.best_weights, run.optimizer.state_dict()["state"]
    return {
        **{name: getattr(run, name) for name in PLAIN},
        "weights": _arrays(_tensors(run.module)),
        "best": None if best is None else _arrays(best),
        "averages": [average.cpu().numpy() for average in run.averaged.average],
        "n_averaged": run.averaged.steps,
        "optimizer": [_arrays(optimizer[i]) for i in sorted(optimizer)],
        "warm_up": [penalty.seen for penalty in _divergences(run.module)],
    }


@torch.no_grad()
def restore(run: Any, state: Mapping[str, Any]) -> None:
    """Put a run where `state_of` found one on the same module and schedule."""
    for name in PLAIN:
        setattr(run, name, state[name])
    run.history = {name: [*values] for name, values in state["history"].items()}
    for name, tensor in _tensors(run.module).items():
        tensor.copy_(torch.from_numpy(state["weights"][name]))
    weights, best = run.module.state_dict(), state["best"]
    run.best_weights = None if best is None else {n: torch.from_numpy(a).to(weights[n].device) for n, a in best.items()}
    for average, array in zip(run.averaged.average, state["averages"], strict=True):
        average.copy_(torch.from_numpy(array))
    run.averaged.steps = state["n_averaged"]
    moments = {i: {n: torch.from_numpy(a) for n, a in arrays.items()} for i, arrays in enumerate(state["optimizer"])}
    run.optimizer.load_state_dict({**run.optimizer.state_dict(), "state": moments})
    for penalty, n_seen in zip(_divergences(run.module), state["warm_up"], strict=True):
        penalty.seen = n_seen


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those too that files of models leave out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def _divergences(module: nn.Module) -> list[Divergence]:
    """Penalties whose weights still grow."""
    penalties = [penalty for part in module.modules() for penalty in getattr(part, "penalties", ())]
    return [penalty for penalty in penalties if isinstance(penalty, Divergence)]
