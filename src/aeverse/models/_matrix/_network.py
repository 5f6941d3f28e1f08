"""The network of one matrix: an ensemble that answers for samples instead of batches, and what stands behind its means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from aeverse import _runtime
from aeverse.models._matrix._rare_genes import RareGenes
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._arrays import arrays_of, load_arrays
from aeverse.models._shared._correction import correction
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._kinds import Matrix
from aeverse.nn import Batch, Ensemble, InputLayer, Likelihood
from aeverse.train import Deviances, Samples, StoredSamples

ENCODED_ROWS = 4096  # samples that are encoded at a time
BLOCK_ENTRIES = 1_000_000  # entries of a block of decoded values: what stays in cache

T = TypeVar("T")
Block = tuple[slice, Batch, Tensor, Tensor]  # which samples, their batch, their codes, their means


@dataclass(frozen=True)
class NetParts:
    """What of a net depends on the data.

    Parameters
    ----------
    input_layer
        Normalizes what the encoder reads.
    likelihood
        Explains the outputs.
    bias
        That the decoder starts from, (outputs,).
    information
        What the data say of a loading of each output, (outputs, 1), so that its precision is learned; None: it is not.
    rare
        How rare genes share an output; None: every feature has its own.
    """

    input_layer: InputLayer
    likelihood: Likelihood
    bias: np.ndarray
    information: Tensor | None = None
    rare: RareGenes | None = None


class Network(ABC):
    """What is learned of one matrix. Counts and other values differ in what stands behind the decoder's means.

    Parameters
    ----------
    ensemble
        The members, on the device where everything happens.
    settings
        What is done.
    n_features
        Features of the data.
    """

    def __init__(self, ensemble: Ensemble, settings: Settings, n_features: int):
        self.ensemble, self.settings = ensemble, settings
        self.block_rows = max(1, BLOCK_ENTRIES // n_features)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.ensemble.members[0].decoder.bias.device

    def to(self, device: torch.device) -> None:
        """Move all weights."""
        self.ensemble.to(device)

    # ---- what all networks do --------------------------------------------------------------------------------
    @_runtime.one_thread()
    @torch.no_grad()
    def encode(self, samples: Samples | StoredSamples, *, raw: bool = False) -> np.ndarray:
        """Codes, (samples, n_code); `raw`: the latent values of the members, in no units and with what covariates do to them."""
        encode = self.ensemble.latent if raw else self.ensemble.encode
        with _runtime.threads() as spread:
            blocks = list(spread(encode, (batch for _, batch in samples.blocks(ENCODED_ROWS))))
        return torch.cat(blocks).cpu().numpy() if blocks else np.zeros((0, self.settings.n_code), np.float32)

    def means(self, samples: Samples | StoredSamples, code: np.ndarray | None = None) -> Iterator[Block]:
        """The decoder's means, block by block, for the samples' own codes or for those given."""
        return self.over_blocks(lambda *block: block, samples, code)

    @torch.no_grad()
    def over_blocks(
        self,
        work: Callable[..., T],
        samples: Samples | StoredSamples,
        code: np.ndarray | None = None,
        measured: np.ndarray | None = None,
    ) -> Iterator[T]:
        """Results of a function of each block, in order, computed on several threads.

        Parameters
        ----------
        work
            Called with what `means` yields.
        samples, code
            As for `means`.
        measured
            Genes of which counts can say anything, (genes,) booleans: they share the library. None: all.
        """
        seen = None if measured is None or measured.all() else torch.as_tensor(measured, device=self.device)

        def of_block(item: tuple[slice, Batch]) -> T:
            rows, batch = item
            z = self.ensemble.encode(batch) if code is None else torch.as_tensor(code[rows], device=self.device)
            mu = self.ensemble.mean(z, batch.library, batch.covariate)
            if seen is not None:
                mu *= seen
                mu *= batch.depth / mu.sum(1, keepdim=True).clamp_min(1e-30)
            return work(rows, batch, z, mu)

        with _runtime.threads() as spread:
            yield from spread(of_block, samples.blocks(self.block_rows))

    @_runtime.one_thread()
    @torch.no_grad()
    def decode(
        self, code: np.ndarray, library: np.ndarray, covariate: np.ndarray | None, columns: np.ndarray
    ) -> np.ndarray:
        """The decoder's means of codes without data, (samples, columns)."""
        values = np.empty((len(code), len(columns)), np.float32)
        for start in range(0, len(code), self.block_rows):
            rows = slice(start, start + self.block_rows)
            z, size = (torch.tensor(a[rows], device=self.device) for a in (code, library))
            batch = None if covariate is None else torch.tensor(covariate[rows], device=self.device)
            values[rows] = self.ensemble.mean(z, size, batch)[:, columns].cpu().numpy()
        return values

    def correct(self, samples: Samples, covariates: Covariates) -> None:
        """Learn what covariates do to the code; from now on codes are without that."""
        fitted_correction = correction(self.encode(samples), covariates, samples.covariate, self.settings.random_state)
        self.ensemble.correction = None if fitted_correction is None else fitted_correction.to(self.device)

    # ---- where they differ -----------------------------------------------------------------------------------
    @abstractmethod
    def refresh(self, samples: Samples, *, quick: bool = False) -> None:
        """Fit what stands behind the means (dispersions, residuals) to the present weights.

        `quick`: only what training goes on with.
        """

    @abstractmethod
    def deviances(self, samples: Samples, heldout: Matrix) -> Deviances:
        """Of what was held out of these samples."""

    @abstractmethod
    def null_loss(self, samples: Samples) -> float:
        """Loss of a sample without a code: what the weights of penalties are shares of."""

    @abstractmethod
    def rotate(self, samples: Samples) -> None:
        """Turn and scale the code by what its dimensions change in the data; what is decoded stays the same."""

    def measure_noise(self, samples: Samples, labels: np.ndarray | None = None) -> None:
        """Learn the units in which the embedding is given: those of sampling noise, which only counts have.

        `labels` of the samples, as integers, -1 where there is none: the populations that are to be round. None: found.
        """
        return

    def calibrate(self, samples: Samples, heldout: Matrix) -> Deviances:
        """Correct what is expected too high or too low, by what was held out, and give the deviances from before.

        One pass does both. Only count networks have anything to correct.
        """
        return self.deviances(samples, heldout)

    def as_trained(self, samples: Samples) -> Samples:
        """The data by output of the network; outputs are features, unless rare ones share one while training."""
        return samples

    def heldout_as_trained(self, heldout: Matrix) -> Matrix:
        """The same for what was held out."""
        return heldout

    def split_rare(self) -> None:
        """Give each rare feature an output of its own, after training."""
        return  # they have one

    def tree(self) -> dict[str, Any]:
        """Weights and buffers by name."""
        return {"ensemble": arrays_of(self.ensemble)}

    def load_tree(self, tree: Mapping[str, Any]) -> None:
        """Take weights and buffers from a `tree`."""
        load_arrays(self.ensemble, tree["ensemble"])
        self.ensemble.eval()
