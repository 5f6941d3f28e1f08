"""Special functions: of counts, most of which are one, and of fractions, which may be 0 or 1."""

from __future__ import annotations

import torch
from torch import Tensor

FRACTION_EDGE = 0.01


def fraction_logit(x: Tensor) -> Tensor:
    """Logit of fractions. Those nearer to 0 or 1 than 0.01 count as that far: what is measured there is mostly noise."""
    return torch.logit(x, eps=FRACTION_EDGE)


def log_rising_factorial(t: Tensor, x: Tensor) -> Tensor:
    """``lgamma(t + x) - lgamma(t)`` for counts of at least one; the gamma function is only taken where `x` exceeds one."""
    many = (x > 1).nonzero().squeeze(1)
    if len(many) == len(x):
        return torch.lgamma(t + x) - torch.lgamma(t)
    result = torch.log(t)
    large = t[many]
    result[many] = torch.lgamma(large + x[many]) - torch.lgamma(large)
    return result


def beyond_zero(t: Tensor, x: Tensor, mu: Tensor) -> Tensor:
    """What a count `x` adds to the log-likelihood of a zero, ``log(Gamma(t + x) / Gamma(t) / (mu + t) ** x)``."""
    if runs_compiled(t):
        from aeverse.nn import _kernels  # numba takes a second to load

        return torch.from_numpy(_kernels.beyond_zero(t.numpy(), x.numpy(), mu.numpy()))
    return log_rising_factorial(t, x) - x * torch.log(mu + t)


def sums_of_log1p(x: Tensor, linear: Tensor, constant: Tensor, grid: Tensor) -> Tensor:
    """``sum_j log1p(x[i, j] / t) * (t * linear[i, j] + constant[i, j])`` for each `t` of a grid and row i, (grid, rows)."""
    if runs_compiled(x):
        from aeverse.nn import _kernels

        values = (v.contiguous().numpy() for v in (x, linear, constant, grid))
        return torch.from_numpy(_kernels.sums_of_log1p(*values))
    return torch.stack([(torch.log1p(x / t) * (t * linear + constant)).sum(1) for t in grid])


def runs_compiled(x: Tensor) -> bool:
    """Whether loops that numba compiles (`_kernels`) do what is done to a tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32
