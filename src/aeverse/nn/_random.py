"""Random numbers from a generator of one's own; None is torch's global one. The stream is that of torch's own functions."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn


def uniform_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Uniform between 0 and 1, of the shape, type and device of `x`."""
    return torch.empty_like(x).uniform_(generator=generator)


def normal_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal, of the shape, type and device of `x`."""
    return torch.empty_like(x).normal_(generator=generator)


def linear(n_in: int, n_out: int, generator: Generator | None, *, bias: bool = True) -> nn.Linear:
    """An affine map with the start that ``nn.Linear`` gives it, which takes no generator."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias, dtype=torch.float32)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    if bias:
        nn.init.uniform_(layer.bias, -(n_in**-0.5), n_in**-0.5, generator=generator)
    return layer


def generator_on(device: torch.device | str, generator: Generator | None) -> Generator | None:
    """The generator itself where it is of this kind of device, else one there that starts from the same seed."""
    device = torch.device(device)
    if generator is None or generator.device.type == device.type:
        return generator
    return Generator(device).manual_seed(generator.initial_seed())
