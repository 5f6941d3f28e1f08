"""The autoencoder of one matrix, as an estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse import _runtime, _slots
from aeverse._arguments import checked_methods
from aeverse.models._estimator import Estimator, from_fit
from aeverse.models._matrix import _choices as choices
from aeverse.models._matrix._build import build
from aeverse.models._matrix._fitted import FittedAutoencoder, remember
from aeverse.models._matrix._learn import History, finish, learn
from aeverse.models._matrix._read import known_types, read_to_learn
from aeverse.models._matrix._settings import Config, Settings, inherit, resolve
from aeverse.models._matrix._transfer import choose_features, input_from, start_from
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._kinds import likelihood_of
from aeverse.models._shared._reference import Reference, calibration_rows
from aeverse.nn import Ensemble
from aeverse.train import in_memory

if TYPE_CHECKING:
    from anndata import AnnData


@checked_methods
class Autoencoder(Estimator[Config, FittedAutoencoder]):
    """Autoencoder of one matrix: fit, encode, decode, save.

    For counts, the decoder's mean is the prior of a gamma-Poisson model whose posterior mean, given a cell's own counts, is
    `denoise`. Of the weights that are judged while training, those stay that explain most of the molecules (for other
    values: of the entries) that were held out.

    Parameters
    ----------
    likelihood, regularizer, decoder, gene_sets, n_latent, n_hidden, n_models, n_inputs, max_epochs, max_steps, \
    patience, batch_size, learning_rate, corruption, strength, target_activity, prior_precision, share_heldout, share_calibration, random_state
        See `Config`.

    Attributes
    ----------
    config
        The frozen `Config`: what was asked for.
    settings
        The same, with everything decided that was left open (``"auto"``, None).
    var_names
        Features, in the order of the decoder's output.
    history
        ``step``, ``loss`` and ``heldout`` (deviance explained on held-out molecules or entries).
    deviance_explained, heldout_deviance_explained
        The same for each feature, and over all.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> model = ae.models.Autoencoder(n_latent=8, n_models=1, max_epochs=2).fit(adata)
    >>> model.encode(adata).shape
    (700, 8)
    >>> model.decode(model.encode(adata), genes=["CD79A", "LYZ"]).shape
    (700, 2)
    """

    fit_class = FittedAutoencoder

    def __init__(
        self,
        *,
        likelihood: choices.Likelihood | Literal["auto"] = "auto",
        regularizer: choices.Regularizer | Literal["auto"] | Sequence[choices.Regularizer] | None = "denoising",
        decoder: choices.Decoder = "linear",
        gene_sets: Mapping[str, Any] | pd.DataFrame | None = None,
        n_latent: int | None = None,
        n_hidden: Sequence[int] = (128,),
        n_models: int | None = None,
        n_inputs: int = 3000,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        patience: int = 3,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        corruption: choices.Corruption | None = None,
        strength: float = 1.0,
        target_activity: float | None = None,
        prior_precision: float | None = None,
        share_heldout: float = 0.05,
        share_calibration: float = 0.05,
        random_state: int = 0,
    ):
        config = locals()
        super().__init__(Config(**{name: config[name] for name in Config.__dataclass_fields__}))

    # ---- learning ----------------------------------------------------------------------------------------------
    @_runtime.learning()
    def fit(
        self,
        adata: AnnData,
        *,
        layer: str | None = None,
        mask_var: str | np.ndarray | None = "auto",
        batch_key: str | None = None,
        covariates: str | Sequence[str] | None = None,
        label_key: str | None = None,
        init: Autoencoder | None = None,
        callback: Callable[[History], bool | None] | None = None,
        checkpoint: str | Path | None = None,
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
            where present, else the `n_inputs` most overdispersed features of counts, and all of other values. All features are decoded.
        batch_key
            Column of ``adata.obs`` with the batches, inputs of encoder and decoder; in the embedding, samples that match are brought
            together [Haghverdi2018]_, but not with ``"sparse"`` or `gene_sets`, whose single dimensions mean something.
        covariates
            Further columns of ``adata.obs``: categories (text, truth values) and numbers, see `aeverse.tl.embed`.
        label_key
            Of counts: column of ``adata.obs`` with known types, missing where they are not known, see `aeverse.tl.embed`.
        init
            A fitted `Autoencoder` of other data to start from, for data with few samples: what it learned of shared
            features (matched by name) is copied, and training goes on from there, more slowly and near to it [Li2018]_. What
            the net is, and which features the encoder reads, then comes from that model; `mask_var` is ignored.
        callback
            Called with the `history` so far after each judgment; where it returns True, training ends.
        checkpoint
            File that keeps where training stands, every 100 steps and at the end. Where it exists, training goes on from it:
            on the CPU, to the same bits as without the interruption.
        device, progress
            ``"auto"``, ``"cpu"``, ``"cuda"`` …; show a progress bar, None: on a terminal or in a notebook.

        Returns
        -------
        The estimator itself.
        """
        source, self._fit = None if init is None else init.fitted, None  # a fit that fails leaves no model
        data = read_to_learn(adata, layer, self.config.likelihood if source is None else source.settings.likelihood)
        n, config = len(data), self.config
        settings = resolve(config, data.likelihood, n) if source is None else inherit(config, source.settings, n)
        mask, (design, table) = _slots.read_mask(adata, mask_var), Covariates.read(adata, batch_key, covariates)
        rng, to_device = np.random.default_rng(settings.random_state), _runtime.resolve_device(device)
        rows, kept_out = calibration_rows(len(data), settings.share_calibration, settings.random_state)
        labels = known_types(adata, label_key, settings, rows)
        training_data, heldout = data[rows].hold_out(settings.share_heldout, rng)
        features = choose_features(_slots.feature_names(adata), training_data, mask, settings, source)
        matrix, input_layer = design.matrix(table), None if source is None else input_from(source, features)
        training = training_data.samples(features.inputs, None if matrix is None else matrix[rows], to_device)
        samples, generator = in_memory(training), torch.Generator().manual_seed(settings.random_state)
        parts = training_data.net_parts(settings, samples, data, input_layer)
        if settings.n_guided and source is None:  # another model knows already where samples lie in a graph
            codes = design.batch_codes(samples.covariate)
            samples.graph_target = training_data.graph_target(samples, features, parts, settings, codes, mask)
        network = build(settings, features, design, parts, generator, n_samples=len(training), device=to_device)
        if source is not None:
            start_from(source, network, features)
        reporting = callback, checkpoint, progress
        history = learn(network, training, samples, heldout, rng, generator, source is not None, *reporting)
        deviances = finish(network, samples, heldout, rng, design, training_data.in_memory(labels))
        all_samples = data.samples(features.inputs, matrix, to_device)
        reference = remember(network, all_samples, _slots.in_memory_table(adata.obs), rows, kept_out)
        results = (network, history, deviances.explained, deviances.explained_by_feature, reference)
        self._fit = FittedAutoencoder(settings, features, design, *results, n)
        return self

    def settings_for(self, adata: AnnData, *, layer: str | None = None) -> Settings:
        """What `fit` would do with these data: the configuration with everything decided."""
        likelihood: str = self.config.likelihood
        if likelihood == "auto":
            likelihood = likelihood_of(_slots.first_rows(adata, layer), _slots.feature_names(adata))
        return resolve(self.config, likelihood, adata.n_obs)

    def _describe(self) -> str:
        settings, (n, p) = self.settings, (self.n_code, len(self.var_names))
        kind = f"{settings.likelihood!r}, regularizer={settings.regularizer!r}, decoder={settings.decoder!r}"
        return f"{p} features -> {n} dimensions, {kind}, {self.heldout_deviance_explained:.1%} of held-out deviance explained"

    # ---- what the fit learned -----------------------------------------------------------------------------------
    settings: Settings = from_fit("settings", "The configuration with everything decided.")
    var_names: pd.Index = from_fit("features.names", "Features, in the order of the decoder's output.")
    inputs: np.ndarray = from_fit("features.inputs", "Positions of the features that the encoder reads.")
    batch_key: str | None = from_fit("covariates.batch_key", "Column of ``obs`` with the batches.")
    batches: list[str] | None = from_fit("covariates.batches", "Batches that the model knows.")
    covariates: list[str] = from_fit("covariates.others", "Columns of ``obs`` with further covariates.")
    history: History = from_fit("history", "``step``, ``loss`` and ``heldout`` of training.")
    deviance_explained: np.ndarray = from_fit("explained_by_feature", "Held-out deviance explained, by feature.")
    heldout_deviance_explained: float = from_fit("explained", "The same over all features.")
    net: Ensemble = from_fit("network.ensemble", "The members, as a torch module.")
    device: torch.device = from_fit("network.device", "Where the members are.")
    reference: Reference | None = from_fit("reference", "Training samples that the model remembers.")
    labels: dict[str, pd.Categorical] = from_fit("labels", "Their labels.")
    code_names: list[str] | None = from_fit("code_names", "Names of dimensions that are gene sets.")
    n_code: int = from_fit("settings.n_code", "Columns of a code.")
    n_guided: int = from_fit("settings.n_guided", "Leading dimensions of a member's code that predict the graph.")

    # ---- using -------------------------------------------------------------------------------------------------
    def encode(self, adata: AnnData, *, layer: str | None = None, raw: bool = False, return_sd: bool = False) -> Any:
        """Embedding of each sample; for a variational autoencoder the mean of its posterior, never a draw.

        For counts, one unit is about one standard deviation of sampling noise, see :doc:`/concepts`.

        Features are matched by name: order does not matter, others are ignored, missing ones count as zero in counts and
        are at their means elsewhere (a warning says how many were found).

        Parameters
        ----------
        adata
            Samples x features, of the kind that the model was fitted to.
        layer
            Layer to read; None is ``adata.X``.
        raw
            Give the latent values of the networks instead, with what batches and other covariates do to them. `decode` does not take these.
        return_sd
            For counts: return the sampling noise of each place too, its standard deviation if molecules were drawn anew.

        Returns
        -------
        Array of shape (samples, n_models * n_latent), or two.

        Raises
        ------
        ValueError
            Fewer than a tenth of the encoder's features are there, or the data are of another kind.
        """
        return self.fitted.encode(adata, layer, raw, return_sd)

    def decode(
        self,
        code: np.ndarray,
        *,
        genes: Sequence[str] | str | None = None,
        library: float | np.ndarray = 1e4,
        batch: str | None = None,
    ) -> np.ndarray:
        """Decoder's mean, in the units of the data: what embeddings stand for.

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
            For a model with a `batch_key`: the batch as which to decode; None: the average one. Other covariates are average.

        Returns
        -------
        Array of shape (samples, features).
        """
        return self.fitted.decode(code, genes, library, batch)

    def score(
        self, adata: AnnData, *, layer: str | None = None, share_heldout: float = 0.1, random_state: int = 0
    ) -> float:
        """Share of the deviance of held-out molecules or entries that the model explains, of data like those of `fit`.

        As `heldout_deviance_explained`, for other samples: a part of their molecules (or entries) is hidden from the
        encoder; 1 would be perfect, 0 is what the mean of each feature explains.

        Parameters
        ----------
        adata
            Samples x features.
        layer
            Layer to read; None is ``adata.X``.
        share_heldout, random_state
            Share that is hidden, and the seed of which it is.
        """
        return self.fitted.score(adata, layer, share_heldout, random_state)

    def denoise(
        self,
        adata: AnnData,
        *,
        layer: str | None = None,
        genes: Sequence[str] | str | None = None,
        target_sum: float | None = None,
        transform_batch: str | None = None,
        code: np.ndarray | None = None,
        return_sd: bool = False,
        lazy: bool = False,
    ) -> Any:
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
        transform_batch
            As if every cell came from this batch, or from the ``"average"`` one, other covariates being average; None: as they are.
        code
            Embeddings of the cells, where they are known already.
        return_sd
            Return the posterior standard deviations too; they include the spread of the ensemble's members.
        lazy
            Return dask arrays, which decode a block of cells when it is asked for. They hold a copy of the counts.

        Returns
        -------
        Array of shape (cells, genes), or two.
        """
        return self.fitted.denoise(adata, layer, genes, target_sum, transform_batch, code, return_sd, lazy)

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
        return self.fitted.dropouts(adata, layer, genes, depth, threshold, code)

    def sample(self, n: int, *, library: float | np.ndarray = 1e4, random_state: int = 0) -> np.ndarray:
        """Draw new data from a variational autoencoder: embeddings from the standard normal, then data given the embeddings.

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
            The model is not variational, so that its embeddings have no distribution to draw from.

        Examples
        --------
        >>> import aeverse as ae
        >>> adata = ae.datasets.pbmc68k_counts()
        >>> model = ae.models.Autoencoder(regularizer="variational", n_models=1, max_epochs=2).fit(adata)
        >>> model.sample(5, library=500).shape
        (5, 765)
        """
        return self.fitted.sample(n, library, random_state)

    def loadings(self) -> pd.DataFrame:
        """How each dimension of the embedding moves each feature: weights of the linear decoder, (features, n_models * n_latent).

        On the log scale for counts, on the logit scale for 0 and 1, in standard deviations for continuous values.
        """
        return self.fitted.loadings()

    def active_share(self, code: np.ndarray) -> np.ndarray:
        """Share of a sparse embedding's units that are active in each sample: above zero, or above one half where bounded."""
        return self.fitted.active_share(code)
