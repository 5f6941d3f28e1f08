"""What an `Autoencoder` does with values that are no counts: standardisation, held-out entries, residuals.

``_counts.py`` answers the same questions for counts. Matrices are dense, with NaN where an entry is missing, or CSR, in
which a stored NaN is a missing entry; batches of them are dense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

from aeverse import _slots
from aeverse.models._guide import significant
from aeverse.nn import Bernoulli, BinaryInput, DenseInput, Gaussian, LogitGaussian, LogitInput, Projection
from aeverse.train import Samples, split_entries

if TYPE_CHECKING:
    from aeverse.models._autoencoder import Autoencoder, Config

ABSENT = "the others are taken to be at their means"
MAX_COMPONENTS = 128  # principal components that the encoder reads
N_DECOMPOSED = 5000  # samples from which they are taken
N_JUDGED = 1000  # samples whose held-out entries are looked at while training
SMALLEST_SD = 1e-6  # a feature that varies less is constant
BURDEN_SHARE = 0.05  # of the variance of binary inputs that the number of ones is given
EMPHASIS = 0.5  # distances between codes are divergences, see `AutoencoderNet.orient`


# ---- reading ---------------------------------------------------------------------------------------------------
def read(adata, layer: str | None) -> sp.csr_matrix | np.ndarray:
    """A float32 matrix; NaN is allowed, infinite values are not."""
    x = _slots.read_matrix(adata, layer)
    if np.isinf(x.data if sp.issparse(x) else x).any():
        raise ValueError(f"{_slots.place(layer)} holds infinite values; set what is missing to NaN.")
    if not sp.issparse(x):
        return np.array(x, np.float32)
    x = sp.csr_matrix(x, dtype=np.float32, copy=True)
    x.sum_duplicates()
    return x


def check_range(x: sp.csr_matrix | np.ndarray, likelihood: str, place: str) -> None:
    """Refuse values that a likelihood does not allow."""
    values = np.asarray(x.data if sp.issparse(x) else x)
    values = values[np.isfinite(values)]
    if likelihood == "bernoulli" and not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise ValueError(f"likelihood='bernoulli' needs 0 and 1, but {place} holds values such as {odd:.4g}.")
    if likelihood == "fractions" and values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"likelihood='fractions' needs values between 0 and 1, but {place} spans {values.min():.4g} to "
            f"{values.max():.4g}; divide percentages by 100, or use likelihood='gaussian' for M-values."
        )


def match(x: sp.csr_matrix | np.ndarray, where: np.ndarray) -> sp.csr_matrix | np.ndarray:
    """Columns `where` of a matrix, missing ones (NaN) for -1."""
    if (where >= 0).all():
        return sp.csr_matrix(x.tocsc()[:, where]) if sp.issparse(x) else x[:, where]
    dense = x.toarray() if sp.issparse(x) else x
    return np.where(where >= 0, dense[:, where], np.nan).astype(np.float32)


def check(x: sp.csr_matrix | np.ndarray, likelihood: str, place: str) -> None:
    """Refuse what nothing can be learnt from, or what the likelihood does not allow."""
    check_range(x, likelihood, place)
    values = x.data if sp.issparse(x) else x
    if 0 in x.shape or not np.isfinite(values).any() or np.nanmin(values) == np.nanmax(values) == 0:
        raise ValueError(f"{place} holds no value other than zero or NaN (shape {x.shape}); there is nothing to learn.")


def hold_out(x: sp.csr_matrix | np.ndarray, share: float, rng: np.random.Generator, place: str):
    """The matrix without a share of its entries, and these: stored ones of a CSR matrix, or all that is not NaN."""
    if not sp.issparse(x):
        heldout, seen = split_entries(x, share, rng)
        if not np.isfinite(heldout).any():  # a tiny matrix: one entry must do as a judge
            one = tuple(np.argwhere(np.isfinite(x))[0])
            heldout[one], seen[one] = x[one], np.nan
        return seen, heldout
    n, p = x.shape
    position = np.unique(rng.integers(0, n * p, max(1, int(share * n * p))))
    row, column = position // p, position % p
    chosen = sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=x.shape)
    heldout = chosen.copy()
    heldout.data = np.asarray(x[row, column], np.float32).ravel()
    return sp.csr_matrix(x - x.multiply(chosen) + chosen * np.float32(np.nan)), heldout


def choose_inputs(seen: sp.csr_matrix | np.ndarray, n_inputs: int) -> np.ndarray:
    """Features that the encoder reads where no mask says which: all of them."""
    return np.arange(seen.shape[1])


def samples_of(x: sp.csr_matrix | np.ndarray, **options: Any) -> Samples:
    """The samples, to be given out as batches."""
    return Samples(x, dense=True, **options)


# ---- the net ---------------------------------------------------------------------------------------------------
def parts(settings: Config, seen: Samples, whole) -> tuple[torch.nn.Module, torch.nn.Module, np.ndarray]:
    """Input layer, likelihood, and the bias that the decoder starts from: the mean sample."""
    inputs = slice(None) if seen.input_features is None else seen.input_features
    if settings.likelihood == "bernoulli":
        mean, _ = moments(seen.data)
        frequency = np.clip(mean, 0.5 / (len(seen) + 1), 1 - 0.5 / (len(seen) + 1))
        bias = np.log(frequency / (1 - frequency))
        return _projected(_binary_input(seen), seen, settings), Bernoulli(), bias
    fractions = settings.likelihood == "fractions"
    mean, sd = moments(torch.logit(torch.tensor(seen.data), eps=LogitInput.edge).numpy() if fractions else seen.data)
    constant = sd < SMALLEST_SD
    read = [torch.from_numpy(a[inputs]) for a in (mean, np.where(constant, np.inf, sd).astype(np.float32))]
    unit = torch.from_numpy(mean), torch.from_numpy(np.where(constant, 1, sd).astype(np.float32))
    likelihood = (LogitGaussian if fractions else Gaussian)(*unit)
    return _projected((LogitInput if fractions else DenseInput)(*read), seen, settings), likelihood, np.zeros(len(mean))


@torch.no_grad()
def _projected(inner: torch.nn.Module, samples: Samples, settings: Config) -> Projection:
    """The input layer behind which stand its principal components: those above noise, and one for each dimension of the code."""
    rows = np.sort(np.random.default_rng(settings.random_state).permutation(len(samples))[:N_DECOMPOSED])
    blocks = [samples.batch(rows[a : a + 1024]).x for a in range(0, len(rows), 1024)]
    y = np.vstack([inner.to(samples.device)(x).cpu().numpy() for x in blocks])
    centre, axes, spread = significant(y, fewest=settings.n_latent, most=MAX_COMPONENTS)
    return Projection(inner.cpu(), torch.from_numpy(centre), torch.from_numpy(axes), 1 / spread)


def _binary_input(samples: Samples) -> BinaryInput:
    total = squares = torch.zeros(1, dtype=torch.float64, device=samples.device)
    burdens, n = [], len(samples)
    for _, batch in samples.blocks(1024):
        profile, burden = BinaryInput.profile(batch.x)
        total, squares = total + profile.double().sum(0), squares + profile.double().square().sum()
        burdens.append(burden)
    mean, burden = total / n, torch.cat(burdens)
    variance = max(float(squares / n - mean.square().sum()), 1e-9)
    n_features = len(mean)
    spread = max(float(burden.std(correction=0)), 1e-3) / (BURDEN_SHARE * n_features) ** 0.5
    return BinaryInput(mean.float().cpu(), (n_features / variance) ** 0.5, (float(burden.mean()), spread))


def empty_input(likelihood: str, n_inputs: int, n_columns: int) -> Projection:
    """An input layer to load weights into."""
    zero, width = torch.zeros(n_inputs), n_inputs + (likelihood == "bernoulli")
    inner: torch.nn.Module
    if likelihood == "bernoulli":
        inner = BinaryInput(zero, 1.0, (0.0, 1.0))
    else:
        inner = (LogitInput if likelihood == "fractions" else DenseInput)(zero, zero + 1)
    return Projection(inner, torch.zeros(width), torch.zeros(width, n_columns), 1.0)


def new_likelihood(likelihood: str, n_features: int) -> torch.nn.Module:
    """A likelihood to load weights into."""
    if likelihood == "bernoulli":
        return Bernoulli()
    return (LogitGaussian if likelihood == "fractions" else Gaussian)(torch.zeros(n_features), torch.ones(n_features))


def moments(x: sp.csr_matrix | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float32, missing entries left out."""
    if sp.issparse(x):
        missing = sp.csr_matrix((np.isnan(x.data).astype(np.float64), x.indices, x.indptr), shape=x.shape)
        there = np.maximum(x.shape[0] - np.asarray(missing.sum(0)).ravel(), 1)
        values = sp.csr_matrix((np.nan_to_num(x.data).astype(np.float64), x.indices, x.indptr), shape=x.shape)
        mean = np.asarray(values.sum(0)).ravel() / there
        square = np.asarray(values.multiply(values).sum(0)).ravel() / there
        variance = square - mean**2
    else:
        there = np.maximum(np.isfinite(x).sum(0), 1)
        mean = np.nansum(x, 0, dtype=np.float64) / there
        variance = np.nansum((x - mean) ** 2, 0, dtype=np.float64) / there
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)


