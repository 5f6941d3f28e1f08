"""The embedding of one modality of single cells, in units of noise: RNA by an autoencoder, the rest by components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from aeverse import _slots
from aeverse.models._autoencoder import Autoencoder
from aeverse.models._joint._data import HeldoutEntries, explained, features_found, mask_columns
from aeverse.models._matrix._counts import Counts
from aeverse.models._shared._attribution import Function, Net, Side, net_of_ensemble
from aeverse.models._shared._correction import corrected, correction, correction_from_tree, correction_tree
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._genes import overdispersed_genes
from aeverse.models._shared._noise_units import population_units
from aeverse.models._shared._views import View
from aeverse.nn import Correction
from aeverse.train import Samples, split_molecules

MAX_COMPONENTS = 50  # in units of noise, those without signal do no harm
NOISE_CELLS, NOISE_ENTRIES = 5000, 15_000  # cells that are halved, and the differences wanted


# ---- RNA ---------------------------------------------------------------------------------------------------------
@dataclass
class CountEmbedding:
    """A count autoencoder, whose embedding is in units of noise already."""

    model: Autoencoder

    @classmethod
    def fit(
        cls,
        d: _slots.Modality,
        covariates: Covariates,
        table: pd.DataFrame | None,
        config: Any,
        device: str,
        progress: bool | None,
    ) -> CountEmbedding:
        """Train on counts; `table`: covariates of these cells."""
        model = Autoencoder(
            likelihood="nb",
            n_latent=config.n_latent,
            n_models=config.n_models,
            max_steps=config.n_steps,
            random_state=config.random_state,
        )
        # genes that the embedding does not read need no decoder either
        genes = overdispersed_genes(sp.csr_matrix(d.x), config.n_inputs) if d.mask is None else np.flatnonzero(d.mask)
        names = np.arange(len(d.rows)).astype(str)
        obs = pd.DataFrame(index=names) if table is None else table.set_axis(names)
        adata = ad.AnnData(sp.csr_matrix(d.x[:, genes]), obs=obs, var=pd.DataFrame(index=d.names[genes]))
        model.fit(
            adata,
            mask_var=None,
            batch_key=covariates.batch_key,
            covariates=covariates.others or None,
            device=device,
            progress=progress,
        )
        return cls(model)

    @property
    def variance_explained(self) -> float:
        """Share of the deviance of held-out molecules that the decoder explains."""
        return self.model.heldout_deviance_explained

    @property
    def history(self) -> dict[str, list[float]]:
        """Of training."""
        return dict(self.model.history)

    def check(self, modality: str, names: pd.Index) -> None:
        """Refuse data that hold too few of the genes that the encoder reads."""
        self.model.fitted.features.positions_in(names, Counts.absent, place=f"modality {modality!r}: ")

    def _samples(self, d: _slots.Modality, table: pd.DataFrame | None) -> Samples:
        fit = self.model.fitted
        counts = Counts(sp.csr_matrix(d.x), fit.settings.likelihood, "X")
        positions = None if d.names.equals(fit.features.names) else d.names.get_indexer(fit.features.names)
        covariates = fit.covariates
        matrix = covariates.average(len(d.rows)) if table is None else covariates.matrix(table)
        return counts.columns(positions).samples(fit.features.inputs, matrix, fit.network.device)

    def __call__(self, d: _slots.Modality, table: pd.DataFrame | None) -> np.ndarray:
        """Embedding, (cells, dimensions); without a table as of average cells."""
        return self.model.fitted.network.encode(self._samples(d, table))

    def net(self, d: _slots.Modality, table: pd.DataFrame | None) -> tuple[Side, Tensor, Function]:
        """What it reads, what the first layer makes of that, and the embedding as a function of this."""
        fit = self.model.fitted
        net: Net = net_of_ensemble(fit.network.ensemble, fit.features.inputs, self._samples(d, table))
        side = net.sides[""]
        positions = d.names.get_indexer(fit.features.names) if not d.names.equals(fit.features.names) else None
        if positions is not None:
            side.positions = np.where(side.positions >= 0, positions[side.positions], -1)
        return side, net.hidden, net.code

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self.model.fitted.to(device)

    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {"class": "counts", "model": {"config": asdict(self.model.config), "fit": self.model.fitted.tree()}}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> CountEmbedding:
        """Rebuild from a `tree`."""
        return cls(Autoencoder.from_tree(tree["model"]))


# ---- other kinds of data -----------------------------------------------------------------------------------------
@dataclass
class LinearEmbedding:
    """Principal components without what covariates do to them, whitened by their noise, then within populations."""

    view: View
    mean: np.ndarray
    matrix: np.ndarray
    covariates: Covariates
    correction: Correction | None
    variance_explained: float
    history: dict[str, list[float]]

    @classmethod
    def fit(
        cls, d: _slots.Modality, kind: str, covariates: Covariates, table: pd.DataFrame | None, config: Any
    ) -> LinearEmbedding:
        """Learn from one modality; `table`: covariates of these cells.

        What the significant components say of held-out entries is learned without these.
        """
        rng = np.random.default_rng(config.random_state)
        heldout, columns = HeldoutEntries.draw(d, rng), mask_columns(d)
        view = View(kind, config.n_inputs, MAX_COMPONENTS, only_significant=False)
        scores = view.fit(heldout.without(d.x), d.names, columns)
        score = explained(view, scores, heldout.judged(d, view), view.n_significant)
        scores, matrix_of_covariates = view(d.x, d.names), covariates.matrix(table)
        effects = correction(scores, covariates, matrix_of_covariates, config.random_state)
        scores = corrected(
            scores, effects, matrix_of_covariates
        )  # batches that lie apart would else count as populations
        differences = noise_differences(view, d, rng)
        matrix = np.eye(scores.shape[1])
        if len(scores) > scores.shape[1] and differences.any():
            matrix = population_units(scores, differences, config.random_state)
        return cls(view, scores.mean(0), matrix.astype(np.float32), covariates, effects, score, {})

    def check(self, modality: str, names: pd.Index) -> None:
        """Refuse data that hold too few of the features that the view reads."""
        features_found(self.view.names, len(self.view.match(names)[1]), modality, names)

    def __call__(self, d: _slots.Modality, table: pd.DataFrame | None) -> np.ndarray:
        """Embedding, (cells, dimensions)."""
        scores, matrix = self.view(d.x, d.names), self.covariates.matrix(table, unknown=0.0)
        return (corrected(scores, self.correction, matrix) - self.mean) @ self.matrix

    def net(self, d: _slots.Modality, table: pd.DataFrame | None) -> tuple[Side, Tensor, Function]:
        """What it reads, its embedding, and no function of that but itself."""
        y, columns, where = self.view.read(d.x, d.names)
        weight = torch.as_tensor(self.view.loadings[columns] / self.view.unit @ self.matrix)
        side = Side(y, weight, where, np.ones(len(d.rows), bool))
        return side, torch.as_tensor(self(d, table)), lambda hidden, context: hidden

    def to(self, device: torch.device) -> None:
        """Nothing here is on a device."""

    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "class": "linear",
            "view": self.view.tree(),
            "mean": self.mean,
            "matrix": self.matrix,
            "covariates": self.covariates.tree(),
            "correction": correction_tree(self.correction),
            "explained": self.variance_explained,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> LinearEmbedding:
        """Rebuild from a `tree`."""
        view, covariates = View.from_tree(tree["view"]), Covariates.from_tree(tree["covariates"])
        stored_correction = correction_from_tree(tree["correction"], covariates, view.loadings.shape[1])
        return cls(view, tree["mean"], tree["matrix"], covariates, stored_correction, tree["explained"], {})


Embedding = CountEmbedding | LinearEmbedding
EMBEDDINGS: dict[str, type[CountEmbedding] | type[LinearEmbedding]] = {
    "counts": CountEmbedding,
    "linear": LinearEmbedding,
}


def noise_differences(view: View, d: _slots.Modality, rng: np.random.Generator) -> np.ndarray:
    """Differences between two halves of the molecules, on the components, (any number, components).

    For values that are not counts, differences with the variance that the components leave over, which is that of noise.
    """
    n_components = view.loadings.shape[1]
    if not view.kind.is_count:
        return 2 * np.sqrt(n_components) * view.residual / view.unit * np.eye(n_components)
    cells = np.sort(rng.permutation(d.x.shape[0])[:NOISE_CELLS])
    x, differences = d.x[cells], []
    for _ in range(min(3, -(-NOISE_ENTRIES // len(cells)))):
        first, second = halves(x, rng)
        differences.append(view(first, d.names) - view(second, d.names))
    return np.concatenate(differences)


def halves(x: sp.csr_matrix | np.ndarray, rng: np.random.Generator):
    """Each molecule in one of two halves; what was not measured (NaN) is in neither."""
    if isinstance(x, sp.csr_matrix):
        return split_molecules(x, 0.5, rng)
    first = rng.binomial(np.rint(np.nan_to_num(x)).astype(np.int64), 0.5).astype(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), first), x - first
