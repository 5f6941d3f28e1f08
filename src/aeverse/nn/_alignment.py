"""Shifts of a code that bring matching samples of different batches together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_ITERATIONS = 30  # of `inverse`, whose error shrinks in each


class Alignment(nn.Module):
    """Shift each sample by what its batch is off, there where the sample lies.

    The code is covered by clusters. Cluster k lies at ``centroids[b, k]`` in batch b, ``shifts[b, k]`` off from where it lies
    in all; a sample is shifted by the mean of the clusters near it.

    Parameters
    ----------
    centroids, shifts
        (batches, clusters, dimensions).
    width
        Square of the distance over which neighboring clusters are averaged.
    """

    centroids: Tensor
    shifts: Tensor
    width: Tensor

    def __init__(self, centroids: Tensor, shifts: Tensor, width: float = 1.0):
        super().__init__()
        self.register_buffer("centroids", centroids)
        self.register_buffer("shifts", shifts)
        self.register_buffer(
            "width", torch.tensor([float(width)], dtype=torch.float32)
        )  # a scalar, HDF5 would not compress

    def forward(self, code: Tensor, covariate: Tensor) -> Tensor:
        """Codes without what their batches are off; ``covariate`` is one-hot, or a mean over batches."""
        return code - self._shift(code, covariate)

    def inverse(self, code: Tensor, covariate: Tensor) -> Tensor:
        """Codes as they were before `forward`."""
        before = code
        for _ in range(N_ITERATIONS):
            before = code + self._shift(before, covariate)
        return before

    def _shift(self, code: Tensor, covariate: Tensor) -> Tensor:
        total = torch.zeros_like(code)
        for weight, centroids, shifts in zip(covariate.T, self.centroids, self.shifts, strict=True):
            clusters = weight.nonzero().squeeze(1)
            if len(clusters):
                total[clusters] += weight[clusters, None] * (
                    self.soft_assignment(code[clusters], centroids, self.width) @ shifts
                )
        return total

    @staticmethod
    def soft_assignment(code: Tensor, centroids: Tensor, width: float | Tensor) -> Tensor:
        """Share of each code in each centroid, by distance, (codes, centroids); rows sum to one."""
        square = torch.cdist(code, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()
        return torch.softmax(-square / width, 1)