def new_posterior(model: Autoencoder, n_features: int) -> None:
    """None: only counts have one."""


def information(samples: Samples) -> None:
    """None: the precision is the same for all features."""


def pool(settings: Config, seen: Samples, bias: np.ndarray) -> None:
    """None: only counts have rare features."""


# ---- judging ---------------------------------------------------------------------------------------------------
def judge(model: Autoencoder, samples: Samples, heldout, rows: np.ndarray) -> float:
    """Deviance of held-out entries explained by the decoder's mean."""
    lost, null = deviances(model, samples, heldout, rows)
    return float(1 - lost.sum() / null.sum()) if null.sum() > 0 else 0.0


def finish(model: Autoencoder, samples: Samples, heldout, rng: np.random.Generator) -> None:
    """Orient the code, take the residuals, and judge on all samples."""
    codes = model._encode(samples)
    mean = torch.as_tensor(moments(samples.data)[0], device=model.device)
    for member, own in zip(model.net.members, np.split(codes, len(model.net.members), 1), strict=True):
        if model.is_free_to_turn:
            covariance = torch.as_tensor(
                np.cov(own.T.astype(np.float64)).reshape(own.shape[1], -1), device=model.device
            )
            member.orient(mean, EMPHASIS, covariance)
    if hasattr(model.net.members[0].likelihood, "residual"):
        _take_residuals(model, samples)
    lost, null = deviances(model, samples, heldout, np.arange(len(samples)))
    model.deviance_explained = np.where(null > 0, 1 - lost / np.where(null > 0, null, 1), np.nan)
    model.heldout_deviance_explained = float(1 - lost.sum() / null.sum()) if null.sum() > 0 else 0.0


