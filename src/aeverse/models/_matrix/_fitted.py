"""All that a fit of `Autoencoder` learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse import _runtime, _slots
from aeverse.models._matrix._build import rebuild
from aeverse.models._matrix._counts import CountNetwork, Counts
from aeverse.models._matrix._lazy import DenoisedValues
from aeverse.models._matrix._learn import History
from aeverse.models._matrix._network import Network
from aeverse.models._matrix._on_disk import CountsOnDisk
from aeverse.models._matrix._read import read
from aeverse.models._matrix._schema import check_model
from aeverse.models._matrix._settings import Settings
from aeverse.models._matrix._values import Values
from aeverse.models._shared._attribution import Attribution, net_of_ensemble, of_dimensions, of_groups
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._features import Features
from aeverse.models._shared._reference import QueryGroup, Reference, label_columns, read_labels, reference_rows
from aeverse.nn import generator_on
from aeverse.train import Samples, StoredSamples, in_memory

AVERAGE = "average"  # in all covariates, in transform_batch


@dataclass(frozen=True)
class FittedAutoencoder:
    """Frozen: another fit makes another one.

    Parameters
    ----------
    settings
        What was done.
    features, covariates
        What the network knows.
    network
        What was trained.
    history
        Of training.
    explained, explained_by_feature
        Share of the deviance of held-out molecules or entries, over all and for each feature.
    reference
        Training samples that are remembered; None in a model that only decodes.
    n_samples
        Number of all training samples.
    """

    settings: Settings
    features: Features
    covariates: Covariates
    network: Network
    history: History
    explained: float
    explained_by_feature: np.ndarray
    reference: Reference | None
    n_samples: int

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.network.to(device)

    @property
    def labels(self) -> dict[str, pd.Categorical]:
        """Labels of the training samples that are remembered."""
        return {} if self.reference is None else self.reference.labels

    @property
    def code_names(self) -> list[str] | None:
        """Names of the dimensions of the code, where they are gene sets."""
        return None if self.settings.gene_sets is None else list(self.settings.gene_sets)

    # ---- new data ----------------------------------------------------------------------------------------------
    def read(
        self, adata, layer: str | None, *, may_lack_covariates: bool = False
    ) -> tuple[Counts | CountsOnDisk | Values, np.ndarray | None]:
        """New data in the model's order of features, and their covariates."""
        data = read(adata, layer, self.settings.likelihood)
        positions = self.features.positions_in(_slots.feature_names(adata), data.absent)
        table = self.covariates.table(adata, may_lack_columns=may_lack_covariates)
        return data.columns(positions), self.covariates.matrix(table)

    def samples(self, adata, layer: str | None, *, may_lack_covariates: bool = False) -> Samples | StoredSamples:
        """New data, to be given out as batches."""
        data, covariate = self.read(adata, layer, may_lack_covariates=may_lack_covariates)
        return data.samples(self.features.inputs, covariate, self.network.device)

    def columns(self, names: Sequence[str] | str | None) -> np.ndarray:
        """Positions of some features; None: of all."""
        return np.arange(len(self.features.names)) if names is None else _slots.positions(names, self.features.names)

    def count_network(self, caller: str) -> CountNetwork:
        """The network of a model of counts, which `caller` needs."""
        if not isinstance(self.network, CountNetwork):
            raise ValueError(
                f"{caller} needs a model of counts, with likelihood 'nb' or 'poisson'; this one has "
                f"{self.settings.likelihood!r}."
            )
        return self.network

    def checked_code(self, code: np.ndarray, n_samples: int | None = None) -> np.ndarray:
        """A code that the model can decode, single precision; `n_samples`: how many rows it must have."""
        values = _numbers(code, "code", "what encode gives")
        if values.ndim != 2 or values.shape[1] != self.settings.n_code:
            raise ValueError(f"code has shape {values.shape}; this model's codes have {self.settings.n_code} columns.")
        if n_samples is not None and len(values) != n_samples:
            raise ValueError(
                f"code has {len(values)} rows for {n_samples} cells; pass what encode gives for these cells."
            )
        if broken := int((~np.isfinite(values).all(1)).sum()):
            raise ValueError(f"code has missing or infinite values in {broken} of {len(values)} rows; leave those out.")
        return values

    # ---- using -------------------------------------------------------------------------------------------------
    def encode(self, adata, layer: str | None, raw: bool, return_sd: bool):
        """See `Autoencoder.encode`."""
        if not return_sd:
            return self.network.encode(self.samples(adata, layer), raw=raw)
        if raw:
            raise ValueError("return_sd=True is in the units of the embedding; leave out raw=True.")
        network, samples = self.count_network("return_sd=True"), self.samples(adata, layer)
        return network.encode(samples), network.embedding_sd(samples, self.settings.random_state)

    def score(self, adata, layer: str | None, share_heldout: float, random_state: int) -> float:
        """See `Autoencoder.score`."""
        data, covariate = self.read(adata, layer)
        training, heldout = data.hold_out(share_heldout, np.random.default_rng(random_state))
        samples = in_memory(training.samples(self.features.inputs, covariate, self.network.device))
        return self.network.deviances(samples, heldout).explained

    def active_share(self, code: np.ndarray) -> np.ndarray:
        """See `Autoencoder.active_share`."""
        threshold = 0.0 if self.settings.target_activity is None else 0.5
        members = np.split(self.checked_code(code), self.settings.n_models, 1)
        return (np.hstack([member[:, self.settings.n_guided :] for member in members]) > threshold).mean(1)

    def decode(
        self, code: np.ndarray, names: Sequence[str] | str | None, library: float | np.ndarray, batch: str | None
    ) -> np.ndarray:
        """See `Autoencoder.decode`."""
        columns, code = self.columns(names), self.checked_code(code)
        library = _numbers(library, "library", "a number, or one for each code").reshape(-1, 1)
        if len(library) not in (1, len(code)) or not ((library >= 0) & (library < np.inf)).all():
            raise ValueError(f"library must be a number, or one for each of the {len(code)} codes, and not negative.")
        covariate = self.covariates.average(len(code), batch)
        return self.network.decode(code, np.broadcast_to(library, (len(code), 1)), covariate, columns)

    def denoise(
        self,
        adata,
        layer: str | None,
        names: Sequence[str] | str | None,
        target_sum: float | None,
        transform_batch: str | None,
        code: np.ndarray | None,
        return_sd: bool,
        lazy: bool,
    ) -> Any:
        """See `Autoencoder.denoise`."""
        network, samples, columns = self.count_network("denoise"), self.samples(adata, layer), self.columns(names)
        measured, target = self.features.names.isin(adata.var_names), self._transformed_to(transform_batch)
        code = None if code is None else self.checked_code(code, len(samples))
        if not lazy:
            options: dict[str, Any] = {"target_sum": target_sum, "code": code, "return_sd": return_sd}
            return network.denoise(samples, measured, columns, target=target, **options)
        code = network.encode(samples) if code is None else code
        mean = DenoisedValues(network, samples, measured, columns, target, target_sum, code)
        return (mean.as_dask(), replace(mean, sd=True).as_dask()) if return_sd else mean.as_dask()

    def _transformed_to(self, transform_batch: str | None) -> np.ndarray | None:
        """Covariates that all cells are to have, (1, columns): average ones, but for a batch that is named; None: their own."""
        if transform_batch is None:
            return None
        if not self.covariates.keys:
            raise ValueError(
                f"transform_batch={transform_batch!r} needs a model that was trained with batch_key=, or other covariates=."
            )
        names = self.covariates.batches or []
        if transform_batch not in (AVERAGE, *names):
            raise ValueError(
                f"transform_batch={transform_batch!r} must be {AVERAGE!r} or a batch of the model: {names or 'none'}."
            )
        return self.covariates.average(1, None if transform_batch == AVERAGE else transform_batch)

    def dropouts(
        self,
        adata,
        layer: str | None,
        names: Sequence[str] | str | None,
        depth: float,
        threshold: float,
        code: np.ndarray | None,
    ) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
        """See `Autoencoder.dropouts`."""
        network, samples, columns = self.count_network("dropouts"), self.samples(adata, layer), self.columns(names)
        measured = self.features.names.isin(adata.var_names)
        code = None if code is None else self.checked_code(code, len(samples))
        return network.dropouts(samples, measured, columns, depth=depth, threshold=threshold, code=code)

    def sample(self, n: int, library: float | np.ndarray, random_state: int) -> np.ndarray:
        """See `Autoencoder.sample`."""
        if "variational" not in self.settings.regularizers:
            raise ValueError(
                "only a model with regularizer='variational' can be sampled from; this one has "
                f"{self.settings.regularizer!r}."
            )
        code = np.random.default_rng(random_state).standard_normal((n, self.settings.n_code), np.float32)
        mean = torch.tensor(self.decode(code, None, library, None), device=self.network.device)
        generator = generator_on(self.network.device, torch.Generator().manual_seed(random_state))
        with torch.no_grad():
            return self.network.ensemble.members[0].likelihood.draw(mean, generator).cpu().numpy()

    def loadings(self) -> pd.DataFrame:
        """See `Autoencoder.loadings`."""
        if self.settings.decoder != "linear":
            raise ValueError("loadings are the weights of a linear decoder; this model has decoder='mlp'.")
        members = self.network.ensemble.members
        weights = np.hstack([member.decoder.loadings_at_zero().detach().cpu().numpy() for member in members])
        if (units := self.network.ensemble.units) is not None:  # a step of the embedding moves all members
            weights = weights @ units.inverse.cpu().numpy().T / len(members)
        return pd.DataFrame(weights, index=self.features.names, columns=self.code_names)

    def placed(self, adata, layer: str | None) -> Iterator[QueryGroup]:
        """See `Estimator.placed`."""
        samples = self.samples(adata, layer, may_lack_covariates=True)
        if self.reference is None:
            raise ValueError("this model keeps no training samples to compare new ones with; fit it again.")
        code, measured = self.network.encode(samples), samples.measured()
        for rows, reference in ((np.flatnonzero(measured), self.reference), (np.flatnonzero(~measured), None)):
            if len(rows):
                yield QueryGroup(rows, code[rows], reference)

    def label_source(self, adata, labels: Sequence[str], group: QueryGroup, layer: str | None) -> Reference:
        """See `Estimator.label_source`."""
        columns = {name: read_labels(adata.obs[name], name) for name in labels}
        return Reference.for_labels(self.network.encode(self.samples(adata, layer)), columns)

    def attributions(
        self, adata, groups: pd.Categorical | None, n_top: int, layer: str | None, random_state: int
    ) -> tuple[dict[str, Attribution], list[str]]:
        """See `Estimator.attributions`."""
        samples, rng = self.samples(adata, layer), np.random.default_rng(random_state)
        measured = samples.measured()
        nets = [net_of_ensemble(self.network.ensemble, self.features.inputs, samples.some(measured))]
        if groups is None:
            attributions = of_dimensions(nets, n_top, rng)
            columns = self.code_names or [str(i) for i in range(self.settings.n_code)]
        else:
            attributions, columns = of_groups(nets, groups[measured], n_top, rng), list(groups.categories)
        names = _slots.feature_names(adata)
        if not names.equals(self.features.names):
            for part in attributions.values():
                positions = names.get_indexer(self.features.names[part.positions])
                part.positions = np.where(part.positions >= 0, positions, -1)
        return attributions, columns

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "settings": self.settings.tree(),
            "features": self.features.tree(),
            "covariates": self.covariates.tree(),
            "history": self.history,
            "explained": self.explained,
            "explained_by_feature": self.explained_by_feature,
            "network": self.network.tree(),
            "reference": None if self.reference is None else self.reference.tree(),
            "n_samples": self.n_samples,
        }

    @staticmethod
    def check_model(tree: Any) -> None:
        """Raise a ValueError that names the place where a tree is not what `Autoencoder.save` keeps."""
        check_model(tree)

    @classmethod
    @_runtime.learning()
    def from_tree(cls, tree: Mapping[str, Any]) -> FittedAutoencoder:
        """Rebuild from a `tree`."""
        settings = Settings.from_tree(tree["settings"])
        features, covariates = Features.from_tree(tree["features"]), Covariates.from_tree(tree["covariates"])
        network = rebuild(settings, features, covariates, tree["network"])
        reference = None if tree["reference"] is None else Reference.from_tree(tree["reference"])
        history, explained, by_feature = tree["history"], tree["explained"], tree["explained_by_feature"]
        n = tree["n_samples"]
        return cls(settings, features, covariates, network, history, explained, by_feature, reference, n)


def _numbers(values: Any, name: str, remedy: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold numbers, found {np.asarray(values).dtype}; pass {remedy}.") from error


def remember(
    network: Network,
    samples: Samples | StoredSamples,
    obs: pd.DataFrame,
    training_rows: np.ndarray,
    kept_out: np.ndarray,
) -> Reference:
    """The training samples that are remembered, compared with those that were kept out of training.

    Parameters
    ----------
    network
        Gives their codes.
    samples, obs
        All samples, and their annotations.
    learned, kept_out
        Positions of the samples that training saw, and of the others.
    """
    reference = training_rows[reference_rows(len(training_rows), network.settings.random_state)]
    rows = np.concatenate([reference, kept_out])
    return Reference.of(network.encode(samples.some(rows)), label_columns(obs, rows), len(kept_out))
