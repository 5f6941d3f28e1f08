"""Shifts of a code that bring matching samples of different batches together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_ITERATIONS = 30  # of `undo`, whose error shrinks in each


class Alignment(nn.Module):
    """Shift each sample by what its batch is off, there where the sample lies.

    The code is covered by clusters. Cluster k lies at ``places[b, k]`` in batch b, ``shifts[b, k]`` off from where it lies
    in all; a sample is shifted by the mean of the clusters near it.

    Parameters
    ----------
    places, shifts
        (batches, clusters, dimensions).
    width
        Square of the distance over which neighbouring clusters are averaged.
    """

    places: Tensor
    shifts: Tensor
    width: Tensor

    def __init__(self, places: Tensor, shifts: Tensor, width: float = 1.0):
        super().__init__()
        self.register_buffer("places", places)
        self.register_buffer("shifts", shifts)
        self.register_buffer(
            "width", torch.tensor([float(width)], dtype=torch.float32)
        )  # a scalar, HDF5 would not compress

    def forward(self, code: Tensor, covariate: Tensor) -> Tensor:
        """Codes without what their batches are off; ``covariate`` is one-hot, or a mean over batches."""
        return code - self._shift(code, covariate)

    def undo(self, code: Tensor, covariate: Tensor) -> Tensor:
        """Codes as they were before `forward`."""
        before = code
        for _ in range(N_ITERATIONS):
            before = code + self._shift(before, covariate)
        return before

    def _shift(self, code: Tensor, covariate: Tensor) -> Tensor:
        total = torch.zeros_like(code)
        for weight, places, shifts in zip(covariate.T, self.places, self.shifts, strict=True):
            own = weight.nonzero().squeeze(1)
            if len(own):
                total[own] += weight[own, None] * (self.nearness(code[own], places, self.width) @ shifts)
        return total

    @staticmethod
    def nearness(code: Tensor, places: Tensor, width: float | Tensor) -> Tensor:
        """How near each code is to each place, (codes, places); rows sum to one."""
        square = torch.cdist(code, places, compute_mode="donot_use_mm_for_euclid_dist").square()
        return torch.softmax(-square / width, 1)
