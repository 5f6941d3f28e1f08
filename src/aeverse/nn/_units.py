"""An affine map of a latent space to units that mean something, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Units(nn.Module):
    """``(latent - center) @ matrix``: the embedding in other units; `undo` gives the latent values back.

    Parameters
    ----------
    center
        (dimensions,), what becomes the origin.
    matrix
        (dimensions, dimensions), invertible.
    """

    center: Tensor
    matrix: Tensor
    inverse: Tensor

    def __init__(self, center: Tensor, matrix: Tensor):
        super().__init__()
        self.register_buffer("center", center.float())
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("inverse", torch.linalg.inv(matrix.double()).float())

    def forward(self, latent: Tensor) -> Tensor:
        """The embedding, (samples, dimensions)."""
        return (latent - self.center) @ self.matrix

    def undo(self, embedding: Tensor) -> Tensor:
        """The latent values of an embedding."""
        return embedding @ self.inverse + self.center
