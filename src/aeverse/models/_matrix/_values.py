"""Values that are no counts: standardisation, held-out entries, residuals.

Matrices are dense, with NaN where an entry is missing, or CSR, in which a stored NaN is a missing entry; batches of them
are dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from aeverse import _settings, _slots
from aeverse.models._matrix._network import Matrix, NetParts, Network
from aeverse.models._matrix._settings import Settings
from aeverse.models._shared._features import Features
from aeverse.models._shared._graph_targets import diffusion_target, significant
from aeverse.nn import (
    Bernoulli,
    BinaryInput,
    DenseInput,
    Gaussian,
    InputLayer,
    Likelihood,
    LogitGaussian,
    LogitInput,
    Projection,
)
from aeverse.train import Deviances, Samples, split_entries

MAX_COMPONENTS = 128  # principal components that the encoder reads
N_DECOMPOSED = 5000  # samples from which they are taken
SMALLEST_SD = 1e-6  # a feature that varies less is constant
BURDEN_SHARE = 0.05  # of the variance of binary inputs that the number of ones is given
READ_ROWS = 1024  # samples that are standardised at a time


# ---- the data ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Values:
    """A float32 matrix, (samples, features).

    Parameters
    ----------
    x
        Dense, NaN where an entry is missing, or CSR.
    likelihood
        ``"gaussian"``, ``"bernoulli"`` or ``"fractions"``.
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
        x, place = _slots.read_matrix(adata, layer), _slots.place(layer)
        if np.isinf(x.data if sp.issparse(x) else x).any():
            raise ValueError(f"{place} holds infinite values; set what is missing to NaN.")
        if sp.issparse(x):
            x = sp.csr_matrix(x, dtype=np.float32, copy=True)
            x.sum_duplicates()
        else:
            x = np.array(x, np.float32)
        _check_range(np.asarray(x.data if sp.issparse(x) else x), likelihood, place)
        return cls(x, likelihood, place)

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: np.ndarray) -> Values:
        return self._with(self.x[rows])

    def _with(self, x: Matrix) -> Values:
        return Values(x, self.likelihood, self.place)

    def require_values(self) -> None:
        """Refuse what nothing can be learnt from."""
        values = self.x.data if sp.issparse(self.x) else self.x
        if 0 in self.x.shape or not np.isfinite(values).any() or np.nanmin(values) == np.nanmax(values) == 0:
            raise ValueError(
                f"{self.place} holds no value other than zero or NaN (shape {self.x.shape}); there is nothing to learn."
            )

    def hold_out(self, share: float, rng: np.random.Generator) -> tuple[Values, Matrix]:
        """The matrix without a share of its entries (NaN), and these: stored ones of a CSR matrix, or all that is not NaN."""
        if isinstance(self.x, np.ndarray):
            heldout, seen = split_entries(self.x, share, rng)
            if not np.isfinite(heldout).any():  # a tiny matrix: one entry must do
                one = tuple(np.argwhere(np.isfinite(self.x))[0])
                heldout[one], seen[one] = self.x[one], np.nan
            return self._with(seen), heldout
        n, p = self.x.shape
        position = np.unique(rng.integers(0, n * p, max(1, int(share * n * p))))
        row, column = position // p, position % p
        chosen = sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=self.x.shape)
        heldout = chosen.copy()
        heldout.data = np.asarray(self.x[row, column], np.float32).ravel()
        return self._with(sp.csr_matrix(self.x - self.x.multiply(chosen) + chosen * np.float32(np.nan))), heldout

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

    def net_parts(self, settings: Settings, seen: Samples, input_layer: InputLayer | None = None) -> NetParts:
        """What of a net depends on these values, of which training sees `seen`; `input_layer`: of a model to start from."""
        inner: InputLayer
        if settings.likelihood == "bernoulli":
            mean, _ = moments(seen.data)
            frequency = np.clip(mean, 0.5 / (len(seen) + 1), 1 - 0.5 / (len(seen) + 1))
            bias, likelihood = np.log(frequency / (1 - frequency)), new_likelihood("bernoulli")
            inner = _binary_input(seen) if input_layer is None else input_layer
        else:
            fractions = settings.likelihood == "fractions"
            values = torch.logit(torch.tensor(seen.data), eps=LogitInput.edge).numpy() if fractions else seen.data
            mean, sd = moments(values)
            constant, bias = sd < SMALLEST_SD, np.zeros(len(mean))
            unit = np.where(constant, 1, sd).astype(np.float32)
            likelihood = new_likelihood(settings.likelihood, torch.from_numpy(mean), torch.from_numpy(unit))
            inputs = slice(None) if seen.input_features is None else seen.input_features
            width = np.where(constant, np.inf, sd).astype(np.float32)[inputs]
            inner = (LogitInput if fractions else DenseInput)(torch.from_numpy(mean[inputs]), torch.from_numpy(width))
        return NetParts(_projected(inner, seen, settings) if input_layer is None else input_layer, likelihood, bias)

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


