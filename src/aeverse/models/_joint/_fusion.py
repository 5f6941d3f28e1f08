"""How several modalities become one code: what a fitted model asks of either recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pandas as pd
import torch

from aeverse import _slots
from aeverse.models._joint._data import Scores, TrainingModalities
from aeverse.models._shared._attribution import Net


class Fusion(Protocol):
    """What was learned of all modalities."""

    recipe: ClassVar[str]

    @classmethod
    def fit(
        cls, training: TrainingModalities, config: Any, device: torch.device, progress: bool | None
    ) -> tuple[Self, Scores]:
        """Learn; the scores of the training samples too."""

    @property
    def modality_weights(self) -> dict[str, float]:
        """How much each modality counts, summing to one."""

    @property
    def sizes(self) -> dict[str, int]:
        """Dimensions of each modality's scores."""

    @property
    def history(self) -> dict[str, list[float]]:
        """Of training."""

    @property
    def variance_explained(self) -> dict[str, float]:
        """Share of the variance (for RNA of the deviance) of what was held out."""

    def check(self, modality: str, d: _slots.Modality) -> None:
        """Refuse data that hold too few of the features that are read of a modality."""

    def scores(self, data: Mapping[str, _slots.Modality], table: pd.DataFrame | None) -> dict[str, np.ndarray]:
        """Where samples lie in each modality; `table`: covariates of all samples."""

    def encode(self, scores: Scores, training: Scores, twins: np.ndarray) -> np.ndarray:
        """The code of samples.

        Parameters
        ----------
        scores
            Where they lie in the modalities that they have.
        training
            The same of the training samples.
        twins
            For each sample the position of the training sample that is the same, which must not tell; -1: none.
        """

    def spaces(self, scores: Scores, measured: Sequence[str]) -> list[np.ndarray]:
        """Where samples are compared, by some of their modalities, in order to predict another; the last: components."""

    def net(self, data: Mapping[str, _slots.Modality], scores: Scores, training: Scores, twins: np.ndarray) -> Net:
        """What attributions differentiate: `encode` of samples that `data` hold."""

    def to(self, device: torch.device) -> None:
        """Move all weights."""

    def tree(self) -> dict[str, Any]:
        """What is kept."""

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Rebuild from a `tree`."""
