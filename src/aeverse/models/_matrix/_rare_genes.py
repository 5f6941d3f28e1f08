"""Rare genes share one output while a count model trains: there is next to nothing to learn of each of them.

A gene with `n` molecules moves its loadings by ``n / (n + precision)`` of what they say, the prior the rest of the way. So
genes with few molecules would cost as much as all others and stay where they are. Pooled, they are one output, whose mean
is shared out among them as their molecules are; as a softmax that is the same as equal loadings and biases that differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from aeverse.nn import Decoder
from aeverse.train import Samples

SHRUNK_BELOW = 0.03  # molecules of a gene over the prior's precision: it would keep so little of its loadings


@dataclass(frozen=True)
class RareGenes:
    """Which output of the decoder each gene belongs to while training.

    Parameters
    ----------
    output
        Position of each gene's output, (genes,); the last one is that of all rare genes.
    bias
        Of each gene when every gene is an output of its own, (genes,).
    """

    output: np.ndarray
    bias: np.ndarray

    @classmethod
    def among(cls, molecules: np.ndarray, bias: np.ndarray, precision: float) -> RareGenes | None:
        """The rare genes, by their molecules; None where there are fewer than two, or nothing else."""
        rare = molecules < SHRUNK_BELOW * precision
        if rare.sum() < 2 or rare.all():
            return None
        output = np.cumsum(~rare) - 1
        return cls(np.where(rare, (~rare).sum(), output), bias)

    @property
    def pooled_bias(self) -> np.ndarray:
        """Bias of each output, (outputs,)."""
        return np.log(np.bincount(self.output, np.exp(self.bias)).clip(1e-30))

    def pooled_counts(self, counts: sp.csr_matrix) -> sp.csr_matrix:
        """Counts by output, (cells, outputs)."""
        genes = np.arange(len(self.output))
        membership = sp.csr_matrix((np.ones(len(genes), counts.dtype), (genes, self.output)))
        return sp.csr_matrix(counts @ membership)

    def pooled(self, samples: Samples) -> Samples:
        """The same samples, to be explained by output; what the encoder reads stays."""
        return samples.with_data(self.pooled_counts(samples.data))

    def split(self, decoder: Decoder) -> None:
        """Make every gene an output of its own again; what is expected of all of them together stays the same."""
        decoder.regroup(torch.as_tensor(self.output), torch.as_tensor(self.bias))