def _check_range(values: np.ndarray, likelihood: str, place: str) -> None:
    """Refuse values that a likelihood does not allow."""
    values = values[np.isfinite(values)]
    if likelihood == "bernoulli" and not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise ValueError(f"likelihood='bernoulli' needs 0 and 1, but {place} holds values such as {odd:.4g}.")
    if likelihood == "fractions" and values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"likelihood='fractions' needs values between 0 and 1, but {place} spans {values.min():.4g} to "
            f"{values.max():.4g}; divide percentages by 100, or use likelihood='gaussian' for M-values."
        )


def moments(x: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float32, missing entries left out."""
    if not isinstance(x, np.ndarray):
        missing = sp.csr_matrix((np.isnan(x.data).astype(np.float64), x.indices, x.indptr), shape=x.shape)
        n_present = np.maximum(x.shape[0] - np.asarray(missing.sum(0)).ravel(), 1)
        values = sp.csr_matrix((np.nan_to_num(x.data).astype(np.float64), x.indices, x.indptr), shape=x.shape)
        mean = np.asarray(values.sum(0)).ravel() / n_present
        variance = np.asarray(values.multiply(values).sum(0)).ravel() / n_present - mean**2
    else:
        n_present = np.maximum(np.isfinite(x).sum(0), 1)
        mean = np.nansum(x, 0, dtype=np.float64) / n_present
        variance = np.nansum((x - mean) ** 2, 0, dtype=np.float64) / n_present
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)


# ---- parts of nets ---------------------------------------------------------------------------------------------------
@torch.no_grad()
def _projected(inner: InputLayer, samples: Samples, settings: Settings) -> Projection:
    """The input layer behind which stand its principal components: those above noise, and one for each dimension of the code."""
    rows = np.sort(np.random.default_rng(settings.random_state).permutation(len(samples))[:N_DECOMPOSED])
    blocks = [samples.batch(rows[a : a + READ_ROWS]).x for a in range(0, len(rows), READ_ROWS)]
    y = np.vstack([inner.to(samples.device)(x).cpu().numpy() for x in blocks])
    center, axes, spread = significant(y, fewest=settings.n_latent, most=MAX_COMPONENTS)
    return Projection(inner.cpu(), torch.from_numpy(center), torch.from_numpy(axes), 1 / spread)


def _binary_input(samples: Samples) -> BinaryInput:
    total = squares = torch.zeros(1, dtype=torch.float64, device=samples.device)
    burdens, n = [], len(samples)
    for _, batch in samples.blocks(READ_ROWS):
        assert isinstance(batch.x, Tensor)
        profile, burden = BinaryInput.profile(batch.x)
        total, squares = total + profile.double().sum(0), squares + profile.double().square().sum()
        burdens.append(burden)
    mean, burden = total / n, torch.cat(burdens)
    variance = max(float(squares / n - mean.square().sum()), 1e-9)
    n_features = len(mean)
    spread = max(float(burden.std(correction=0)), 1e-3) / (BURDEN_SHARE * n_features) ** 0.5
    return BinaryInput(mean.float().cpu(), (n_features / variance) ** 0.5, (float(burden.mean()), spread))


def new_likelihood(likelihood: str, mean: Tensor | None = None, sd: Tensor | None = None) -> Likelihood:
    """Bernoulli, or one that standardises by moments."""
    if likelihood == "bernoulli":
        return Bernoulli()
    assert mean is not None
    assert sd is not None
    return (LogitGaussian if likelihood == "fractions" else Gaussian)(mean, sd)


def empty_parts(settings: Settings, n_features: int, n_inputs: int, n_components: int) -> NetParts:
    """Parts to load weights into."""
    zeros = partial(torch.zeros, dtype=torch.float32)
    likelihood = new_likelihood(settings.likelihood, zeros(n_features), zeros(n_features) + 1)
    zero, width = zeros(n_inputs), n_inputs + (settings.likelihood == "bernoulli")
    inner: InputLayer
    if settings.likelihood == "bernoulli":
        inner = BinaryInput(zero, 1.0, (0.0, 1.0))
    else:
        inner = (LogitInput if settings.likelihood == "fractions" else DenseInput)(zero, zero + 1)
    input_layer = Projection(inner, zeros(width), zeros(width, n_components), 1.0)
    return NetParts(input_layer, likelihood, np.zeros(n_features))


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

    @_settings.one_thread()
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
            member.orient(mean, self.settings.recipe.rotation_power, torch.as_tensor(covariance, device=self.device))

    def _null_mean(self) -> Tensor:
        member = self.ensemble.members[0]
        weight = member.decoder.weight
        return member.likelihood.mean(weight.new_zeros(1, weight.shape[1]), weight, member.decoder.start)


def _entries(heldout: Matrix) -> np.ndarray:
    """Held-out entries as a dense block, NaN everywhere else."""
    if isinstance(heldout, np.ndarray):
        return heldout
    block = np.full(heldout.shape, np.nan, np.float32)
    block[np.repeat(np.arange(heldout.shape[0]), np.diff(heldout.indptr)), heldout.indices] = heldout.data
    return block
