"""The autoencoder of one matrix, as an estimator.

What it does with counts only is in ``_counts.py``, what with other values in ``_values.py``.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse import _settings, _slots, io
from aeverse.models import _counts, _values
from aeverse.models._alignment import alignment
from aeverse.models._attribution import Attribution, nets_of_members, of_dimensions, of_groups
from aeverse.models._fronts import kind_of
from aeverse.models._guide import EMPHASIS, coordinates, smoothed
from aeverse.models._neighbours import emphasis
from aeverse.models._pool import Pool
from aeverse.models._programmes import membership, programmes_of
from aeverse.models._reference import Group, Reference, as_labels, calibration_rows, kept_rows, labels_of
from aeverse.models._transfer import input_from, settings_from, shared_inputs, start_from
from aeverse.nn import (
    Alignment,
    AutoencoderNet,
    Contraction,
    Decoder,
    Divergence,
    Encoder,
    Ensemble,
    Guidance,
    Masking,
    Noise,
    Sparsity,
    TargetActivity,
    Thinning,
    generator_on,
)
from aeverse.train import Samples, Schedule, train

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS = ("nb", "poisson")
LIKELIHOODS = (*COUNTS, "gaussian", "bernoulli", "fractions")
CORRUPTIONS = ("thinning", "masking", "gaussian")
REGULARIZERS = ("sparse", "contractive", "denoising", "variational", "graph")
DECODERS = ("linear", "mlp")
LIKELIHOOD_OF_KIND = {
    "counts": "nb",
    "protein": "nb",
    "peaks": "poisson",
    "binary": "bernoulli",
    "fractions": "fractions",
    "continuous": "gaussian",
}

FEWEST_STEPS, FEWEST_EPOCHS = 350, 8
N_JUDGEMENTS = 4
BLOCK_ENTRIES = 1_000_000  # entries of a block of decoded values: what stays in cache
SMALLEST_SHARE_OF_GENES = 0.1  # of the encoder's genes that new data must have
N_GUIDED = 6  # dimensions of the code that are coordinates in the neighbour graph
N_SMOOTHED = 20  # the same for counts, where they are components smoothed along the graph
SHARE_BESIDE = 0.1  # length of the rest of the code beside them: there for linear models, not felt by neighbours

ACTIVE_VARIANCE = 0.01  # of a unit's posterior means, above which it is in use

# Weights of the penalties, as shares of the deviance of a sample from the mean one.
SPARSITY, ACTIVITY, CONTRACTION, GUIDANCE = 0.02, 0.1, 0.2, 1.0
NOISE = 0.5  # Gaussian corruption, in standard deviations of a feature
SPARSITY_OF_COUNTS = 0.002  # most of their deviance is sampling noise, which pays for no unit


@dataclasses.dataclass(frozen=True)
class Config:
    """What an autoencoder is, apart from what it learns.

    Parameters
    ----------
    likelihood
        ``"nb"`` or ``"poisson"`` for counts, ``"gaussian"`` for continuous values (standardised inside), ``"bernoulli"``
        for 0 and 1, ``"fractions"`` for values between 0 and 1 (Gaussian on the logit [Du2010]_). ``"auto"`` looks at the
        data; what it took is in `Autoencoder.settings`.
    regularizer
        None (undercomplete, [Hinton2006]_), or one or several of ``"sparse"``, ``"contractive"``, ``"denoising"``,
        ``"variational"``, ``"graph"``. ``"auto"`` is what serves the code best: denoising, and of counts the graph too.
    decoder
        ``"linear"`` (its weights are loadings) or ``"mlp"`` (the encoder's hidden layers in reverse).
    gene_sets
        Name -> genes, or name -> {gene: weight}: each dimension of the code is one of them and reaches its genes only.
        Needs the linear decoder.
    n_latent
        Dimensions of the code (of each member); None: 32, or one for each gene set.
    n_hidden
        Widths of the encoder's hidden layers; ``()`` for an encoder of one layer.
    n_models
        Members of the ensemble; None: 3 for counts, else 1.
    n_inputs
        How many genes the encoder reads of counts, the most overdispersed, where no mask says which.
    n_epochs, batch_size, learning_rate
        Training; fewer epochs where held-out data say so. None: 350 steps, and at least 8 epochs; a rate of 0.006 for
        counts, else 0.004.
    corruption
        With ``"denoising"``: ``"thinning"`` (counts: molecules are drawn), ``"masking"`` (other values: half of the entries
        are hidden) or ``"gaussian"`` (continuous values: noise is added); None: the first that suits.
    strength
        Factor on the weights of all penalties.
    target_activity
        With ``"sparse"``: the mean activity that units should have (a code between 0 and 1, [Ng2011]_); None: an L1
        penalty on a code of rectified units.
    prior_precision
        Of the Gaussian prior on the decoder's loadings, 1 / variance. None: for counts learnt for each gene, from 300 on,
        so that genes keep the loadings that their molecules speak for; else 1.
    share_heldout
        Share of the molecules or entries that training does not see; they decide when to stop and are what is reported.
    share_calibration
        Share of the samples that training does not see (at most 500; of few samples up to 8 %): against them
        `aeverse.tl.map_query` measures how unlike the training data a new sample is. 0: all are learnt from.
    random_state
        Seed.
    """

    likelihood: str = "auto"
    regularizer: str | tuple[str, ...] | None = "denoising"
    decoder: str = "linear"
    gene_sets: Mapping[str, Mapping[str, float]] | None = None
    n_latent: int | None = None
    n_hidden: tuple[int, ...] = (128,)
    n_models: int | None = None
    n_inputs: int = 3000
    n_epochs: int | None = None
    batch_size: int = 128
    learning_rate: float | None = None
    corruption: str | None = None
    strength: float = 1.0
    target_activity: float | None = None
    prior_precision: float | None = None
    share_heldout: float = 0.05
    share_calibration: float = 0.05
    random_state: int = 0

    def __post_init__(self):
        if self.likelihood not in ("auto", *LIKELIHOODS):
            raise ValueError(f"likelihood={self.likelihood!r} must be 'auto' or one of {list(LIKELIHOODS)}.")
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder={self.decoder!r} must be one of {list(DECODERS)}.")
        object.__setattr__(self, "regularizer", _regularizer(self.regularizer))
        for name in ("n_latent", "n_models", "n_inputs", "n_epochs", "batch_size", "random_state"):
            value, least = getattr(self, name), 0 if name == "random_state" else 1
            if value is None and name in ("n_latent", "n_models", "n_epochs"):
                continue
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name}={value!r} must be an integer, at least {least}.")
            object.__setattr__(self, name, int(value))
        if not 0 < self.share_heldout < 1:
            raise ValueError(f"share_heldout={self.share_heldout!r} must lie between 0 and 1.")
        if not 0 <= self.share_calibration <= 0.5:
            raise ValueError(f"share_calibration={self.share_calibration!r} must lie between 0 and 0.5.")
        if not self.strength >= 0:
            raise ValueError(f"strength={self.strength!r} must be a number, not negative.")
        if self.target_activity is not None and not 0 < self.target_activity < 1:
            raise ValueError(f"target_activity={self.target_activity!r} must lie between 0 and 1, or be None.")
        object.__setattr__(self, "n_hidden", tuple(int(width) for width in self.n_hidden))
        if "graph" in self.regularizers and self.n_latent == 1:
            raise ValueError("regularizer='graph' needs n_latent of at least 2: half of the code are coordinates.")
        if self.corruption not in (None, *CORRUPTIONS):
            raise ValueError(f"corruption={self.corruption!r} must be None or one of {list(CORRUPTIONS)}.")
        if self.gene_sets is not None:
            self._check_gene_sets()

    def _check_gene_sets(self) -> None:
        object.__setattr__(self, "gene_sets", programmes_of(self.gene_sets))
        if self.decoder != "linear":
            raise ValueError(
                "gene_sets need decoder='linear': behind a hidden layer every dimension reaches every gene."
            )
        if self.n_latent not in (None, len(self.gene_sets)):
            raise ValueError(f"n_latent={self.n_latent} and {len(self.gene_sets)} gene sets: leave n_latent out.")
        if self.n_models not in (None, 1):
            raise ValueError(f"n_models={self.n_models}: with gene_sets there is one dimension for each, so one model.")
        if "graph" in self.regularizers:
            raise ValueError(
                "regularizer='graph' takes dimensions of the code for coordinates; gene_sets name them all."
            )

    @property
    def regularizers(self) -> tuple[str, ...]:
        """The regularizers, however many, as a tuple."""
        return (self.regularizer,) if isinstance(self.regularizer, str) else self.regularizer or ()


def _regularizer(value: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """One name, several, or None, checked; several without repetition."""
    names = () if value is None else tuple(dict.fromkeys([value] if isinstance(value, str) else value))
    if unknown := [name for name in names if name not in REGULARIZERS and value != "auto"]:
        raise ValueError(f"regularizer={value!r} must be None, 'auto', or among {list(REGULARIZERS)}; not {unknown}.")
    return None if not names else names[0] if len(names) == 1 else names


class Autoencoder:
    """Autoencoder of one matrix: fit, encode, decode, save.

    For counts, the decoder's mean is the prior of a gamma-Poisson model whose posterior mean, given a cell's own counts, is
    `denoise`; training stops by the held-out likelihood of that posterior. For other values it stops by entries that were
    held out.

    Parameters
    ----------
    **config
        Fields of `Config`.

    Attributes
    ----------
    config
        The frozen `Config`.
    settings
        The same with everything that was left open (``"auto"``, None) as the fit took it.
    var_names
        Features, in the order of the decoder's output.
    history
        ``step``, ``loss`` and ``heldout`` (deviance explained on held-out molecules or entries).
    deviance_explained, heldout_deviance_explained
        The same for each feature, and over all; on all samples, with the final weights.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> model = ae.models.Autoencoder(n_latent=8, n_models=1, n_epochs=2).fit(adata)
    >>> model.encode(adata).shape
    (700, 8)
    >>> model.decode(model.encode(adata), genes=["CD79A", "LYZ"]).shape
    (700, 2)
    """

    deviance_explained: np.ndarray

    def __init__(self, **config):
        known = {f.name for f in dataclasses.fields(Config)}
        if unknown := set(config) - known:
            raise TypeError(f"Autoencoder does not know {sorted(unknown)}; it takes {sorted(known)}.")
        self.config = Config(**config)
        self.device = torch.device("cpu")
        self.net: Ensemble | None = None
        self.reference: Reference | None = None
        self.heldout_deviance_explained: float | None = None  # the last thing that a fit learns

    # ---- learning ----------------------------------------------------------------------------------------------
    @_settings.learning()
    def fit(
        self,
        adata: AnnData,
        *,
        layer: str | None = None,
        mask_var: str | np.ndarray | None = "auto",
        batch_key: str | None = None,
        init: Autoencoder | None = None,
        device: str = "auto",
        progress: bool | None = None,
    ) -> Autoencoder:
        """Learn from `adata`, which is not changed.

        Parameters
        ----------
        adata
            Samples x features: raw counts, or values in which missing entries are NaN.
        layer
            Layer to read; None is ``adata.X``.
        mask_var
            Column of ``adata.var`` or boolean array: features that the encoder reads. ``"auto"``: ``highly_variable``
            where present, else of counts the `n_inputs` most overdispersed, of other values all. The decoder explains
            all features.
        batch_key
            Column of ``adata.obs``: encoder and decoder are told the batch of a sample, and in the code samples of
            different batches that match are brought together (mutual nearest neighbours [Haghverdi2018]_; not with
            ``"sparse"`` or `gene_sets`, where the values of single dimensions mean something).
        init
            A fitted `Autoencoder` of other data to start from, for data with few samples: what it learnt of shared
            features (matched by name) is copied, and training goes on from there, more slowly and near to it [Li2018]_. What the net
            is, and which features the encoder reads, then comes from that model; `mask_var` is ignored.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …
        progress
            Show a progress bar; None: on a terminal or in a notebook.

        Returns
        -------
        The estimator itself.
        """
        self.heldout_deviance_explained = None
        rng, place = np.random.default_rng(self.config.random_state), _slots.place(layer)
        self.settings = self._settle(adata, layer) if init is None else settings_from(self.config, init)
        settings, side = self.settings, self._side
        x = side.read(adata, layer)
        side.check(x, settings.likelihood, place)
        mask = _slots.read_mask(adata, mask_var)
        batches = _slots.read_categories(adata, batch_key)
        self.device = _settings.resolve_device(device)
        self.var_names = pd.Index(adata.var_names.astype(str))
        self.batch_key, self.batches = batch_key, None if batches is None else [str(c) for c in batches.categories]
        learnt, kept_out = calibration_rows(x.shape[0], settings.share_calibration, settings.random_state)
        seen, heldout = side.hold_out(x[learnt], settings.share_heldout, rng, place)
        self.inputs = side.choose_inputs(seen, settings.n_inputs) if mask is None else np.flatnonzero(mask)
        if init is not None:
            self.inputs = shared_inputs(init, self.var_names)
        own_batches = None if batches is None else batches[learnt]
        samples = self._samples(seen, own_batches)
        n_steps = settings.n_epochs and settings.n_epochs * samples.n_batches(settings.batch_size)
        n_steps = n_steps or max(FEWEST_STEPS, FEWEST_EPOCHS * samples.n_batches(settings.batch_size))
        judged = np.sort(rng.permutation(len(samples))[: side.N_JUDGED])
        generator = torch.Generator().manual_seed(settings.random_state)
        input_layer, likelihood, bias = side.parts(settings, samples, x)
        if init is not None:
            input_layer = input_from(init, self)
        elif "graph" in settings.regularizers:  # the other model knows where samples lie in a graph
            columns = None if mask is None else self.inputs
            samples.guide = self._guide(seen, samples, input_layer, own_batches, columns)
        pool = side.pool(settings, samples, bias) if init is None else None
        training, judged_by = samples, heldout
        if pool is not None:
            training, judged_by, bias = pool.samples(samples), pool.counts(heldout), pool.pooled_bias
            likelihood = side.new_likelihood(settings.likelihood, len(bias))
        self._build(training, input_layer, likelihood, bias, n_steps, init, generator)
        self.history = train(
            self.net,
            training.shuffled(rng, settings.batch_size, generator),
            lambda: side.judge(self, training, judged_by, judged),
            self._schedule(n_steps, keep_start=init is not None),
            progress=progress,
        )
        if pool is not None:
            self._spread(pool)
        for member in self.net.members:  # type: ignore[union-attr]
            member.face_up()
            if "variational" in settings.regularizers:
                self._match_prior(member, samples)
        side.finish(self, samples, heldout, rng)
        if self.n_guided and settings.likelihood in COUNTS and self.is_free_to_turn:
            self._shorten(samples)
        if own_batches is not None and self.is_free_to_shift:
            self.net.alignment = self._aligned(samples, own_batches)
        self.reference = self._remember(self._samples(x, batches), adata, learnt, kept_out)
        return self

    def _guide(self, seen, samples: Samples, input_layer, batches: pd.Categorical | None, columns) -> np.ndarray:
        """What the leading dimensions of the code are to predict of each sample."""
        if self.settings.likelihood in COUNTS:
            return smoothed(seen, self.var_names, self.n_guided, batches, columns)
        return coordinates(samples, input_layer, self.n_guided, batches)

    def _build(
        self,
        samples: Samples,
        input_layer: torch.nn.Module,
        likelihood: torch.nn.Module,
        bias: np.ndarray,
        n_steps: int,
        init: Autoencoder | None,
        generator: torch.Generator,
    ) -> None:
        """The net before training, from nothing or from another model."""
        settings, side = self.settings, self._side
        self.net = Ensemble(
            self._new_member(copy.deepcopy(input_layer), copy.deepcopy(likelihood), bias, generator, len(samples))
            for _ in range(settings.n_models)
        ).to(self.device)
        self.posterior = side.new_posterior(self, len(bias))
        if init is not None:
            for member, old in zip(self.net.members, init.net.members, strict=True):  # type: ignore[union-attr]
                start_from(member, old, init, self)
        elif self.config.prior_precision is None and settings.gene_sets is None:
            for member in self.net.members:
                member.decoder.information = side.information(samples)
        if {*settings.regularizers} - {"denoising"}:
            unit = side.null_loss(self, samples)
            for member in self.net.members:
                member.penalties = self._penalties(unit, n_steps, samples.guide)  # type: ignore[assignment]

    def _spread(self, pool: Pool) -> None:
        """Give every gene an output of its own again."""
        for member in self.net.members:
            pool.spread(member.decoder)
            member.likelihood = self._side.new_likelihood(self.settings.likelihood, len(self.var_names))
        self.net.to(self.device)
        self.posterior = self._side.new_posterior(self, len(self.var_names))

    def _settle(self, adata: AnnData, layer: str | None) -> Config:
        """The configuration with everything that was left open decided, and a log line that says so."""
        config, likelihood = self.config, self.config.likelihood
        if likelihood == "auto":
            likelihood = likelihood_of(_slots.read_matrix(adata, layer), pd.Index(adata.var_names.astype(str)))
        regularizer = config.regularizer
        counts = likelihood in COUNTS
        if regularizer == "auto":  # measured: see benchmarks/embed.py
            guided = counts and config.gene_sets is None and config.n_latent != 1
            regularizer = ("denoising", "graph") if guided else "denoising"
        suitable = ("thinning",) if counts else ("masking", "gaussian") if likelihood == "gaussian" else ("masking",)
        if config.corruption not in (None, *suitable):
            raise ValueError(
                f"corruption={config.corruption!r} does not go with {likelihood!r}; take one of {suitable}."
            )
        settled = dataclasses.replace(
            config,
            likelihood=likelihood,
            regularizer=regularizer,
            corruption=config.corruption or suitable[0],
            n_latent=config.n_latent or len(config.gene_sets or ()) or 32,
            n_models=config.n_models or (3 if counts and not config.gene_sets else 1),
            prior_precision=config.prior_precision or (300.0 if counts else 1.0),
            learning_rate=config.learning_rate or (6e-3 if counts else 4e-3),
        )
        taken = [f"{f}={getattr(settled, f)!r}" for f in ("likelihood", "regularizer") if getattr(config, f) == "auto"]
        if taken:
            _settings.log(f"{_slots.place(layer)}, {adata.n_obs} x {adata.n_vars}: {', '.join(taken)}")
        return settled

    @property
    def _side(self):
        """The module that knows what to do with this kind of data."""
        return _counts if self.settings.likelihood in COUNTS else _values

    @property
    def n_guided(self) -> int:
        """Leading dimensions of the code that are predicted coordinates in the neighbour graph."""
        if "graph" not in self.settings.regularizers:
            return 0
        n = self.settings.n_latent
        return min(N_SMOOTHED, n * 2 // 3) if self.settings.likelihood in COUNTS else min(N_GUIDED, n // 2)

    @property
    def code_names(self) -> list[str] | None:
        """Names of the dimensions of the code, where they are gene sets."""
        return None if self.settings.gene_sets is None else list(self.settings.gene_sets)

    @property
    def is_free_to_turn(self) -> bool:
        """Whether the code may be turned: its dimensions are neither named, nor units that are on or off, nor a sample's."""
        return self.code_names is None and not {"sparse", "variational"} & set(self.settings.regularizers)

    @torch.no_grad()
    def _shorten(self, samples: Samples) -> None:
        """Scale what is beside the guided dimensions to `SHARE_BESIDE` of their length."""
        code = self._encode(samples)
        for member, own in zip(self.net.members, np.split(code, len(self.net.members), 1), strict=True):
            length = own.var(0)
            ratio = float(np.sqrt(length[: self.n_guided].sum() / max(length[self.n_guided :].sum(), 1e-12)))
            turn = torch.eye(own.shape[1], dtype=torch.float64)
            turn[self.n_guided :, self.n_guided :] *= SHARE_BESIDE * ratio
            member.turn(turn)

    @property
    def is_free_to_shift(self) -> bool:
        """Whether batches may be shifted in the code: its dimensions are neither named nor units that are on or off."""
        return self.code_names is None and "sparse" not in self.settings.regularizers

    def _aligned(self, samples: Samples, batches: pd.Categorical) -> Alignment | None:
        found = alignment(self._encode(samples), batches.codes, len(self.batches), self.settings.random_state)
        return None if found is None else found.to(self.device)

    def _samples(self, x: sp.csr_matrix | np.ndarray, batches: pd.Categorical | None) -> Samples:
        return self._side.samples_of(
            x,
            input_features=self.inputs,
            covariate=None if batches is None else self._covariates(batches.codes),
            device=self.device,
        )

    def _covariates(self, codes: np.ndarray) -> np.ndarray:
        """One-hot batches; a batch that the model does not know (-1) is the average of those it does."""
        n = len(self.batches)
        return np.vstack([np.eye(n, dtype=np.float32), np.full((1, n), 1 / n, np.float32)])[codes]

    def _new_member(
        self,
        input_layer: torch.nn.Module | None,
        likelihood: torch.nn.Module,
        bias: np.ndarray,
        generator: torch.Generator,
        n_samples: int = 1,
    ) -> AutoencoderNet:
        settings, n_covariates = self.settings, len(self.batches or ())
        counts, encoder, programmes = settings.likelihood in COUNTS, None, None
        if input_layer is not None:
            encoder = Encoder(
                input_layer,
                len(self.inputs) if counts else input_layer.axes.shape[1],  # type: ignore[index]
                settings.n_hidden,
                settings.n_latent,
                n_covariates=n_covariates,
                code_layer=self._code_layer(),
                skip=not counts,
                n_free=self.n_guided,
                variational="variational" in settings.regularizers,
                generator=generator,
            )
        if settings.gene_sets is not None:
            programmes = torch.as_tensor(membership(settings.gene_sets, self.var_names))
        decoder = Decoder(
            settings.n_latent,
            settings.n_hidden[::-1] if settings.decoder == "mlp" else (),
            len(bias),
            bias=torch.as_tensor(bias, dtype=torch.float32),
            n_covariates=n_covariates,
            programmes=programmes,
            precision=settings.prior_precision,
            generator=generator,
        )
        return AutoencoderNet(
            encoder,
            decoder,
            likelihood,
            corrupt=self._corruption(input_layer) if "denoising" in settings.regularizers else None,
            prior_weight=1 / n_samples,
        )

    def _corruption(self, input_layer: torch.nn.Module | None):
        """What is done to a batch before the encoder reads it."""
        if self.settings.likelihood in COUNTS:
            return Thinning()
        if self.settings.corruption != "gaussian" or input_layer is None:
            return Masking()
        return Noise(NOISE / input_layer.inner.scale)  # type: ignore[operator, union-attr]

    def _code_layer(self) -> torch.nn.Module | None:
        """What follows the encoder's last affine map; None: LayerNorm."""
        settings = self.settings
        if "sparse" in settings.regularizers:
            return torch.nn.ReLU() if settings.target_activity is None else torch.nn.Sigmoid()
        if "contractive" in settings.regularizers and not settings.n_hidden:
            return torch.nn.Sigmoid()  # the autoencoder of the paper; of an affine map it would be mere weight decay
        named = settings.gene_sets is not None  # how active a pathway is must not depend on the others
        if named or "variational" in settings.regularizers or settings.likelihood not in COUNTS:
            return torch.nn.Identity()
        return None

    def _penalties(self, unit: float, n_steps: int, guide: np.ndarray | None) -> list:
        """Penalties on the code; their weights are shares of `unit`, the loss of a sample without a code."""
        settings, weight, found = self.settings, self.settings.strength * unit, []
        if "sparse" in settings.regularizers and settings.target_activity is None:
            share = SPARSITY_OF_COUNTS if settings.likelihood in COUNTS else SPARSITY
            found.append(Sparsity(share * weight, self.n_guided))
        elif "sparse" in settings.regularizers:
            found.append(TargetActivity(ACTIVITY * weight, settings.target_activity, self.n_guided))
        if "contractive" in settings.regularizers:
            found.append(Contraction(CONTRACTION * weight))
        if "variational" in settings.regularizers:
            found.append(Divergence(settings.strength, warm_up=n_steps // 2))
        if guide is not None:
            found.append(
                Guidance(GUIDANCE * weight, emphasis(guide, EMPHASIS) if settings.likelihood in COUNTS else None)
            )
        return found

    @torch.no_grad()
    def _match_prior(self, member: AutoencoderNet, samples: Samples) -> None:
        """Turn the code so that over all samples its second moments are those of the prior that samples are drawn from."""
        moments = torch.zeros(self.settings.n_latent, self.settings.n_latent, dtype=torch.float64, device=self.device)
        for _, batch in samples.blocks(4096):
            code = member.encoder.coded(batch.x, batch.library, batch.covariate)
            moments += (code.mean.T @ code.mean + code.log_variance.exp().sum(0).diag()).double()
        values, axes = torch.linalg.eigh(moments / len(samples))
        member.turn(axes * values.clamp_min(1e-6).rsqrt() @ axes.T)

    def _schedule(self, n_steps: int, keep_start: bool) -> Schedule:
        """Judged a few times; only at the end where the penalty is part of what is learnt, or is still growing."""
        goes_on = not keep_start and {"graph", "variational"} & set(self.settings.regularizers)
        judge_every = n_steps if goes_on else -(-n_steps // N_JUDGEMENTS)
        rate = self.settings.learning_rate
        assert rate is not None
        return Schedule(n_steps=n_steps, judge_every=judge_every, learning_rate=rate, keep_start=keep_start)

    def _block_size(self) -> int:
        return max(1, BLOCK_ENTRIES // len(self.var_names))

    # ---- using -------------------------------------------------------------------------------------------------
    def encode(self, adata: AnnData, *, layer: str | None = None) -> np.ndarray:
        """Code of each sample; of a variational autoencoder the mean of its posterior, never a draw.

        Features are matched by name: order does not matter, others are ignored, missing ones count as zero in counts and
        are at their means elsewhere (a warning says how many were found).

        Parameters
        ----------
        adata
            Samples x features, of the kind that the model was fitted to.
        layer
            Layer to read; None is ``adata.X``.

        Returns
        -------
        Array of shape (samples, n_models * n_latent).

        Raises
        ------
        ValueError
            Fewer than a tenth of the encoder's features are there, or the data are of another kind.
        """
        return self._encode(self._read_new(adata, layer))

    def placed(self, adata: AnnData, *, layer: str | None = None) -> Iterator[Group]:
        """Codes of new samples, and the training samples to compare them with; what `aeverse.tl.map_query` is made of.

        Parameters as in `encode`.
        """
        samples = self._read_new(adata, layer, any_batch=True)
        if self.reference is None:
            raise ValueError("this model keeps no training samples to compare new ones with; fit it again.")
        code, measured = self._encode(samples), samples.measured()
        for rows, reference in ((np.flatnonzero(measured), self.reference), (np.flatnonzero(~measured), None)):
            if len(rows):
                yield Group(rows, code[rows], reference)

    def labelled(self, adata: AnnData, labels: Sequence[str], group: Group, *, layer: str | None = None) -> Reference:
        """Other samples to take labels from, in the place of the training samples."""
        return Reference(
            self.encode(adata, layer=layer), np.empty(0), {name: as_labels(adata.obs[name], name) for name in labels}
        )

    def attributions(
        self,
        adata: AnnData,
        groups: pd.Categorical | None = None,
        *,
        n_top: int = 50,
        layer: str | None = None,
        random_state: int = 0,
    ) -> tuple[dict[str, Attribution], list[str]]:
        """Integrated gradients of the code's dimensions, or of `groups` of the samples, and the names of both.

        What `aeverse.tl.attribute` is made of, see there.
        """
        samples = self._read_new(adata, layer)
        measured = samples.measured()
        nets, rng = nets_of_members(self, samples.some(measured)), np.random.default_rng(random_state)
        if groups is None:
            found = of_dimensions(nets, n_top, rng)
            columns = self.code_names or [str(i) for i in range(self.n_code)]
        else:
            found, columns = of_groups(nets, groups[measured], n_top, rng), list(groups.categories)
        names = pd.Index(adata.var_names.astype(str))
        if not names.equals(self.var_names):
            for own in found.values():
                own.positions = np.where(own.positions >= 0, names.get_indexer(self.var_names[own.positions]), -1)
        return found, columns

    @property
    def labels(self) -> dict[str, pd.Categorical]:
        """Labels of the training samples that the model keeps."""
        return {} if self.reference is None else self.reference.labels

    def _remember(self, samples: Samples, adata: AnnData, learnt: np.ndarray, kept_out: np.ndarray) -> Reference:
        kept = learnt[kept_rows(len(learnt), self.settings.random_state)]
        code = self._encode(samples.some(np.concatenate([kept, kept_out])))
        return Reference.of(code[: len(kept)], labels_of(adata, kept), code[len(kept) :] if len(kept_out) else None)

    @torch.no_grad()
    def _encode(self, samples: Samples) -> np.ndarray:
        blocks = [self.net.encode(batch) for _, batch in samples.blocks(4096)]
        return torch.cat(blocks).cpu().numpy() if blocks else np.zeros((0, self.n_code), np.float32)

    def decode(
        self,
        code: np.ndarray,
        *,
        genes: Sequence[str] | str | None = None,
        library: float | np.ndarray = 1e4,
        batch: str | None = None,
    ) -> np.ndarray:
        """Decoder's mean, in the units of the data: what codes stand for.

        For counts, expected counts before a cell's own counts are taken into account; for 0 and 1, probabilities.

        Parameters
        ----------
        code
            (samples, n_models * n_latent), as from `encode`.
        genes
            Names of the features wanted; None: all.
        library
            For counts: library size that the means add up to (over all genes), a number or one for each cell.
        batch
            For a model with a `batch_key`: the batch as which to decode; None: the average over batches.

        Returns
        -------
        Array of shape (samples, features).
        """
        self._require_fit()
        columns = self._columns(genes)
        code = np.asarray(code, np.float32)
        if code.ndim != 2 or code.shape[1] != self.n_code:
            raise ValueError(f"code has shape {code.shape}; this model's codes have {self.n_code} columns.")
        library = np.asarray(library, np.float32).reshape(-1, 1)
        if len(library) not in (1, len(code)) or not (library >= 0).all():
            raise ValueError(f"library must be a number, or one for each of the {len(code)} codes, and not negative.")
        library = np.broadcast_to(library, (len(code), 1))
        batch_code = self._batch_code(batch)
        covariate = None if self.batches is None else self._covariates(np.full(len(code), batch_code))
        out = np.empty((len(code), len(columns)), np.float32)
        with torch.no_grad():
            for start in range(0, len(code), self._block_size()):
                rows = slice(start, start + self._block_size())
                z, size = (torch.tensor(a[rows], device=self.device) for a in (code, library))
                own = None if covariate is None else torch.tensor(covariate[rows], device=self.device)
                out[rows] = self.net.mean(z, size, own)[:, columns].cpu().numpy()
        return out

    def denoise(
        self,
        adata: AnnData,
        *,
        layer: str | None = None,
        genes: Sequence[str] | str | None = None,
        target_sum: float | None = None,
        code: np.ndarray | None = None,
        return_sd: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Posterior mean of the expected counts, given the model and the cell's own counts.

        ``mu (theta + x) / (theta + mu)``: the decoder's mean `mu` is the prior, the dispersion `theta` says how much it
        is worth against the cell's own count `x`.

        Parameters
        ----------
        adata
            Cells x genes with raw counts, of this experiment or a new one.
        layer
            Layer with the counts; None is ``adata.X``.
        genes
            Names of the genes wanted; None: all.
        target_sum
            What the values of a cell add up to over all genes; None: the cell's own library size.
        code
            Codes of the cells, where they are known already.
        return_sd
            Return the posterior standard deviations too; they include the spread of the ensemble's members.

        Returns
        -------
        Array of shape (cells, genes), or two.
        """
        self._require_counts("denoise")
        samples, measured = self._read_new(adata, layer), adata.var_names
        options = {"target_sum": target_sum, "code": code, "return_sd": return_sd}
        return _counts.denoise(self, samples, measured, self._columns(genes), **options)

    def dropouts(
        self,
        adata: AnnData,
        *,
        depth: float = 10.0,
        threshold: float = 0.5,
        layer: str | None = None,
        genes: Sequence[str] | str | None = None,
        code: np.ndarray | None = None,
    ) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
        """For entries without counts, the probability that there would be some at `depth` times the cell's depth.

        Parameters
        ----------
        adata, layer, genes, code
            As in `denoise`.
        depth
            Multiple of the cell's own sequencing depth.
        threshold
            Probabilities below it are left out of the matrix.

        Returns
        -------
        The probabilities, CSR of shape (cells, genes), 0 where there are counts; the mean probability of the zeros of
        each gene wanted, and that of the zeros of each cell (NaN without zeros).
        """
        self._require_counts("dropouts")
        if not depth > 1:
            raise ValueError(f"depth={depth!r} must be greater than 1, the cell's own depth.")
        samples, measured = self._read_new(adata, layer), adata.var_names
        options = {"depth": depth, "threshold": threshold, "code": code}
        return _counts.dropouts(self, samples, measured, self._columns(genes), **options)

    def sample(self, n: int, *, library: float | np.ndarray = 1e4, random_state: int = 0) -> np.ndarray:
        """Draw new data from a variational autoencoder: codes from the standard normal, then data given the codes.

        Parameters
        ----------
        n
            How many samples.
        library
            For counts: library sizes, a number or one for each sample.
        random_state
            Seed.

        Returns
        -------
        Array of shape (n, features), in the units of the data.

        Raises
        ------
        ValueError
            The model is not variational, so that its codes have no distribution to draw from.

        Examples
        --------
        >>> import aeverse as ae
        >>> adata = ae.datasets.pbmc68k_counts()
        >>> model = ae.models.Autoencoder(regularizer="variational", n_models=1, n_epochs=2).fit(adata)
        >>> model.sample(5, library=500).shape
        (5, 765)
        """
        self._require_fit()
        if "variational" not in self.settings.regularizers:
            raise ValueError(
                f"only a model with regularizer='variational' can be sampled from; this one has {self.settings.regularizer!r}."
            )
        code = np.random.default_rng(random_state).standard_normal((n, self.n_code), np.float32)
        mean = torch.tensor(self.decode(code, library=library), device=self.device)
        generator = generator_on(self.device, torch.Generator().manual_seed(random_state))
        with torch.no_grad():
            return self.net.members[0].likelihood.draw(mean, generator).cpu().numpy()

    def loadings(self) -> pd.DataFrame:
        """How each dimension of the code moves each feature: weights of the linear decoder, (features, n_models * n_latent).

        Of counts on the log scale, of 0 and 1 on the logit scale, of continuous values in standard deviations.
        """
        self._require_fit()
        if self.settings.decoder != "linear":
            raise ValueError("loadings are the weights of a linear decoder; this model has decoder='mlp'.")
        weights = [member.decoder.loadings_at_zero().detach().cpu().numpy() for member in self.net.members]
        return pd.DataFrame(np.hstack(weights), index=self.var_names, columns=self.code_names)

    def active_share(self, code: np.ndarray) -> np.ndarray:
        """Share of a sparse code's units that are active in each sample: above zero, or above one half where they are bounded."""
        threshold = 0.0 if self.settings.target_activity is None else 0.5
        units = np.hstack([own[:, self.n_guided :] for own in np.split(code, self.settings.n_models, 1)])
        return (units > threshold).mean(1)

    @staticmethod
    def active_units(code: np.ndarray) -> int:
        """How many dimensions of a variational code are in use: their means vary over the samples [Burda2016]_."""
        return int((code.var(0) > ACTIVE_VARIANCE).sum())

    def _columns(self, genes: Sequence[str] | str | None) -> np.ndarray:
        return np.arange(len(self.var_names)) if genes is None else _slots.positions(genes, self.var_names)

    def _batch_code(self, batch: str | None) -> int:
        if batch is not None and batch not in (self.batches or ()):
            raise KeyError(f"batch={batch!r} is not known to this model; batches are: {self.batches or 'none'}.")
        return -1 if batch is None else self.batches.index(batch)

    @property
    def n_code(self) -> int:
        """Columns of a code."""
        return self.settings.n_models * self.settings.n_latent

    def _require_fit(self) -> None:
        if self.heldout_deviance_explained is None:
            raise RuntimeError("this Autoencoder is not fitted, or its last fit did not end; call .fit(adata) first.")

    def _require_counts(self, what: str) -> None:
        self._require_fit()
        if self.settings.likelihood not in COUNTS:
            raise ValueError(
                f"{what} needs a model of counts, with likelihood 'nb' or 'poisson'; this one has "
                f"{self.settings.likelihood!r}."
            )

    def _read_new(self, adata: AnnData, layer: str | None, *, any_batch: bool = False) -> Samples:
        self._require_fit()
        x = self._match(self._side.read(adata, layer), pd.Index(adata.var_names.astype(str)), _slots.place(layer))
        batches = None
        if self.batches is not None and any_batch and self.batch_key not in adata.obs:
            _slots.warn(f"{self.batch_key!r} is not a column of adata.obs; cells are taken as of an average batch.")
            batches = pd.Categorical([None] * adata.n_obs, categories=self.batches)
        elif self.batches is not None:
            values = _slots.read_categories(adata, self.batch_key)
            batches = pd.Categorical(values.astype(str), categories=self.batches)
            if unknown := sorted(set(values.categories) - set(self.batches)):
                _slots.warn(
                    f"batches {unknown[:5]} are not known to the model; their cells are taken as of an average batch."
                )
        return self._samples(x, batches)

    def _match(self, x, names: pd.Index, place: str):
        """Bring columns into the model's order by name, after checking that they are what the model knows."""
        self._side.check_range(x, self.settings.likelihood, place)
        if names.equals(self.var_names):
            return x
        if not names.is_unique or not self.var_names.is_unique:
            raise ValueError(
                "gene names are not unique and differ from the model's; call adata.var_names_make_unique() first."
            )
        where = names.get_indexer(self.var_names)
        found = where[self.inputs] >= 0
        message = f"{found.sum()} of the {len(found)} genes that the encoder reads were found"
        if found.mean() < SMALLEST_SHARE_OF_GENES:
            raise ValueError(
                f"{message}; do the names match? The model has {list(self.var_names[self.inputs][:3])} …, the data {list(names[:3])} …."
            )
        if not found.all():
            _slots.warn(f"{message}; {self._side.ABSENT}.")
        return self._side.match(x, where)

    # ---- keeping -----------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the model to one file (safetensors with a JSON header); an existing file is replaced.

        It also holds the codes of up to 5,000 training samples and the categorical columns of their ``obs``, for
        `aeverse.tl.map_query`; none of their names or values.

        Examples
        --------
        >>> import aeverse as ae, tempfile, os
        >>> adata = ae.datasets.pbmc68k_counts()
        >>> model = ae.models.Autoencoder(n_models=1, n_epochs=1).fit(adata)
        >>> path = os.path.join(tempfile.mkdtemp(), "pbmc.ae")
        >>> model.save(path)
        >>> bool((ae.models.load(path).encode(adata) == model.encode(adata)).all())
        True
        """
        self._require_fit()
        labels, reference = ({}, {}) if self.reference is None else self.reference.state()
        arrays = self._arrays() | {f"reference.{name}": a for name, a in reference.items()}
        io.save_arrays(path, type(self).__name__, self._header() | labels, arrays)

    def record(self) -> dict[str, Any]:
        """What `get.denoised` needs to decode without the model: header and arrays, without the encoder."""
        arrays = {name: a for name, a in self._arrays().items() if ".encoder." not in name}
        return {"header": json.dumps(self._header()), "arrays": arrays}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Autoencoder:
        """Rebuild, from a `record`, a model that can decode but not encode."""
        return cls.restore(json.loads(str(record["header"])), {k: np.asarray(a) for k, a in record["arrays"].items()})

    @classmethod
    @_settings.learning()
    def restore(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Autoencoder:
        """Rebuild a model from what `save` or `record` kept."""
        model = cls(**header["config"])
        model.settings = Config(**header["settings"])
        model.var_names = pd.Index(header["var_names"])
        model.batch_key, model.batches, model.history = header["batch_key"], header["batches"], header["history"]
        model.heldout_deviance_explained = header["heldout_deviance_explained"]
        model.inputs, model.deviance_explained = arrays["inputs"], arrays["deviance_explained"]

        def weights(part: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(part): torch.tensor(a) for k, a in arrays.items() if k.startswith(part)}

        side, likelihood, n_features = model._side, model.settings.likelihood, len(model.var_names)
        n_columns = len(arrays.get("net.members.0.encoder.first", ()))  # none in a record, which cannot encode
        own = {k.removeprefix("reference."): a for k, a in arrays.items() if k.startswith("reference.")}
        model.reference = Reference.restore(header, own) if own else None
        model.net = Ensemble(
            model._new_member(
                side.empty_input(likelihood, len(model.inputs), n_columns) if n_columns else None,
                side.new_likelihood(likelihood, n_features),
                np.zeros(n_features),
                torch.Generator(),  # of weights that those of the file replace
            )
            for _ in range(model.settings.n_models)
        )
        if "net.alignment.shifts" in arrays:
            empty = torch.zeros(arrays["net.alignment.shifts"].shape, dtype=torch.float32)
            model.net.alignment = Alignment(empty, empty.clone())
        model.net.load_state_dict(weights("net."))
        model.net.eval()
        model.posterior = side.new_posterior(model, len(model.var_names))
        if model.posterior is not None:
            model.posterior.load_state_dict(weights("posterior."))
        return model

    def _header(self) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self.config),
            "settings": dataclasses.asdict(self.settings),
            "var_names": list(self.var_names),
            "batch_key": self.batch_key,
            "batches": self.batches,
            "history": self.history,
            "heldout_deviance_explained": self.heldout_deviance_explained,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        modules = {"net": self.net} if self.posterior is None else {"net": self.net, "posterior": self.posterior}
        arrays = {
            f"{part}.{k}": t.cpu().numpy() for part, module in modules.items() for k, t in module.state_dict().items()
        }
        return {**arrays, "inputs": self.inputs, "deviance_explained": self.deviance_explained}


def likelihood_of(x: sp.csr_matrix | np.ndarray, names: pd.Index) -> str:
    """The likelihood that a matrix looks like: what ``likelihood="auto"`` takes."""
    kind = kind_of(x, names)
    if kind == "ordinal":  # small integers: a sparse panel of counts, or copy numbers
        negative = x.shape[0] and (x.data if sp.issparse(x) else x[np.isfinite(x)]).min(initial=0) < 0
        return "nb" if sp.issparse(x) and not negative else "gaussian"
    return LIKELIHOOD_OF_KIND[kind]
