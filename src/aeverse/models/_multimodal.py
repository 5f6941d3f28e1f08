"""The autoencoder of several modalities, any of them missing, as an estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _runtime, _slots
from aeverse._arguments import check_fields, checked_methods
from aeverse.models._estimator import Estimator, from_fit
from aeverse.models._joint._data import TrainingModalities, kinds_of, require_enough, without_empty
from aeverse.models._joint._fitted import FUSIONS, FittedMultimodal
from aeverse.models._joint._prediction import Target
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._kinds import KINDS
from aeverse.models._shared._reference import label_columns

if TYPE_CHECKING:
    from mudata import MuData

FEW_SAMPLES = 100  # below, counts too are learned from like a cohort


@dataclasses.dataclass(frozen=True)
class MultimodalConfig:
    """What a multimodal autoencoder is, apart from what it learns.

    Parameters
    ----------
    recipe
        ``"samples"`` (cohorts: hundreds of samples, many features), ``"cells"`` (single cells), or ``"auto"``: cells
        where there are counts that are mostly zeros, and at least 100 samples.
    n_latent
        Dimensions of a network's latent space.
    n_models
        Members of the ensemble; None: 4 for samples, 3 for cells.
    n_steps
        Steps of training; None: 200 for samples, as `Autoencoder` for cells.
    n_inputs
        How many features of a count modality are read, the most overdispersed, where no mask says which.
    random_state
        Seed.
    """

    recipe: Literal["auto", "samples", "cells"] = "auto"
    n_latent: int = 32
    n_models: int | None = None
    n_steps: int | None = None
    n_inputs: int = 3000
    random_state: int = 0

    def __post_init__(self):
        check_fields(self)
        for name in ("n_latent", "n_models", "n_steps", "n_inputs", "random_state"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else int(value))


@checked_methods
class MultimodalAutoencoder(Estimator[MultimodalConfig, FittedMultimodal]):
    """Autoencoder over several modalities, any of which a sample may lack: fit, encode, predict, save.

    Single cells: each modality has an embedding in units of its sampling noise (RNA by a count `Autoencoder`, others by
    principal components), and these stand side by side, each as long as its share of signal. A modality with less than a
    quarter of the largest share is left out of the embedding: its weight is 0, and it only places cells that have no other.
    In a missing modality, a cell is placed at the mean of the five training cells most like it in the others.

    Cohorts: each modality is reduced to its significant principal components. Encoders, one for each modality, lead into
    one latent space, from which decoders give every modality back, and from which the place of the sample in the neighbor
    graph of all modalities is predicted. Training hides entries and whole modalities, so that any subset of them gives the
    same kind of embedding. It holds the predicted place in the graph, the principal components of what was decoded and, a
    tenth as long, those of what was measured: neighbors and clusters do not feel the last, linear models (regression, Cox),
    which standardize their inputs, do.

    Parameters
    ----------
    recipe, n_latent, n_models, n_steps, n_inputs, random_state
        See `MultimodalConfig`.

    Attributes
    ----------
    config
        The frozen `MultimodalConfig`.
    kinds
        Kind of data of each modality.
    modality_weights
        How much each modality counts, summing to one.
    recipe
        The recipe taken.
    variance_explained
        For each modality the share of held-out entries' variance (standardized; of RNA in single cells: deviance) that is
        explained.
    history
        ``step``, ``loss`` and ``heldout`` of the network's training; of cells without RNA counts nothing.

    Examples
    --------
    >>> import numpy as np, anndata as ad, mudata as md, aeverse as ae
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.normal(size=(60, 2))
    >>> mods = {m: ad.AnnData(factors @ rng.normal(size=(2, 20)) + rng.normal(size=(60, 20))) for m in ("rna", "protein")}
    >>> mdata = md.MuData(mods)
    >>> model = ae.models.MultimodalAutoencoder(n_steps=20).fit(mdata)
    >>> model.encode(mdata).shape[0]
    60
    """

    fit_class = FittedMultimodal

    def __init__(
        self,
        *,
        recipe: Literal["auto", "samples", "cells"] = "auto",
        n_latent: int = 32,
        n_models: int | None = None,
        n_steps: int | None = None,
        n_inputs: int = 3000,
        random_state: int = 0,
    ):
        super().__init__(MultimodalConfig(recipe, n_latent, n_models, n_steps, n_inputs, random_state))

    # ---- learning ----------------------------------------------------------------------------------------------
    @_runtime.learning()
    def fit(
        self,
        mdata: MuData,
        *,
        modalities: str | Sequence[str] | None = None,
        kind: str | Mapping[str, str] = "auto",
        layer: Mapping[str, str | None] | None = None,
        mask_var: Mapping[str, str | np.ndarray | None] | None = None,
        batch_key: str | None = None,
        covariates: str | Sequence[str] | None = None,
        device: str = "auto",
        progress: bool | None = None,
    ) -> MultimodalAutoencoder:
        """Learn from `mdata`, which is not changed.

        Parameters
        ----------
        mdata
            Samples without a modality, entries that are NaN: both are left out of what is learned, never filled in.
        modalities
            Names of the modalities to use; None: all.
        kind
            ``"auto"`` infers the kind of data of each modality from its values; a dict names it for some:
            ``"counts"`` (RNA), ``"protein"`` (protein counts), ``"peaks"`` (chromatin), ``"binary"`` (mutations),
            ``"ordinal"`` (copy number), ``"fractions"`` (methylation), ``"continuous"``.
        layer
            Modality -> layer to read; those not named are read from ``X``.
        mask_var
            Modality -> column of its ``var`` (or boolean array) with the features that the encoder reads. Default:
            ``highly_variable`` where present, else all (for counts, the most overdispersed).
        batch_key
            Column of ``mdata.obs``: the components of a modality are shifted, each region of them by itself, so that
            matching samples of different batches meet, neighbors are sought in every batch alike, and the decoders
            get the batch as an input.
        covariates
            Further columns of ``mdata.obs``: categories (text, truth values) are treated as batches are, one column after the
            other; of numbers, the slope within populations is taken out of each modality.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …
        progress
            Show a progress bar; None: on a terminal or in a notebook.

        Returns
        -------
        The estimator itself.
        """
        self._fit = None  # a fit that fails leaves no model
        data = _slots.read_modalities(_slots.writable_mudata(mdata, copy=False), modalities, layer, mask_var)
        design, table = Covariates.read(mdata, batch_key, covariates)
        layers = {m: name for m, name in (layer or {}).items() if m in data}
        kinds = kinds_of(data, kind)
        data = {m: without_empty(d, kinds[m]) for m, d in data.items()}
        require_enough(data, mdata.n_obs)
        fusion_class = FUSIONS[choose_recipe(self.config.recipe, data, kinds, mdata.n_obs)]
        training = TrainingModalities(data, kinds, design, table, mdata.n_obs)
        fusion, scores = fusion_class.fit(training, self.config, _runtime.resolve_device(device), progress)
        targets = {m: Target.fit(d, kinds[m], scores.values[m][d.rows]) for m, d in data.items()}
        names, labels = mdata.obs_names.astype(str), label_columns(mdata.obs, np.arange(mdata.n_obs))
        seed = self.config.random_state
        self._fit = FittedMultimodal(fusion, kinds, layers, design, targets, scores, names, labels, seed)
        return self

    def _describe(self) -> str:
        parts = [f"{m} ({kind}, {self.modality_weights[m]:.0%})" for m, kind in self.kinds.items()]
        return f"recipe={self.recipe!r}: {', '.join(parts)}"

    # ---- what the fit learned -----------------------------------------------------------------------------------
    recipe: str = from_fit("fusion.recipe", "The recipe taken.")
    kinds: dict[str, str] = from_fit("kinds", "Kind of data of each modality.")
    layer: dict[str, str | None] = from_fit("layer", "Layers that were read.")
    modality_weights: dict[str, float] = from_fit(
        "fusion.modality_weights", "How much each modality counts, summing to one."
    )
    history: dict[str, list[float]] = from_fit("fusion.history", "``step``, ``loss`` and ``heldout`` of training.")
    variance_explained: dict[str, float] = from_fit("fusion.variance_explained", "Of held-out entries, by modality.")
    labels: dict[str, pd.Categorical] = from_fit("labels", "Labels of the training samples.")
    batch_key: str | None = from_fit("covariates.batch_key", "Column of ``obs`` with the batches.")
    batches: list[str] | None = from_fit("covariates.batches", "Batches that the model knows.")
    covariates: list[str] = from_fit("covariates.others", "Columns of ``obs`` with further covariates.")

    # ---- using -------------------------------------------------------------------------------------------------
    @_runtime.one_thread()
    def encode(
        self,
        mdata: MuData,
        *,
        modalities: str | Sequence[str] | None = None,
        layer: Mapping[str, str | None] | None = None,
    ) -> np.ndarray:
        """Embedding of each sample of ``mdata.obs``, in order, from whatever modalities it has.

        Features are matched by name: order does not matter, others are ignored, missing ones take their mean.

        Parameters
        ----------
        mdata
            Any subset of the modalities that the model knows.
        modalities
            Use only these; None: all that the model knows.
        layer
            Modality -> layer to read; None: as for fit.

        Returns
        -------
        Array of shape (samples, dimensions of the embedding). A sample without any modality gets that of an empty one.

        Raises
        ------
        ValueError
            No modality is known to the model, or fewer than a tenth of a modality's features are there.
        """
        return self.fitted.encode(mdata, modalities, layer)

    @_runtime.one_thread()
    def weights(
        self,
        mdata: MuData,
        *,
        modalities: str | Sequence[str] | None = None,
        layer: Mapping[str, str | None] | None = None,
    ) -> pd.DataFrame:
        """How much each modality counts in the embedding of each sample: (samples, modalities), rows summing to one.

        Zero where the modality is missing. Parameters as in `encode`.
        """
        return self.fitted.weights(mdata, modalities, layer)

    @_runtime.one_thread()
    def predict(
        self,
        mdata: MuData,
        target: str,
        *,
        features: str | Sequence[str] | None = None,
        modalities: str | Sequence[str] | None = None,
        layer: Mapping[str, str | None] | None = None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Predict one modality from the others, for every sample of ``mdata.obs``.

        The values of the training samples nearest to it, in the embedding, in the components that the other modalities give,
        and in what a linear regression on these predicts of the target; a sample never predicts itself. Counts are predicted
        as log1p (RNA after normalization to the median depth), peaks and mutations as probabilities, anything else on
        its own scale.

        Parameters
        ----------
        mdata
            Samples with at least one of the model's other modalities; those without get NaN.
        target
            Modality to predict, one of those the model was fitted to; `mdata` need not hold it.
        features
            Features wanted; None: all.
        modalities
            Predict from these only; None: all others.
        layer
            Modality -> layer to read; None: as for fit.

        Returns
        -------
        Mean and standard deviation, DataFrames (samples, features).
        """
        return self.fitted.predict(mdata, target, features, modalities, layer)


def choose_recipe(recipe: str, data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], n_obs: int) -> str:
    """``"auto"``: cells where there are counts that are mostly zeros, and not too few samples."""
    if recipe != "auto":
        return recipe
    molecules: list[sp.csr_matrix] = [d.x for m, d in data.items() if KINDS[kinds[m]].is_count and sp.issparse(d.x)]
    mostly_zeros = any(x.nnz < x.shape[0] * x.shape[1] / 2 for x in molecules)
    return "cells" if mostly_zeros and n_obs >= FEW_SAMPLES else "samples"
