"""The recipe for single cells: embeddings of the modalities side by side, each in units of its own noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from aeverse import _slots
from aeverse.models._joint._data import Scores, TrainingModalities
from aeverse.models._joint._embeddings import EMBEDDINGS, CountEmbedding, Embedding, LinearEmbedding
from aeverse.models._shared._attribution import Net, Side
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._kinds import Counts
from aeverse.models._shared._noise_units import coarse_populations, population_means
from aeverse.nn import nearest

FEWEST_GENES = 50  # a network is trained for
LEAST_SHARE = 0.01
LEAST_OF_LARGEST = 0.25  # of the shares: what would count a sixteenth in squared distances adds more noise than signal
N_DONORS, MOST_DONORS = 5, 5000  # one donor would leave a cell between two populations, many would flatten them


@dataclass
class CellFusion:
    """An embedding of each modality, as long as its share of signal; what a cell lacks is taken from donors.

    ``shares``: of the variance of a modality's embedding, what lies between populations. A modality whose share is small
    beside the largest is no part of the embedding; it only finds the donors of cells that have no other.
    """

    recipe: ClassVar[str] = "cells"
    embeddings: dict[str, Embedding]
    shares: dict[str, float]
    sizes: dict[str, int]
    covariates: Covariates
    random_state: int

    # ---- learning ----------------------------------------------------------------------------------------------
    @classmethod
    def fit(
        cls, training: TrainingModalities, config: Any, device: torch.device, progress: bool | None
    ) -> tuple[CellFusion, Scores]:
        """See `Fusion`."""
        data, covariates, table = training.data, training.covariates, training.table
        rows, embeddings, plain = {m: d.rows for m, d in data.items()}, dict[str, Embedding](), {}
        for m, d in data.items():
            part = None if table is None else table.iloc[d.rows]
            if training.kinds[m] == Counts.name and _are_counts(d.x):
                embeddings[m] = CountEmbedding.fit(d, covariates, part, config, str(device), progress)
            else:
                embeddings[m] = LinearEmbedding.fit(d, training.kinds[m], covariates, part, config)
            plain[m] = embeddings[m](d, part)
        shares = {m: signal_share(z, config.random_state) for m, z in plain.items()}
        sizes = {m: z.shape[1] for m, z in plain.items()}
        fusion = cls(embeddings, shares, sizes, covariates, config.random_state)
        return fusion, Scores.of({m: shares[m] * z for m, z in plain.items()}, rows, sizes, training.n_obs)

    # ---- using -------------------------------------------------------------------------------------------------
    @property
    def modality_weights(self) -> dict[str, float]:
        """How much each modality counts in squared distances."""
        squares = {m: share**2 if m in self.embedded else 0.0 for m, share in self.shares.items()}
        return {m: square / sum(squares.values()) for m, square in squares.items()}

    @property
    def embedded(self) -> list[str]:
        """The modalities that are part of the embedding."""
        return [m for m, share in self.shares.items() if share >= LEAST_OF_LARGEST * max(self.shares.values())]

    @property
    def history(self) -> dict[str, list[float]]:
        """Of the autoencoder's training; nothing where there is none."""
        return next((e.history for e in self.embeddings.values() if e.history), {})

    @property
    def variance_explained(self) -> dict[str, float]:
        """Share of what was held out that the embeddings explain: of deviance for RNA, else of variance."""
        return {m: e.variance_explained for m, e in self.embeddings.items()}

    @property
    def device(self) -> torch.device:
        """Where the networks are; components are on none."""
        devices = [e.model.device for e in self.embeddings.values() if isinstance(e, CountEmbedding)]
        return devices[0] if devices else torch.device("cpu")

    def check(self, modality: str, d: _slots.Modality) -> None:
        """See `Fusion`."""
        self.embeddings[modality].check(modality, d.names)

    def scores(self, data: Mapping[str, _slots.Modality], table: pd.DataFrame | None) -> dict[str, np.ndarray]:
        """See `Fusion`."""
        parts = {m: None if table is None else table.iloc[d.rows] for m, d in data.items()}
        plain = {m: self.embeddings[m](d, parts[m]) for m, d in data.items()}
        return {m: np.float32(self.shares[m]) * z for m, z in plain.items()}

    def encode(self, scores: Scores, training: Scores, twins: np.ndarray) -> np.ndarray:
        """See `Fusion`."""
        completed = self.completed(scores, training, twins)
        return side_by_side({m: completed[m] for m in self.embedded}).astype(np.float32)

    def completed(self, scores: Scores, training: Scores, twins: np.ndarray) -> dict[str, np.ndarray]:
        """Scores in all modalities; those that a cell lacks are the mean over the training cells most like it that have them."""
        values = {m: v.copy() for m, v in scores.values.items()}
        for rows, measured in scores.patterns():
            for m in [m for m in values if m not in measured] if measured else []:
                donors = training.rows_with([*measured, m])
                donors = np.sort(np.random.default_rng(self.random_state).permutation(donors)[:MOST_DONORS])
                if len(donors) < _slots.FEWEST_COMMON:
                    continue  # nothing is known: the mean of all cells
                query, among = (
                    np.hstack([v[k][row] for k in measured])
                    for v, row in ((scores.values, rows), (training.values, donors))
                )
                neighbors = donors[nearest(query, N_DONORS + 1, among=among)[1]]
                is_other = neighbors != twins[rows][:, None]
                is_other[is_other.all(1), -1] = False  # one too many was sought, in case that one is the cell itself
                share = is_other / np.maximum(is_other.sum(1, keepdims=True), 1)
                values[m][rows] = np.einsum("ij,ijk->ik", share, training.values[m][neighbors])
        return values

    def spaces(self, scores: Scores, measured: Sequence[str]) -> list[np.ndarray]:
        """The embeddings that there are."""
        return [side_by_side({m: scores.values[m] for m in measured})]

    def net(self, data: Mapping[str, _slots.Modality], scores: Scores, training: Scores, twins: np.ndarray) -> Net:
        """See `Fusion`."""
        n, device, sides, hidden, functions = len(scores.has), self.device, {}, {}, {}
        for m, d in data.items():
            side, embedding, functions[m] = self.embeddings[m].net(d, None)
            present = np.zeros(n, bool)
            present[d.rows] = side.present
            sides[m] = Side(_slots.scatter_rows(side.x, d.rows, n), side.weight.to(device), side.positions, present)
            hidden[m] = torch.zeros(n, embedding.shape[1], dtype=embedding.dtype, device=device)
            hidden[m][d.rows] = embedding.to(device)
        completed = self.completed(scores, training, twins)
        context = np.hstack([scores.has.astype(np.float32), side_by_side(completed)]).astype(np.float32)

        def code(hidden_values: Tensor, context: Tensor) -> Tensor:
            has, fixed = context[:, : len(self.sizes)], context[:, len(self.sizes) :].split([*self.sizes.values()], 1)
            parts = dict(zip(hidden, hidden_values.split([h.shape[1] for h in hidden.values()], 1), strict=True))
            whole = []
            for i, (m, donated) in enumerate(zip(self.sizes, fixed, strict=True)):
                if m not in self.embedded:
                    continue
                embedding = self.shares[m] * functions[m](parts[m], context[:, :0]) if m in parts else donated
                whole.append(torch.where(has[:, [i]] > 0, embedding, donated))
            return torch.cat(whole, 1)

        return Net(sides, torch.cat(list(hidden.values()), 1), torch.as_tensor(context, device=device), code)

    def to(self, device: torch.device) -> None:
        """Move all weights."""
        for embedding in self.embeddings.values():
            embedding.to(device)

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "modalities": list(self.embeddings),
            "embeddings": [embedding.tree() for embedding in self.embeddings.values()],
            "shares": list(self.shares.values()),
            "sizes": list(self.sizes.values()),
            "covariates": self.covariates.tree(),
            "random_state": self.random_state,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> CellFusion:
        """Rebuild from a `tree`."""
        parts = [EMBEDDINGS[part["class"]].from_tree(part) for part in tree["embeddings"]]
        embeddings, shares, sizes = (
            dict(zip(tree["modalities"], values, strict=True)) for values in (parts, tree["shares"], tree["sizes"])
        )
        return cls(embeddings, shares, sizes, Covariates.from_tree(tree["covariates"]), tree["random_state"])


# ---- helpers -----------------------------------------------------------------------------------------------------
def signal_share(embedding: np.ndarray, random_state: int) -> float:
    """Share of the variance of an embedding that lies between coarse populations."""
    populations = coarse_populations(embedding, random_state)
    means = population_means(embedding, populations)[populations]
    total = float(((embedding - embedding.mean(0)) ** 2).sum())
    return max(float(((means - means.mean(0)) ** 2).sum()) / max(total, 1e-12), LEAST_SHARE)


def side_by_side(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """(samples, dimensions of all modalities)."""
    return np.hstack(list(values.values()))


def _are_counts(x: sp.csr_matrix | np.ndarray) -> bool:
    if not isinstance(x, sp.csr_matrix) or x.shape[1] < FEWEST_GENES:
        return False
    return np.array_equal(x.data, np.rint(x.data))
