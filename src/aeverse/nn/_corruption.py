"""Corruptions of the input, from which a denoising autoencoder must recover [Vincent2010]_.

The functions change values, the classes the input of a `Batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from aeverse.nn._batch import Batch
from aeverse.nn._random import normal_like, uniform_like
from aeverse.nn._rows import SparseRows
from aeverse.nn._special import runs_compiled

Corruption = Callable[[Batch], Batch]


def thin(counts: SparseRows, keep: float | Tensor, generator: Generator | None = None) -> SparseRows:
    """Keep each molecule with probability `keep` (binomial thinning), and scale so that the expectation stays.

    Parameters
    ----------
    counts
        Integer counts.
    keep
        Probability, one number or one for each row, (rows,).
    generator
        Where random numbers come from; None: torch's global generator.

    Examples
    --------
    >>> import torch, scipy.sparse as sp
    >>> from aeverse.nn import SparseRows, thin
    >>> thin(SparseRows.from_scipy(sp.csr_matrix([[4.0, 0.0]])), 0.5).values.item() in (0, 2, 4, 6, 8)
    True
    """
    x = counts.values
    keep = torch.as_tensor(keep, dtype=x.dtype, device=x.device).expand(counts.shape[0])
    if not runs_compiled(x):
        keep = keep[counts.row_index()]
        survives = (uniform_like(x, generator) < keep).to(keep.dtype)  # of one molecule; most counts are one
        many = (x > 1).nonzero().squeeze(1)
        survives[many] = torch.binomial(x[many], keep[many], generator=generator)
        return counts.with_values(survives * (x > 0) / keep)
    from aeverse.nn import _row_kernels  # numba takes a second to load

    seed = int(torch.randint(2**62, (), generator=generator))
    survives = torch.from_numpy(
        _row_kernels.thinned(x.numpy(), counts.pointers.numpy(), keep.contiguous().numpy(), seed)
    )
    many = (x > _row_kernels.MANY).nonzero().squeeze(1)
    if len(many):
        share = keep[torch.searchsorted(counts.pointers, many, right=True) - 1]
        survives[many] = torch.binomial(x[many], share, generator=generator) / share
    return counts.with_values(survives)


def mask(x: SparseRows | Tensor, share: float, generator: Generator | None = None) -> SparseRows | Tensor:
    """Set a random share of the entries to zero (masking noise; Vincent et al., 2010)."""
    if isinstance(x, SparseRows):
        return x.with_values(x.values * (uniform_like(x.values, generator) >= share))
    return x * (uniform_like(x, generator) >= share)


def add_noise(x: Tensor, sd: float | Tensor, generator: Generator | None = None) -> Tensor:
    """Add Gaussian noise, of one standard deviation or one for each column."""
    return x + sd * normal_like(x, generator)


class Thinning:
    """Corrupt counts: each sample keeps a share of its molecules, drawn between ``1 - strength`` and 1."""

    def __init__(self, strength: float = 0.6):
        self.strength = strength

    def __call__(self, batch: Batch) -> Batch:
        """The batch with thinned input."""
        assert isinstance(batch.x, SparseRows)
        draws = torch.rand(len(batch), generator=batch.generator, dtype=torch.float32, device=batch.x.device)
        keep = 1 - self.strength * draws
        return replace(batch, x=thin(batch.x, keep, batch.generator))


class Masking:
    """Corrupt dense data: hide a share of each sample's entries, as if they had not been measured (NaN)."""

    def __init__(self, share: float = 0.5):
        self.share = share

    def __call__(self, batch: Batch) -> Batch:
        """The batch with holes in its input."""
        assert isinstance(batch.x, Tensor)
        return replace(batch, x=batch.x.masked_fill(uniform_like(batch.x, batch.generator) < self.share, torch.nan))


class Noise:
    """Corrupt dense data: add Gaussian noise, of a standard deviation for each feature, (features,)."""

    def __init__(self, sd: Tensor):
        self.sd = sd

    def __call__(self, batch: Batch) -> Batch:
        """The batch with noise on its input."""
        assert isinstance(batch.x, Tensor)
        return replace(batch, x=add_noise(batch.x, self.sd.to(batch.x.device), batch.generator))
