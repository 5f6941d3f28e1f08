"""Values that are no counts: standardization, held-out entries, residuals.

Matrices are dense, with NaN where an entry is missing, or CSR, in which a stored NaN is a missing entry; batches of them
are dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from aeverse import _runtime, _slots
from aeverse.models._matrix._network import Matrix, NetParts, Network
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._features import Features
from aeverse.models._shared._graph_targets import diffusion_target, significant
from aeverse.nn import LIKELIHOODS, Gaussian, InputLayer, Projection, ValueLikelihood, moments
from aeverse.train import Deviances, Samples, split_entries

MAX_COMPONENTS = 128  # principal components that the encoder reads
N_DECOMPOSED = 5000  # samples from which they are taken
READ_ROWS = 1024  # samples that are standardized at a time


# ---- the data ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Values:
    """A float32 matrix, (samples, features).

    Parameters
    ----------
    x
        Dense, NaN where an entry is missing, or CSR.
    likelihood
        Name of a `aeverse.nn.ValueLikelihood`.
    place
        The user's name of the matrix, for messages.
    """

    x: Matrix
    likelihood: str
    place: str
    absent: ClassVar[str] = "the others are taken to be at their means"  # features of a model that the data lack

    @classmethod
    def read(cls, adata, layer: str | None, likelihood: str) -> Values:
        """Checked values: NaN is allowed, infinite values and those that the likelihood does not allow are not."""
        x, place = _slots.read_matrix(adata, layer), _slots.matrix_name(layer)
        _slots.require_float32(x, place)
        if sp.issparse(x):
            x = sp.csr_matrix(x, dtype=np.float32, copy=True)
            x.sum_duplicates()
        else:
            x = np.array(x, np.float32)
        values = np.asarray(x.data if sp.issparse(x) else x)
        if complaint := LIKELIHOODS[likelihood].complaint(values[np.isfinite(values)], place):
            raise ValueError(complaint)
        return cls(x, likelihood, place)

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: np.ndarray) -> Values:
        return self._with(self.x[rows])

    def _with(self, x: Matrix) -> Values:
        return Values(x, self.likelihood, self.place)

    def require_values(self) -> None:
        """Refuse what nothing can be learned from."""
        if len(self) == 1:  # it is its own mean
            raise ValueError(f"{self.place} holds one sample; pass at least two to learn how they differ.")
        values = self.x.data if sp.issparse(self.x) else self.x
        if 0 in self.x.shape or not np.isfinite(values).any() or np.nanmin(values) == np.nanmax(values) == 0:
            raise ValueError(
                f"{self.place} holds no value other than zero or NaN (shape {self.x.shape}); there is nothing to learn."
            )

    def hold_out(self, share: float, rng: np.random.Generator) -> tuple[Values, Matrix]:
        """The matrix without a share of its entries (NaN), and these: stored ones of a CSR matrix, or all that is not NaN."""
        if isinstance(self.x, np.ndarray):
            heldout, training = split_entries(self.x, share, rng)
            if not np.isfinite(heldout).any():  # a tiny matrix: one entry must do
                one = tuple(np.argwhere(np.isfinite(self.x))[0])
                heldout[one], training[one] = self.x[one], np.nan
            return self._with(training), heldout
        n, p = self.x.shape
        position = np.unique(rng.integers(0, n * p, max(1, int(share * n * p))))
        row, column = position // p, position % p
        chosen = sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=self.x.shape)
        heldout = chosen.copy()
        heldout.data = np.asarray(self.x[row, column], np.float32).ravel()
        return self._with(sp.csr_matrix(self.x - self.x.multiply(chosen) + chosen * np.float32(np.nan))), heldout

    def in_memory(self, values: np.ndarray | None) -> np.ndarray | None:
        """Of values for all samples, those for the samples in memory: all."""
        return values

    def choose_inputs(self, n_inputs: int) -> np.ndarray:
        """Features that the encoder reads where no mask says which: all of them."""
        return np.arange(self.x.shape[1])

    def columns(self, positions: np.ndarray | None) -> Values:
        """Columns in another order, missing ones (NaN) for -1; None: as they are."""
        if positions is None:
            return self
        if (positions >= 0).all():
            x = self.x[:, positions] if isinstance(self.x, np.ndarray) else sp.csr_matrix(self.x.tocsc()[:, positions])
            return self._with(x)
        dense = self.x if isinstance(self.x, np.ndarray) else self.x.toarray()
        return self._with(np.where(positions >= 0, dense[:, positions], np.nan).astype(np.float32))

    def samples(self, inputs: np.ndarray, covariate: np.ndarray | None, device: torch.device) -> Samples:
        """The samples, to be given out as batches."""
        return Samples(self.x, input_features=inputs, covariate=covariate, dense=True, device=device)

    def net_parts(
        self, settings: Settings, training: Samples, whole: Any, input_layer: InputLayer | None = None
    ) -> NetParts:
        """What of a net depends on these values; `training`: without those held out; `input_layer`: of a model to start from."""
        kind = value_likelihood(settings.likelihood)
        likelihood, bias = kind.start(training.data)
        if input_layer is None:
            input_layer = _projected(kind.input_layer.of(training.inputs), training, settings)
        return NetParts(input_layer, likelihood, bias)

    def graph_target(
        self,
        samples: Samples,
        features: Features,
        parts: NetParts,
        settings: Settings,
        batches: np.ndarray | None,
        mask: np.ndarray | None,
    ) -> np.ndarray:
        """What the leading dimensions of the code are to predict of each sample."""
        assert parts.input_layer is not None
        return diffusion_target(samples, parts.input_layer, settings.n_guided, batches)


# ---- parts of nets ---------------------------------------------------------------------------------------------------
@torch.no_grad()
def _projected(inner: InputLayer, samples: Samples, settings: Settings) -> Projection:
    """The input layer behind which stand its principal components: those above noise, and one for each dimension of the code."""
    rows = np.sort(np.random.default_rng(settings.random_state).permutation(len(samples))[:N_DECOMPOSED])
    blocks = [samples.batch(rows[a : a + READ_ROWS]).x for a in range(0, len(rows), READ_ROWS)]
    y = np.vstack([inner.to(samples.device)(x).cpu().numpy() for x in blocks])
    center, axes, spread = significant(y, fewest=settings.n_latent, most=MAX_COMPONENTS)
    return Projection(inner.cpu(), torch.from_numpy(center), torch.from_numpy(axes), 1 / spread)


def empty_parts(settings: Settings, n_features: int, n_inputs: int, n_components: int) -> NetParts:
    """Parts to load weights into."""
    kind, zeros = value_likelihood(settings.likelihood), partial(torch.zeros, dtype=torch.float32)
    inner = kind.input_layer.empty(n_inputs)
    input_layer = Projection(inner, zeros(inner.n_outputs), zeros(inner.n_outputs, n_components), 1.0)
    return NetParts(input_layer, kind.empty(n_features), np.zeros(n_features))


def value_likelihood(name: str) -> type[ValueLikelihood]:
    """The likelihood of a name, which is known to be one of values that are no counts."""
    likelihood = LIKELIHOODS[name]
    assert issubclass(likelihood, ValueLikelihood)
    return likelihood


# ---- the network -----------------------------------------------------------------------------------------------------
class ValueNetwork(Network):
    """An ensemble whose mean is what is expected."""

    @torch.no_grad()
    def refresh(self, samples: Samples, *, quick: bool = False) -> None:
        """Fit what the decoder leaves of each feature's standard deviation, which `Autoencoder.sample` draws; not if `quick`."""
        likelihood = self.ensemble.members[0].likelihood
        if quick or not isinstance(likelihood, Gaussian):
            return
        deviance, n_present = torch.zeros_like(likelihood.scale), torch.zeros_like(likelihood.scale)
        for _, batch, _, mean in self.means(samples):
            deviance += likelihood.deviance(batch.values, mean)
            n_present += (~torch.isnan(batch.values)).sum(0)
        residual = (deviance / n_present.clamp_min(1)).sqrt()
        for member in self.ensemble.members:
            member.likelihood.get_buffer("residual").copy_(residual)

    @_runtime.one_thread()
    @torch.no_grad()
    def deviances(self, samples: Samples, heldout: Matrix) -> Deviances:
        """Of the held-out entries: from the decoder's mean, and from the mean that it started from."""
        likelihood, null_mean = self.ensemble.members[0].likelihood, self._null_mean()
        model = torch.zeros(heldout.shape[1], dtype=torch.float64, device=self.device)
        null, n_entries = torch.zeros_like(model), torch.zeros_like(model)
        for rows, _, _, mean in self.means(samples):
            x = torch.as_tensor(_entries(heldout[rows]), device=self.device)
            model += likelihood.deviance(x, mean)
            null += likelihood.deviance(x, null_mean.expand_as(x))
            n_entries += (~torch.isnan(x)).sum(0)
        return Deviances(*(total.cpu().numpy() for total in (model, null, n_entries)))

    @torch.no_grad()
    def null_loss(self, samples: Samples) -> float:
        """Half the deviance of a sample from the mean that the decoder starts from."""
        likelihood, null_mean, deviance = self.ensemble.members[0].likelihood, self._null_mean(), 0.0
        for _, batch in samples.blocks(self.block_rows):
            deviance += float(likelihood.deviance(batch.values, null_mean.expand_as(batch.values)).sum())
        return 0.5 * deviance / max(len(samples), 1)

    def rotate(self, samples: Samples) -> None:
        """By the information of the mean sample, and how the codes of the samples spread."""
        mean = torch.as_tensor(moments(samples.data)[0], device=self.device)
        codes = np.split(self.encode(samples), len(self.ensemble.members), 1)
        for member, code in zip(self.ensemble.members, codes, strict=True):
            covariance = np.cov(code.T.astype(np.float64)).reshape(code.shape[1], -1)
            member.rotate_to_information(
                mean, self.settings.recipe.rotation_power, torch.as_tensor(covariance, device=self.device)
            )

    def _null_mean(self) -> Tensor:
        member = self.ensemble.members[0]
        weight = member.decoder.weight
        return member.likelihood.mean(weight.new_zeros(1, weight.shape[1]), weight, member.decoder.initial_bias)


def _entries(heldout: Matrix) -> np.ndarray:
    """Held-out entries as a dense block, NaN everywhere else."""
    if isinstance(heldout, np.ndarray):
        return heldout
    block = np.full(heldout.shape, np.nan, np.float32)
    block[np.repeat(np.arange(heldout.shape[0]), np.diff(heldout.indptr)), heldout.indices] = heldout.data
    return block
