"""The code of a cohort's samples, once, and differentiable: for `encode` and for attributions alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from aeverse.models._shared._covariates import Covariates
from aeverse.nn import FusionNet

ROWS = 8192  # encoded at a time


class JointCode(nn.Module):
    """Place in the graph; components of what was decoded; components of what was measured.

    Each block is centered, rotated and scaled by what `fit` found. Weights of missing modalities are zero.
    """

    average: Tensor | None

    def __init__(
        self,
        net: FusionNet,
        modality_weights: Mapping[str, float],
        covariates: Covariates,
        sizes: Mapping[str, tuple[int, int]],
    ):
        super().__init__()
        self.net, self.modality_weights = net, dict(modality_weights)
        self.names, average = list(sizes), covariates.average(1)
        self.register_buffer("average", None if average is None else torch.from_numpy(average), persistent=False)
        for block, (n_in, n_out) in sizes.items():
            self.register_buffer(f"{block}_mean", torch.zeros(n_in, dtype=torch.float32))
            self.register_buffer(f"{block}_axes", torch.zeros(n_in, n_out, dtype=torch.float32))

    def outputs(
        self, x: Mapping[str, Tensor], weights: Tensor, covariate: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the members of what the head and the decoders say; without a covariate: of an average sample."""
        members, n = self.net.n_members, len(weights)
        if covariate is None and self.average is not None:
            covariate = self.average.to(weights.device).expand(n, -1)
        latent = self.net.encode({m: v.expand(members, -1, -1) for m, v in x.items()}, weights.expand(members, -1, -1))
        head = self.net.head(latent).mean(0)
        context = None if covariate is None else covariate.expand(members, -1, -1)
        return head, {m: v.mean(0) for m, v in self.net.decode(latent, context).items()}

    def blocks(
        self, x: Mapping[str, Tensor], weights: Tensor, head: Tensor, decoded: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What the code is made of, (samples, …) each; what was decoded stands for a missing modality."""
        has = (weights > 0).unbind(1)
        measured = {m: torch.where(has[i][:, None], x[m], v) for i, (m, v) in enumerate(decoded.items())}
        return {"guided": head, "linear": self.side_by_side(decoded), "measured": self.side_by_side(measured)}

    def side_by_side(self, values: Mapping[str, Tensor]) -> Tensor:
        """Components of the modalities, each as long as it counts."""
        return torch.cat([v * (self.modality_weights[m] / v.shape[1]) ** 0.5 for m, v in values.items()], 1)

    def forward(self, x: Mapping[str, Tensor], weights: Tensor) -> Tensor:
        """Code, (samples, dimensions)."""
        head, decoded = self.outputs(x, weights)
        parts = self.blocks(x, weights, head[:, : len(self.get_buffer("guided_mean"))], decoded)
        return torch.cat(
            [(parts[b] - self.get_buffer(f"{b}_mean")) @ self.get_buffer(f"{b}_axes") for b in self.names], 1
        )

    @torch.no_grad()
    def encode(self, x: Mapping[str, Tensor], weights: Tensor) -> np.ndarray:
        """The same, block by block of the samples."""
        rows = [slice(start, start + ROWS) for start in range(0, len(weights), ROWS)]
        return torch.cat([self({m: v[r] for m, v in x.items()}, weights[r]) for r in rows]).cpu().numpy()

    @torch.no_grad()
    def all_outputs(
        self, x: Mapping[str, Tensor], weights: Tensor, covariate: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`outputs`, block by block of the samples."""
        rows = [slice(start, start + ROWS) for start in range(0, len(weights), ROWS)]
        blocks = [
            self.outputs({m: v[r] for m, v in x.items()}, weights[r], None if covariate is None else covariate[r])
            for r in rows
        ]
        return torch.cat([head for head, _ in blocks]), {m: torch.cat([d[m] for _, d in blocks]) for m in x}


def half_whitened(values: np.ndarray, k: int, length: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and axes of a block of the code: principal components, half whitened, rotated, of a given length in all."""
    mean = values.mean(0)
    covariance = np.cov(values.T.astype(np.float64)).reshape(values.shape[1], -1)
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    k = min(k, max(1, int((variances > 1e-12 * max(variances[0], 1e-12)).sum())))
    spread = np.sqrt(np.maximum(variances[:k], 1e-12))
    axes = length * (vectors[:, :k] / spread**0.5) @ random_rotation(k, rng) / np.sqrt(max(spread.sum(), 1e-12))
    return mean, np.ascontiguousarray(axes, np.float32)


def random_rotation(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.standard_normal((size, size)))[0]
