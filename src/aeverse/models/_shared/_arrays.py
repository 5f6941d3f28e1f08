"""The state of a torch module as arrays by name, which is what files hold, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch


def arrays_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """State of a module, as arrays by name."""
    return {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}


def load_arrays(module: torch.nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Put a state into a module."""
    module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
