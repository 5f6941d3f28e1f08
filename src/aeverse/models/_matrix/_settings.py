"""From what was asked for (`Config`) to what is done (`Settings`), which leaves nothing open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from aeverse import _runtime
from aeverse._arguments import check_fields
from aeverse.models._matrix import _choices as choices
from aeverse.models._shared._gene_sets import parse_gene_sets
from aeverse.nn import LIKELIHOODS
from aeverse.train import Schedule

# Steps of training: so many, or so many epochs where these are more; but held-out deviance no longer rises after about a
# thousand steps, however many samples there are (.1828 of mosaic_pbmc15k's RNA after 672, .1832 after 1,344).
N_STEPS, LEAST_EPOCHS, MOST_STEPS = 350, 8, 2000
N_JUDGMENTS = 4  # in the steps in which the learning rate rises and falls
MIN_DELTA = 5e-4  # of the share of held-out deviance: what is worth waiting for
BATCH_SIZE, LEAST_BATCH_SIZE = 128, 32
INTEGERS = ("n_latent", "n_models", "n_inputs", "max_epochs", "max_steps", "patience", "batch_size", "random_state")
INHERITED_RATE, SLOWER = (
    4e-3,
    4,
)  # with `fit(init=)` the rate is divided: what was learned before must not be shaken off


@dataclass(frozen=True)
class Recipe:
    """What counts and other values differ in, as numbers. Found by measuring, see benchmarks/embed.py."""

    n_models: int
    learning_rate: float
    least_batches: int  # in a pass: of few samples, batches are smaller
    prior_precision: float  # of the loadings, 1 / variance
    learns_precision: bool  # of each feature, from `prior_precision` on
    sparsity: float  # weight of the L1 penalty, as a share of the loss of a sample without a code
    graph_target: Literal["smoothed", "diffusion"]  # what "graph" has the code predict
    most_guided: int  # leading dimensions of the code that predict it, at most
    share_guided: tuple[int, int]  # of all dimensions, at most: a fraction
    target_power: float | None  # errors of a target are divided by its variance to this power; None: weighted alike
    rotation_power: float  # see `AutoencoderNet.rotate_to_information`
    skip: bool  # a linear way past the hidden layers of the encoder
    layer_norm: bool  # on a code that is neither sparse, variational nor named
    n_judged: int  # samples by whose held-out part training is judged
    n_refreshed: int | None  # samples from which what stands behind the means is fitted at last; None: all


COUNTS = Recipe(
    n_models=3,
    learning_rate=6e-3,
    least_batches=8,
    prior_precision=300.0,
    learns_precision=True,
    sparsity=0.002,  # most of their deviance is sampling noise, which pays for no unit
    graph_target="smoothed",
    most_guided=20,
    share_guided=(2, 3),
    target_power=0.5,
    rotation_power=0.35,  # at 0.5 the directions of abundant genes would drown the rest
    skip=False,
    layer_norm=True,
    n_judged=300,
    n_refreshed=5000,
)
VALUES = Recipe(
    n_models=1,
    learning_rate=4e-3,
    least_batches=1,
    prior_precision=1.0,
    learns_precision=False,
    sparsity=0.02,
    graph_target="diffusion",
    most_guided=6,
    share_guided=(1, 2),
    target_power=None,
    rotation_power=0.5,  # distances between codes are divergences
    skip=True,
    layer_norm=False,
    n_judged=1000,
    n_refreshed=None,
)


@dataclass(frozen=True)
class Config:
    """What an autoencoder is, apart from what it learns.

    Parameters
    ----------
    likelihood
        ``"nb"`` or ``"poisson"`` for counts, ``"gaussian"`` for continuous values (standardized inside), ``"bernoulli"``
        for 0 and 1, ``"fractions"`` for values between 0 and 1 (Gaussian on the logit [Du2010]_). ``"auto"`` infers it from
        the data; `Autoencoder.settings` holds what was inferred.
    regularizer
        None (undercomplete, [Hinton2006]_), or one or several of ``"sparse"``, ``"contractive"``, ``"denoising"``,
        ``"variational"``, ``"graph"``. ``"auto"`` is ``"denoising"``.
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
        How many genes of counts the encoder reads, the most overdispersed, where no mask says which.
    max_epochs, max_steps
        Most passes over the samples and most steps, whichever ends first. Both None: 350 steps, or 8 epochs where these are
        more, but at most 2,000 steps.
    patience
        Training is judged by what was held out, four times in 350 steps. After so many judgments that were better by less
        than 0.0005 the learning rate falls to zero, within 277 steps, and training ends.
    batch_size, learning_rate
        None: batches of 128 samples, for fewer than 1,024 cells of an eighth of them (at least 32); a rate of 0.006 for
        counts, else 0.004, at its peak.
    corruption
        With ``"denoising"``: ``"thinning"`` (counts: molecules are drawn), ``"masking"`` (other values: half of the entries
        are hidden) or ``"gaussian"`` (continuous values: noise is added); None: the first that suits.
    strength
        Factor on the weights of all penalties.
    target_activity
        With ``"sparse"``: the mean activity that units should have (a code between 0 and 1, [Ng2011]_); None: an L1
        penalty on a code of rectified units.
    prior_precision
        Of the Gaussian prior on the decoder's loadings, 1 / variance. None: for counts learned for each gene, from 300 on,
        so that genes keep the loadings that their molecules support; else 1.
    share_heldout
        Share of the molecules or entries that training does not see; they decide which weights are kept and are what is
        reported.
    share_calibration
        Share of the samples that training does not see (at most 500; at least 50, or a fifth of fewer than 250 samples):
        against them `aeverse.tl.map_query` measures how unlike the training data a new sample is. 0: all are learned from.
    random_state
        Seed.
    """

    likelihood: choices.Likelihood | Literal["auto"] = "auto"
    regularizer: choices.Regularizer | Literal["auto"] | Sequence[choices.Regularizer] | None = "denoising"
    decoder: choices.Decoder = "linear"
    gene_sets: Mapping[str, Mapping[str, float]] | None = None
    n_latent: int | None = None
    n_hidden: Sequence[int] = (128,)
    n_models: int | None = None
    n_inputs: int = 3000
    max_epochs: int | None = None
    max_steps: int | None = None
    patience: int = 3
    batch_size: int | None = None
    learning_rate: float | None = None
    corruption: choices.Corruption | None = None
    strength: float = 1.0
    target_activity: float | None = None
    prior_precision: float | None = None
    share_heldout: float = 0.05
    share_calibration: float = 0.05
    random_state: int = 0

    def __post_init__(self):
        if isinstance(self.gene_sets, (Mapping, pd.DataFrame)):
            object.__setattr__(self, "gene_sets", parse_gene_sets(self.gene_sets))
        check_fields(self)
        object.__setattr__(self, "regularizer", _one_or_several(self.regularizer))
        for name in INTEGERS:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else int(value))
        object.__setattr__(self, "n_hidden", tuple(int(width) for width in self.n_hidden))
        if "graph" in self.regularizers and self.n_latent == 1:
            raise ValueError("regularizer='graph' needs n_latent of at least 2: half of the code are coordinates.")
        if self.gene_sets is not None:
            self._check_gene_sets(len(self.gene_sets))

    def _check_gene_sets(self, n_sets: int) -> None:
        if self.decoder != "linear":
            raise ValueError(
                "gene_sets need decoder='linear': behind a hidden layer every dimension reaches every gene."
            )
        if self.n_latent not in (None, n_sets):
            raise ValueError(f"n_latent={self.n_latent} and {n_sets} gene sets: leave n_latent out.")
        if self.n_models not in (None, 1):
            raise ValueError(f"n_models={self.n_models}: with gene_sets there is one dimension for each, so one model.")
        if "graph" in self.regularizers:
            raise ValueError(
                "regularizer='graph' takes dimensions of the code for coordinates; gene_sets name them all."
            )

    @property
    def regularizers(self) -> tuple[str, ...]:
        """The regularizers, however many, as a tuple; of ``"auto"``, that word."""
        return _as_tuple(self.regularizer)


@dataclass(frozen=True)
class Settings:
    """A `Config` with everything that was left open decided; None stays where it means something.

    The fields that have the name of a field of `Config` mean the same.

    Parameters
    ----------
    learns_precision
        The precision of the prior on the loadings is learned for each feature.
    """

    likelihood: str
    regularizer: str | tuple[str, ...] | None
    decoder: str
    gene_sets: Mapping[str, Mapping[str, float]] | None
    n_latent: int
    n_hidden: tuple[int, ...]
    n_models: int
    n_inputs: int
    max_epochs: int | None
    max_steps: int | None
    patience: int
    batch_size: int
    learning_rate: float
    corruption: str
    strength: float
    target_activity: float | None
    prior_precision: float
    share_heldout: float
    share_calibration: float
    random_state: int
    learns_precision: bool

    @property
    def is_count(self) -> bool:
        """Whether the data are counts."""
        return LIKELIHOODS[self.likelihood].is_count

    @property
    def recipe(self) -> Recipe:
        """What suits the kind of data."""
        return COUNTS if self.is_count else VALUES

    @property
    def regularizers(self) -> tuple[str, ...]:
        """The regularizers, however many, as a tuple."""
        return _as_tuple(self.regularizer)

    @property
    def n_code(self) -> int:
        """Columns of a code, of all members."""
        return self.n_models * self.n_latent

    @property
    def n_guided(self) -> int:
        """Leading dimensions of each member's code that predict where a sample lies in the neighbor graph."""
        if "graph" not in self.regularizers:
            return 0
        numerator, denominator = self.recipe.share_guided
        return min(self.recipe.most_guided, self.n_latent * numerator // denominator)

    @property
    def dimensions_mean_something(self) -> bool:
        """Whether dimensions are named, or units that are on or off: such a code is neither rotated nor shifted."""
        return self.gene_sets is not None or "sparse" in self.regularizers

    @property
    def may_rotate(self) -> bool:
        """Whether the code may be rotated and scaled; a variational one must keep the moments of its prior."""
        return not self.dimensions_mean_something and "variational" not in self.regularizers

    @property
    def in_noise_units(self) -> bool:
        """Whether the embedding is measured in units of sampling noise; a graph-guided one has the scale of its target."""
        return self.is_count and self.may_rotate and not self.n_guided

    def n_steps(self, n_batches: int) -> int:
        """Most steps of training, for data of so many batches."""
        if self.max_epochs is None and self.max_steps is None:
            return max(N_STEPS, min(LEAST_EPOCHS * n_batches, MOST_STEPS))
        by_epochs = None if self.max_epochs is None else self.max_epochs * n_batches
        return min(n for n in (by_epochs, self.max_steps) if n is not None)

    def schedule(self, n_steps: int, keep_start: bool) -> Schedule:
        """Judged now and then; only at the end where a penalty is part of what is learned, or is still growing."""
        only_last = not keep_start and {"graph", "variational"} & {*self.regularizers}
        return Schedule(
            n_steps,
            n_steps if only_last else -(-min(n_steps, N_STEPS) // N_JUDGMENTS),
            learning_rate=self.learning_rate,
            cycle=n_steps if only_last else N_STEPS,
            patience=self.patience,
            min_delta=MIN_DELTA,
            keep_start=keep_start,
        )

    def tree(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Settings:
        """Rebuild from a `tree`, with the checks of `Config`."""
        checked = Config(**{field.name: tree[field.name] for field in dataclasses.fields(Config)})
        return cls(**{**vars(checked), "learns_precision": bool(tree["learns_precision"])})


def resolve(config: Config, likelihood: str, n_samples: int) -> Settings:
    """Decide what a configuration leaves open, for samples of a likelihood, and log what ``"auto"`` became."""
    recipe = COUNTS if LIKELIHOODS[likelihood].is_count else VALUES
    regularizer = config.regularizer
    if regularizer == "auto":  # measured: see benchmarks/embed.py and embed_values.py
        regularizer = "denoising"
    suitable = LIKELIHOODS[likelihood].corruptions
    if config.corruption not in (None, *suitable):
        raise ValueError(f"corruption={config.corruption!r} does not go with {likelihood!r}; take one of {suitable}.")
    named = config.gene_sets is not None
    decided = {
        "likelihood": likelihood,
        "regularizer": regularizer,
        "corruption": config.corruption or suitable[0],
        "n_latent": config.n_latent or len(config.gene_sets or ()) or 32,
        "n_models": config.n_models or (1 if named else recipe.n_models),
        "prior_precision": config.prior_precision or recipe.prior_precision,
        "learns_precision": recipe.learns_precision and config.prior_precision is None and not named,
        "learning_rate": config.learning_rate or recipe.learning_rate,
        "batch_size": _batch_size(config, recipe, n_samples),
    }
    if inferred := [f"{name}={decided[name]!r}" for name, value in vars(config).items() if value == "auto"]:
        _runtime.log(f"inferred from the data: {', '.join(inferred)}")
    return Settings(**{**vars(config), **decided})


def _batch_size(config: Config, recipe: Recipe, n_samples: int) -> int:
    return config.batch_size or min(BATCH_SIZE, max(LEAST_BATCH_SIZE, n_samples // recipe.least_batches))


def inherit(config: Config, source: Settings, n_samples: int) -> Settings:
    """What the net is comes from another model, how it is trained from here, and more slowly: see `fit(init=)`."""
    return dataclasses.replace(
        source,
        max_epochs=config.max_epochs,
        max_steps=config.max_steps,
        patience=config.patience,
        batch_size=_batch_size(config, source.recipe, n_samples),
        learning_rate=(config.learning_rate or INHERITED_RATE) / SLOWER,
        strength=config.strength,
        share_heldout=config.share_heldout,
        random_state=config.random_state,
        learns_precision=False,
    )


def _one_or_several(value: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """One name, several, or None; several without repetition."""
    names = () if value is None else tuple(dict.fromkeys([value] if isinstance(value, str) else value))
    return None if not names else names[0] if len(names) == 1 else names


def _as_tuple(regularizer: str | Sequence[str] | None) -> tuple[str, ...]:
    return (regularizer,) if isinstance(regularizer, str) else tuple(regularizer or ())
