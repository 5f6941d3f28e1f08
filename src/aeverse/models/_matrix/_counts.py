"""Counts: molecules that are held out, rare genes that share an output, a gamma posterior behind the means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from aeverse import _runtime, _slots
from aeverse.models._matrix._network import Matrix, NetParts, Network
from aeverse.models._matrix._rare_genes import RareGenes
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._arrays import arrays_of, load_arrays
from aeverse.models._shared._features import Features
from aeverse.models._shared._genes import log_normalized_moments, overdispersed_genes
from aeverse.models._shared._graph_targets import smoothed_target
from aeverse.models._shared._noise_units import population_units
from aeverse.nn import (
    LIKELIHOODS,
    Batch,
    Calibration,
    CountInput,
    Ensemble,
    GammaPosterior,
    InputLayer,
    NegativeBinomial,
    Poisson,
    SparseRows,
    Units,
)
from aeverse.train import Deviances, Samples, StoredSamples, split_molecules

NO_COUNTS = -1e4  # logit of a gene without molecules: its mean is exactly zero
NOISE_CELLS, MOST_DRAWS = 5000, 5  # cells that show what sampling noise does, and how often each is halved, at most
SD_CELLS = 10_000  # whose thinned places are kept at a time
SD_DRAWS, KEPT = 12, 0.8  # how often a cell is thinned to see its own noise, and the share of the molecules that stays
SMALLEST_MEAN = 1e-12
FEWEST_CELLS = 30  # below, populations cannot be distinguished from noise
CODE_VARIANCE = 0.7  # of one dimension, about, where LayerNorm has made codes of mean square one


# ---- the data ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Counts:
    """Raw counts, (cells, genes).

    Parameters
    ----------
    x
        The matrix.
    likelihood
        Name of a `aeverse.nn.Likelihood` of counts.
    place
        The user's name of the matrix, for messages.
    """

    x: sp.csr_matrix
    likelihood: str
    place: str
    absent: ClassVar[str] = "the others count as zero"  # genes of a model that the data lack

    @classmethod
    def read(cls, adata, layer: str | None, likelihood: str) -> Counts:
        """Checked counts."""
        return cls(_slots.read_counts(adata, layer), likelihood, _slots.matrix_name(layer))

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: np.ndarray) -> Counts:
        return self._with(self.x[rows])

    def _with(self, x: sp.csr_matrix) -> Counts:
        return Counts(x, self.likelihood, self.place)

    def require_values(self) -> None:
        """Refuse what nothing can be learned from."""
        if self.x.nnz == 0:
            raise ValueError(f"{self.place} holds no counts (shape {self.x.shape}); there is nothing to learn.")

    def hold_out(self, share: float, rng: np.random.Generator) -> tuple[Counts, sp.csr_matrix]:
        """Counts to learn from, and a share of the molecules that training does not see."""
        training, heldout = split_molecules(self.x, 1 - share, rng)
        if training.nnz == 0:
            raise ValueError(f"{self.place} holds {int(self.x.sum())} molecules, too few to learn from.")
        return self._with(training), heldout

    def in_memory(self, values: np.ndarray | None) -> np.ndarray | None:
        """Of values for all cells, those for the cells in memory: all."""
        return values

    def choose_inputs(self, n_inputs: int) -> np.ndarray:
        """Genes that the encoder reads where no mask says which."""
        return overdispersed_genes(self.x, n_inputs)

    def columns(self, positions: np.ndarray | None) -> Counts:
        """Columns in another order, empty ones for -1; None: as they are."""
        if positions is None:
            return self
        columns = self.x.tocsc()[:, positions[positions >= 0]].tocoo()
        column = np.flatnonzero(positions >= 0)[columns.col]
        return self._with(sp.csr_matrix((columns.data, (columns.row, column)), shape=(self.x.shape[0], len(positions))))

    def samples(self, inputs: np.ndarray, covariate: np.ndarray | None, device: torch.device) -> Samples:
        """The cells, to be given out as batches."""
        library = np.asarray(self.x.sum(1), np.float32).ravel()
        return Samples(self.x, library=library, input_features=inputs, covariate=covariate, device=device)

    def net_parts(
        self, settings: Settings, training: Samples, whole: Any, input_layer: InputLayer | None = None
    ) -> NetParts:
        """What of a net depends on these counts; `training`: without those held out; `whole`: with them."""
        molecules: np.ndarray = np.asarray(training.data.sum(0), np.float64).ravel()
        return count_parts(settings, training, molecules, np.asarray(whole.x.sum(0)).ravel() > 0, input_layer)

    def graph_target(
        self,
        samples: Samples,
        features: Features,
        parts: NetParts,
        settings: Settings,
        batches: np.ndarray | None,
        mask: np.ndarray | None,
    ) -> np.ndarray:
        """What the leading dimensions of the code are to predict of each cell."""
        if len(self) == 1:
            raise ValueError(f"{self.place} holds one cell, which has no neighbors; choose another regularizer.")
        columns = None if mask is None else np.flatnonzero(mask)
        return smoothed_target(self.x, features.names, settings.n_guided, batches, columns)


def count_parts(
    settings: Settings, training: Samples, molecules: np.ndarray, expressed: np.ndarray, input_layer: InputLayer | None
) -> NetParts:
    """What of a net depends on counts.

    Parameters
    ----------
    settings
        What the net is.
    seen
        Cells that show how what the encoder reads is distributed.
    molecules
        That training sees of each gene, (genes,).
    expressed
        Genes with any molecule, held out or not, (genes,) booleans.
    input_layer
        Of a model to start from, in which every gene has an output of its own; None: a new one.
    """
    # a gene of which all molecules are held out is rare, one without molecules is absent
    bias = np.where(expressed, np.log(np.maximum(molecules, 0.5) / molecules.sum()), NO_COUNTS)
    rare = None
    if input_layer is None:
        input_layer = _input_layer(training)
        # gene sets say which gene belongs to which dimension
        rare = None if settings.gene_sets else RareGenes.among(molecules, bias, settings.prior_precision)
    if rare is not None:
        molecules, bias = np.bincount(rare.output, weights=molecules), rare.pooled_bias
    information = torch.as_tensor(molecules.astype(np.float32) * np.float32(CODE_VARIANCE))[:, None]
    likelihood = LIKELIHOODS[settings.likelihood].empty(len(bias))
    return NetParts(input_layer, likelihood, bias, information if settings.learns_precision else None, rare)


def _input_layer(training: Samples) -> CountInput:
    library = training.library
    assert library is not None
    median = float(np.median(library[library > 0]))
    mean, sd = log_normalized_moments(training.inputs, library, median)
    return CountInput(torch.from_numpy(mean), torch.from_numpy(sd), median)


def empty_parts(settings: Settings, n_features: int, n_inputs: int) -> NetParts:
    """Parts to load weights into."""
    zero, likelihood = torch.zeros(n_inputs, dtype=torch.float32), LIKELIHOODS[settings.likelihood].empty(n_features)
    return NetParts(CountInput(zero, zero + 1, 1.0), likelihood, np.zeros(n_features))


# ---- the network ---------------------------------------------------------------------------------------------------
class CountNetwork(Network):
    """An ensemble whose mean is the prior of a cell's expression; the posterior is given the cell's own counts.

    Parameters
    ----------
    ensemble, settings, n_features
        As for `Network`.
    rare
        How rare genes share an output until `split_rare`.
    """

    def __init__(self, ensemble: Ensemble, settings: Settings, n_features: int, rare: RareGenes | None = None):
        super().__init__(ensemble, settings, n_features)
        self.rare, self.n_features = rare, n_features
        n_outputs = n_features if rare is None else len(rare.pooled_bias)
        self.posterior = GammaPosterior(n_outputs).to(self.device)

    def to(self, device: torch.device) -> None:
        """Move all weights."""
        super().to(device)
        self.posterior.to(device)

    @_runtime.one_thread()
    @torch.no_grad()
    def refresh(self, samples: Samples, *, quick: bool = False) -> None:
        """Fit the dispersions; training goes on with them too. `quick` leaves out slopes and scales."""
        code = self.encode(samples)
        self.posterior.fit(lambda: ((batch.counts, mu) for _, batch, _, mu in self.means(samples, code)), quick=quick)
        for member in self.ensemble.members:
            if isinstance(member.likelihood, NegativeBinomial):
                member.likelihood.dispersion.copy_(self.posterior.constant_theta)

    def calibrate(self, samples: Samples, heldout: Matrix) -> Deviances:
        """Correct the expected expression by the held-out molecules; the deviances are those from before."""
        calibration = self.posterior.calibration
        calibration.frequency.copy_(profile(samples))
        deviances = self.deviances(samples, heldout, calibration)
        calibration.fit()
        return deviances

    @_runtime.one_thread()
    @torch.no_grad()
    def deviances(self, samples: Samples, heldout: Matrix, calibration: Calibration | None = None) -> Deviances:
        """Poisson deviances of the held-out molecules, from posterior and gene means; a `calibration` counts on the way."""
        share, frequency = float(heldout.sum() / samples.data.sum()), profile(samples)
        model = torch.zeros(len(frequency), dtype=torch.float64, device=self.device)
        null = torch.zeros_like(model)

        def expected_in(rows: slice, batch: Batch, _, mu: Tensor) -> tuple[slice, Batch, Tensor, Tensor]:
            return rows, batch, mu, self.posterior.given(mu, batch.counts).mean()

        for rows, batch, mu, expected in self.over_blocks(expected_in, samples, self.encode(samples)):
            x = SparseRows.from_scipy(heldout[rows], self.device)
            if calibration is not None:
                calibration.add(expected, mu.sum(1, keepdim=True), batch.counts, x, share)
            model += Poisson.deviance_of_rows(x, expected.mul_(share))
            null += Poisson.deviance_of_rows(x, batch.depth * (frequency * share))
        expressed = frequency > 0  # of a gene that was never seen, even the gene mean says nothing
        molecules = np.asarray(heldout.sum(0)).ravel()
        return Deviances((model * expressed).cpu().numpy(), (null * expressed).cpu().numpy(), molecules)

    @torch.no_grad()
    def null_loss(self, samples: Samples) -> float:
        """Half the deviance of a cell from the mean profile."""
        frequency, deviance = profile(samples), 0.0
        for _, batch in samples.blocks(self.block_rows):
            deviance += float(Poisson.deviance(batch.counts.to_dense(), batch.depth * frequency).sum())
        return 0.5 * deviance / max(len(samples), 1)

    def rotate(self, samples: Samples) -> None:
        """By the information of the mean profile. LayerNorm has made all codes equally long: no covariance is needed."""
        for member in self.ensemble.members:
            member.rotate_to_information(profile(samples), self.settings.recipe.rotation_power)

    def measure_noise(self, samples: Samples, labels: np.ndarray | None = None) -> None:
        """Learn the units of the embedding: two halves of a cell's molecules show what sampling does to its place."""
        rng = np.random.default_rng(self.settings.random_state)
        cells = np.flatnonzero(samples.measured())
        sample = samples.some(np.sort(rng.permutation(cells)[:NOISE_CELLS]))
        if len(sample) < FEWEST_CELLS:
            return
        n_draws = min(MOST_DRAWS, -(-NOISE_CELLS // len(sample)))
        halves = (sample.halves(rng) for _ in range(n_draws))  # one pair at a time
        differences = np.concatenate([self.encode(a) - self.encode(b) for a, b in halves])
        if not differences.any():
            return  # nothing can be said of noise
        latent = self.encode(sample)
        labeled = None
        if labels is not None and (labels[cells] >= 0).any():
            known = np.sort(rng.permutation(cells[labels[cells] >= 0])[:NOISE_CELLS])
            labeled = self.encode(samples.some(known)), np.unique(labels[known], return_inverse=True)[1]
        matrix = population_units(latent, differences, self.settings.random_state, labeled)
        self.ensemble.units = Units(torch.as_tensor(latent.mean(0)), torch.as_tensor(matrix)).to(self.device)

    def embedding_sd(self, samples: Samples | StoredSamples, random_state: int) -> np.ndarray:
        """Sampling noise of each cell's place, (cells, n_code), from thinned counts of it; NaN for a cell without counts.

        If a share p of the molecules is kept, the places vary with (1 - p) / p times the variance of sampling noise.
        """
        rng, sd = np.random.default_rng(random_state), np.empty((len(samples), self.settings.n_code), np.float32)
        for start in range(0, len(samples), SD_CELLS):
            rows = np.arange(start, min(start + SD_CELLS, len(samples)))
            part = samples.some(rows)
            places = np.stack([self.encode(part.thinned(KEPT, rng)) for _ in range(SD_DRAWS)])
            sd[rows] = places.std(0, ddof=1) * np.sqrt(KEPT / (1 - KEPT))
        sd[~samples.measured()] = np.nan
        return sd

    def as_trained(self, samples: Samples) -> Samples:
        """The cells, with counts by output of the network."""
        return samples if self.rare is None else self.rare.pooled(samples)

    def heldout_as_trained(self, heldout: Matrix) -> Matrix:
        """The counts by output of the network."""
        return heldout if self.rare is None else self.rare.pooled_counts(heldout)

    def split_rare(self) -> None:
        """Give each rare gene an output of its own; dispersions are then to be fitted again."""
        if self.rare is None:
            return
        for member in self.ensemble.members:
            self.rare.split(member.decoder)
            member.likelihood = LIKELIHOODS[self.settings.likelihood].empty(self.n_features)
        self.posterior, self.rare = GammaPosterior(self.n_features), None
        self.to(self.device)

    # ---- what only counts have -------------------------------------------------------------------------------
    @_runtime.one_thread()
    @torch.no_grad()
    def denoise(
        self,
        samples: Samples | StoredSamples,
        measured: np.ndarray,
        columns: np.ndarray,
        *,
        target: np.ndarray | None,
        target_sum: float | None,
        code: np.ndarray | None,
        return_sd: bool,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """See `Autoencoder.denoise`; `target` is the covariate that all cells are given, (1, batches).

        What the cell's own counts say beyond the mean of its own batch is kept: the posterior is multiplied by how much more
        or less the decoder expects in the other batch.
        """
        values = np.empty((len(samples), len(columns)), np.float32)
        sd = np.empty_like(values) if return_sd else None

        def write(rows: slice, batch: Batch, z: Tensor, mu: Tensor) -> None:
            expression = self.posterior.given(mu, batch.counts)
            ratio = self._to_covariate(z, batch, mu, target)
            mean = expression.mean() * ratio
            total = batch.depth if target_sum is None else target_sum * (batch.depth > 0)
            scale = total / mean.sum(1, keepdim=True).clamp_min(1e-30)
            values[rows] = (mean * scale)[:, columns].cpu().numpy()
            if sd is not None:
                spread = self.ensemble.variance(mu, z, batch.depth, batch.covariate)
                sd[rows] = (expression.variance(spread).sqrt_() * ratio * scale)[:, columns].cpu().numpy()

        for _ in self.over_blocks(write, samples, code, measured):
            pass
        return values if sd is None else (values, sd)

    def _to_covariate(self, z: Tensor, batch: Batch, mu: Tensor, target: np.ndarray | None) -> Tensor | float:
        """How many times as much the decoder expects with another covariate, (samples, genes)."""
        if target is None:
            return 1.0
        covariate = torch.as_tensor(target, device=self.device).expand(len(z), -1)
        return self.ensemble.mean(z, batch.depth, covariate) / mu.clamp_min(SMALLEST_MEAN)

    @_runtime.one_thread()
    @torch.no_grad()
    def dropouts(
        self,
        samples: Samples | StoredSamples,
        measured: np.ndarray,
        columns: np.ndarray,
        *,
        depth: float,
        threshold: float,
        code: np.ndarray | None,
    ) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
        """See `Autoencoder.dropouts`."""
        blocks = [sp.csr_matrix((0, len(columns)), dtype=np.float32)]
        by_gene, n_zeros = np.zeros(len(columns)), np.zeros(len(columns))
        by_cell = np.full(len(samples), np.nan)

        def probabilities(rows: slice, batch: Batch, _, mu: Tensor) -> tuple[slice, np.ndarray]:
            probability = self.posterior.given(mu, batch.counts).detection_probability(depth)
            probability[batch.counts.row_index(), batch.counts.columns] = torch.nan  # not zero
            return rows, probability[:, columns].cpu().numpy()

        for rows, values in self.over_blocks(probabilities, samples, code, measured):
            is_zero, p = ~np.isnan(values), np.nan_to_num(values)
            by_gene += p.sum(0)
            n_zeros += is_zero.sum(0)
            by_cell[rows] = np.where(is_zero.any(1), p.sum(1) / np.maximum(is_zero.sum(1), 1), np.nan)
            blocks.append(sp.csr_matrix(np.where(p >= threshold, p, 0)))
        by_gene = np.where(n_zeros > 0, by_gene / np.maximum(n_zeros, 1), np.nan)
        return sp.vstack(blocks, format="csr"), by_gene, by_cell

    def tree(self) -> dict[str, Any]:
        """Weights and buffers by name."""
        return super().tree() | {"posterior": arrays_of(self.posterior)}

    def load_tree(self, tree: Mapping[str, Any]) -> None:
        """Take weights and buffers from a `tree`."""
        super().load_tree(tree)
        load_arrays(self.posterior, tree["posterior"])


def profile(samples: Samples) -> Tensor:
    """Share of each gene in all molecules, (genes,)."""
    share = np.asarray(samples.data.sum(0)).ravel() / samples.data.sum()
    return torch.as_tensor(share, dtype=torch.float32, device=samples.device)
