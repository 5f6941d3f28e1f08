"""What an `Autoencoder` does with counts only: library sizes, held-out molecules, dispersions, the posterior.

``_values.py`` answers the same questions for everything that is no count: `read`, `match`, `choose_inputs`, `hold_out`,
`samples_of`, `parts`, `pool`, `information`, `judge`, `finish`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse import _slots
from aeverse.models._genes import log_normalized_moments, overdispersed
from aeverse.models._pool import Pool
from aeverse.nn import Batch, Calibration, CountInput, GammaPosterior, NegativeBinomial, Poisson, Rows
from aeverse.train import Samples, split_molecules

if TYPE_CHECKING:
    from aeverse.models._autoencoder import Autoencoder, Config

ABSENT = "the others count as zero"
NO_COUNTS = -1e4  # logit of a gene without molecules: its mean is exactly zero
N_JUDGED = 300  # cells whose held-out molecules are looked at after each epoch
DISPERSION_CELLS = 5000  # cells from which the final dispersions are fitted
CODE_VARIANCE = 0.7  # of one dimension, about, where LayerNorm has made codes of mean square one
EMPHASIS = 0.35  # of the directions in which profiles differ more, see `AutoencoderNet.orient`


# ---- reading ---------------------------------------------------------------------------------------------------
def read(adata, layer: str | None) -> sp.csr_matrix:
    """Checked counts."""
    return _slots.read_counts(adata, layer)


def match(counts: sp.csr_matrix, where: np.ndarray) -> sp.csr_matrix:
    """Columns `where` of the counts, empty ones for -1."""
    columns = counts.tocsc()[:, where[where >= 0]].tocoo()
    positions = np.flatnonzero(where >= 0)[columns.col]
    return sp.csr_matrix((columns.data, (columns.row, positions)), shape=(counts.shape[0], len(where)))


def check_range(counts: sp.csr_matrix, likelihood: str, place: str) -> None:
    """Nothing: `read` takes counts only."""


def check(counts: sp.csr_matrix, likelihood: str, place: str) -> None:
    """Refuse what nothing can be learnt from."""
    if counts.nnz == 0:
        raise ValueError(f"{place} holds no counts (shape {counts.shape}); there is nothing to learn.")


def hold_out(counts: sp.csr_matrix, share: float, rng: np.random.Generator, place: str):
    """Counts to learn from, and a share of the molecules that training does not see."""
    seen, heldout = split_molecules(counts, 1 - share, rng)
    if seen.nnz == 0:
        raise ValueError(f"{place} holds {int(counts.sum())} molecules, too few to learn from.")
    return seen, heldout


def choose_inputs(seen: sp.csr_matrix, n_inputs: int) -> np.ndarray:
    """Genes that the encoder reads where no mask says which."""
    return overdispersed(seen, n_inputs)


def samples_of(counts: sp.csr_matrix, **options: Any) -> Samples:
    """The cells, to be given out as batches."""
    return Samples(counts, library=np.asarray(counts.sum(1), np.float32).ravel(), **options)


# ---- the net ---------------------------------------------------------------------------------------------------
def parts(settings: Config, seen: Samples, whole: sp.csr_matrix) -> tuple[CountInput, torch.nn.Module, np.ndarray]:
    """Input layer, likelihood, and the bias that the decoder starts from: the mean profile."""
    library = seen.library
    median = float(np.median(library[library > 0]))
    mean, sd = log_normalized_moments(seen.inputs, library, median)
    molecules = np.asarray(seen.data.sum(0), np.float64).ravel()
    # a gene of which all molecules are held out is rare, one without molecules is absent
    expressed = np.asarray(whole.sum(0)).ravel() > 0
    bias = np.where(expressed, np.log(np.maximum(molecules, 0.5) / molecules.sum()), NO_COUNTS)
    return (
        CountInput(torch.from_numpy(mean), torch.from_numpy(sd), median),
        new_likelihood(settings.likelihood, len(bias)),
        bias,
    )


def pool(settings: Config, seen: Samples, bias: np.ndarray) -> Pool | None:
    """Rare genes that share an output while training; none where gene sets say which gene belongs to which dimension."""
    assert settings.prior_precision is not None
    return None if settings.gene_sets else Pool.of(seen.data, bias, settings.prior_precision)


def empty_input(likelihood: str, n_inputs: int, n_columns: int) -> CountInput:
    """An input layer to load weights into."""
    return CountInput(torch.zeros(n_inputs), torch.ones(n_inputs), 1.0)


def new_likelihood(likelihood: str, n_features: int) -> torch.nn.Module:
    """Negative binomial or Poisson."""
    return NegativeBinomial(n_features) if likelihood == "nb" else Poisson()


def null_loss(model: Autoencoder, samples: Samples) -> float:
    """Half the deviance of a sample from the mean profile: what penalties are measured against."""
    frequency, lost = _frequency(samples), 0.0
    for _, batch in samples.blocks(model._block_size()):
        lost += float(Poisson.deviance(batch.target.to_dense(), batch.library * frequency).sum())
    return 0.5 * lost / max(len(samples), 1)


# ---- judging ---------------------------------------------------------------------------------------------------
def judge(model: Autoencoder, samples: Samples, heldout: sp.csr_matrix, cells: np.ndarray) -> float:
    """Deviance of held-out molecules explained by the posterior mean, with dispersions for the present weights."""
    samples, heldout = samples.some(cells), heldout[cells]
    code = model._encode(samples)
    fit_posterior(model, samples, code, quick=True)
    lost, null = deviances(model, samples, heldout, code)
    return float(1 - lost.sum() / null.sum()) if null.sum() > 0 else 0.0


def finish(model: Autoencoder, samples: Samples, heldout: sp.csr_matrix, rng: np.random.Generator) -> None:
    """Orient the code, fit the dispersions, and judge on all cells."""
    if model.is_free_to_turn:
        for member in model.net.members:
            member.orient(_frequency(samples), EMPHASIS)
    code, cells = model._encode(samples), np.sort(rng.permutation(len(samples))[:DISPERSION_CELLS])
    fit_posterior(model, samples.some(cells), code[cells])
    model.posterior.calibration.frequency.copy_(_frequency(samples))
    lost, null = deviances(model, samples, heldout, code, model.posterior.calibration)
    model.posterior.calibration.fit()  # after the deviances, which are those of molecules that nothing has seen
    molecules = np.asarray(heldout.sum(0)).ravel()
    model.deviance_explained = np.where((molecules > 0) & (null > 0), 1 - lost / np.where(null > 0, null, 1), np.nan)
    model.heldout_deviance_explained = float(1 - lost.sum() / null.sum()) if null.sum() > 0 else 0.0


@torch.no_grad()
def fit_posterior(model: Autoencoder, samples: Samples, code: np.ndarray, **options: Any) -> None:
    """Dispersions for the present weights; training goes on with them too."""
    model.posterior.fit(lambda: ((batch.target, mu) for _, batch, mu in _means(model, samples, code)), **options)
    for member in model.net.members:
        if member.likelihood.dispersion is not None:
            member.likelihood.dispersion.copy_(model.posterior.constant_theta)


def information(samples: Samples) -> torch.Tensor:
    """What the counts say of a loading of each gene, 1 / variance, (genes, 1)."""
    molecules = np.asarray(samples.data.sum(0), np.float32).ravel()
    return torch.as_tensor(molecules * CODE_VARIANCE, device=samples.device)[:, None]


def new_posterior(model: Autoencoder, n_features: int) -> GammaPosterior:
    """Dispersions to be fitted."""
    return GammaPosterior(n_features).to(model.device)


def _means(model: Autoencoder, samples: Samples, code: np.ndarray) -> Iterator[tuple[slice, Batch, torch.Tensor]]:
    """Blocks of cells: which, their batch and the means of their codes."""
    for rows, batch in samples.blocks(model._block_size()):
        z = torch.as_tensor(code[rows], device=model.device)
        yield rows, batch, model.net.mean(z, batch.library, batch.covariate)


@torch.no_grad()
def deviances(
    model: Autoencoder,
    samples: Samples,
    heldout: sp.csr_matrix,
    code: np.ndarray,
    calibration: Calibration | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Poisson deviances of the held-out molecules by gene: of the posterior mean, and of the gene means.

    A `calibration` is told of both on the way.
    """
    share = float(heldout.sum() / samples.data.sum())
    frequency = _frequency(samples)
    judged = frequency > 0  # of a gene that was never seen, even the gene mean says nothing
    lost = torch.zeros(len(frequency), dtype=torch.float64, device=model.device)
    null = torch.zeros_like(lost)
    for rows, batch, mu in _means(model, samples, code):
        x = Rows.from_scipy(heldout[rows], model.device)
        expected = model.posterior.given(mu, batch.target).mean()
        if calibration is not None:
            calibration.add(expected, mu.sum(1, keepdim=True), batch.target, x, share)
        lost += Poisson.deviance_of_rows(x, expected.mul_(share))
        null += Poisson.deviance_of_rows(x, batch.library * (frequency * share))
    return (lost * judged).cpu().numpy(), (null * judged).cpu().numpy()


