"""Special functions of counts, most of which are one."""

from __future__ import annotations

import torch
from torch import Tensor


def log_rising(t: Tensor, x: Tensor) -> Tensor:
    """``lgamma(t + x) - lgamma(t)`` for counts of at least one; the gamma function is only taken where `x` exceeds one."""
    many = (x > 1).nonzero().squeeze(1)
    if len(many) == len(x):
        return torch.lgamma(t + x) - torch.lgamma(t)
    result = torch.log(t)
    own = t[many]
    result[many] = torch.lgamma(own + x[many]) - torch.lgamma(own)
    return result


def beyond_zero(t: Tensor, x: Tensor, mu: Tensor) -> Tensor:
    """What a count `x` adds to the log-likelihood of a zero, ``log(Gamma(t + x) / Gamma(t) / (mu + t) ** x)``."""
    return log_rising(t, x) - x * torch.log(mu + t)
