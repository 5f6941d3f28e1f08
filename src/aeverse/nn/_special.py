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
    return log_rising_factorial(t, x) - x * torch.log(mu + t)