def _frequency(samples: Samples) -> torch.Tensor:
    """Mean profile, (genes,), summing to one."""
    total = samples.data.sum()
    profile = np.asarray(samples.data.sum(0)).ravel() / total
    return torch.as_tensor(profile, dtype=torch.float32, device=samples.device)


# ---- using -----------------------------------------------------------------------------------------------------
@torch.no_grad()
def denoise(
    model: Autoencoder,
    samples: Samples,
    measured: pd.Index,
    columns: np.ndarray,
    *,
    target_sum: float | None,
    code: np.ndarray | None,
    return_sd: bool,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """See `Autoencoder.denoise`."""
    values = np.empty((len(samples), len(columns)), np.float32)
    sd = np.empty_like(values) if return_sd else None
    for rows, batch, z, mu in _priors(model, samples, measured, code):
        expression = model.posterior.given(mu, batch.target)
        mean = expression.mean()
        target = batch.library if target_sum is None else target_sum * (batch.library > 0)
        scale = target / mean.sum(1, keepdim=True).clamp_min(1e-30)
        values[rows] = (mean * scale)[:, columns].cpu().numpy()
        if sd is not None:
            spread = model.net.variance(mu, z, batch.library, batch.covariate)
            sd[rows] = (expression.variance(spread).sqrt_() * scale)[:, columns].cpu().numpy()
    return values if sd is None else (values, sd)


def dropouts(
    model: Autoencoder,
    samples: Samples,
    measured: pd.Index,
    columns: np.ndarray,
    *,
    depth: float,
    threshold: float,
    code: np.ndarray | None,
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """See `Autoencoder.dropouts`."""
    blocks, by_gene, zeros = [], np.zeros(len(columns)), np.zeros(len(columns))
    by_cell = np.full(len(samples), np.nan)
    for rows, batch, _, mu in _priors(model, samples, measured, code):
        probability = model.posterior.given(mu, batch.target).seen_deeper(depth)
        probability[batch.target.row_of_entry(), batch.target.columns] = torch.nan  # not zero
        wanted = probability[:, columns].cpu().numpy()
        absent, p = ~np.isnan(wanted), np.nan_to_num(wanted)
        by_gene += p.sum(0)
        zeros += absent.sum(0)
        by_cell[rows] = np.where(absent.any(1), p.sum(1) / np.maximum(absent.sum(1), 1), np.nan)
        blocks.append(sp.csr_matrix(np.where(p >= threshold, p, 0)))
    by_gene = np.where(zeros > 0, by_gene / np.maximum(zeros, 1), np.nan)
    return sp.vstack(blocks, format="csr"), by_gene, by_cell


@torch.no_grad()
def _priors(
    model: Autoencoder, samples: Samples, measured: pd.Index, code: np.ndarray | None
) -> Iterator[tuple[slice, Batch, torch.Tensor, torch.Tensor]]:
    """Blocks of cells: which, their batch, code and means."""
    known = torch.as_tensor(model.var_names.isin(measured), device=model.device)
    for rows, batch in samples.blocks(model._block_size()):
        z = model.net.encode(batch) if code is None else torch.tensor(code[rows], device=model.device)
        mu = model.net.mean(z, batch.library, batch.covariate)
        if not known.all():  # the library is shared by the genes that were measured
            mu *= known
            mu *= batch.library / mu.sum(1, keepdim=True).clamp_min(1e-30)
        yield rows, batch, z, mu