@torch.no_grad()
def _take_residuals(model: Autoencoder, samples: Samples) -> None:
    """What the decoder leaves of each feature's standard deviation, for `Autoencoder.sample`."""
    likelihood = model.net.members[0].likelihood
    lost, there = torch.zeros_like(likelihood.scale), torch.zeros_like(likelihood.scale)
    for _, batch in samples.blocks(model._block_size()):
        lost += likelihood.deviance(batch.target, model.net.mean(model.net.encode(batch), None, batch.covariate))
        there += (~torch.isnan(batch.target)).sum(0)
    for member in model.net.members:
        member.likelihood.residual.copy_((lost / there.clamp_min(1)).sqrt())


@torch.no_grad()
def deviances(model: Autoencoder, samples: Samples, heldout, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deviances of the held-out entries by feature: of the decoder's mean, and of the feature means."""
    likelihood, null_mean = model.net.members[0].likelihood, _null_mean(model)
    lost = torch.zeros(heldout.shape[1], dtype=torch.float64, device=model.device)
    null = torch.zeros_like(lost)
    size = model._block_size()
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        batch = samples.batch(own)
        x = torch.as_tensor(_entries(heldout[own]), device=model.device)
        lost += likelihood.deviance(x, model.net.mean(model.net.encode(batch), None, batch.covariate))
        null += likelihood.deviance(x, null_mean.expand_as(x))
    return lost.cpu().numpy(), null.cpu().numpy()


@torch.no_grad()
def null_loss(model: Autoencoder, samples: Samples) -> float:
    """Half the deviance of a sample from the feature means: what penalties are measured against."""
    likelihood, null_mean, lost = model.net.members[0].likelihood, _null_mean(model), 0.0
    for _, batch in samples.blocks(model._block_size()):
        lost += float(likelihood.deviance(batch.target, null_mean.expand_as(batch.target)).sum())
    return 0.5 * lost / max(len(samples), 1)


def _null_mean(model: Autoencoder) -> torch.Tensor:
    member = model.net.members[0]
    weight = member.decoder.weight
    return member.likelihood.mean(weight.new_zeros(1, weight.shape[1]), weight, member.decoder.start)  # type: ignore[call-overload, index]


def _entries(heldout) -> np.ndarray:
    """Held-out entries as a dense block, NaN everywhere else."""
    if not sp.issparse(heldout):
        return heldout
    block = np.full(heldout.shape, np.nan, np.float32)
    block[np.repeat(np.arange(heldout.shape[0]), np.diff(heldout.indptr)), heldout.indices] = heldout.data
    return block
