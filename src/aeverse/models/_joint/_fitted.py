"""All that a fit of `MultimodalAutoencoder` learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from aeverse import _runtime, _slots
from aeverse.models._joint._cell_fusion import CellFusion
from aeverse.models._joint._data import Scores, without_empty
from aeverse.models._joint._fusion import Fusion
from aeverse.models._joint._prediction import Target, predict_dimensions
from aeverse.models._joint._sample_fusion import SampleFusion
from aeverse.models._joint._schema import check_model
from aeverse.models._shared._attribution import Attribution, of_dimensions, of_groups
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._reference import (
    QueryGroup,
    Reference,
    labels_from_tree,
    labels_tree,
    read_labels,
    reference_rows,
)

SAME = 1e-3  # relative difference of scores up to which two samples are one
FUSIONS: dict[str, type[SampleFusion] | type[CellFusion]] = {"samples": SampleFusion, "cells": CellFusion}
Layers = Mapping[str, str | None] | None


@dataclass(frozen=True)
class FittedMultimodal:
    """Frozen: another fit makes another one.

    Parameters
    ----------
    fusion
        What was trained.
    kinds, layer, covariates
        What was read.
    targets
        What is kept of each modality so that it can be predicted.
    training
        Scores of the training samples.
    names, labels
        Of the training samples.
    random_state
        Seed.
    """

    fusion: Fusion
    kinds: dict[str, str]
    layer: dict[str, str | None]
    covariates: Covariates
    targets: dict[str, Target]
    training: Scores
    names: pd.Index
    labels: dict[str, pd.Categorical]
    random_state: int

    def to(self, device: torch.device) -> None:
        """Move all weights."""
        self.fusion.to(device)

    # ---- new data ----------------------------------------------------------------------------------------------
    def read(self, mdata, modalities: Sequence[str] | None = None, layer: Layers = None) -> dict[str, _slots.Modality]:
        """The modalities that both have."""
        _slots.writable_mudata(mdata, copy=False)
        available = [m for m in self.kinds if m in mdata.mod]
        if modalities is not None and (unknown := [m for m in _slots.name_list(modalities) if m not in available]):
            raise KeyError(f"modalities names {unknown}; model and data have {available or 'none'} in common.")
        selection = available if modalities is None else _slots.name_list(modalities)
        if not selection:
            raise ValueError(
                f"the model knows {list(self.kinds)}, the data have {list(mdata.mod)}: no modality in common."
            )
        layer = self.layer if layer is None else layer
        if isinstance(layer, Mapping):
            layer = {m: name for m, name in layer.items() if m in selection}
        data = _slots.read_modalities(mdata, selection, layer, dict.fromkeys(selection))
        data = {m: without_empty(d, self.kinds[m]) for m, d in data.items()}
        for m, d in data.items():
            self.fusion.check(m, d)
        return data

    def scores(self, mdata, data: Mapping[str, _slots.Modality]) -> Scores:
        """Where new samples lie in each modality."""
        table = self.covariates.table(mdata, may_lack_columns=True, treated="coded as they are")
        values = self.fusion.scores(data, table)
        return Scores.of(values, {m: d.rows for m, d in data.items()}, self.fusion.sizes, mdata.n_obs)

    def twins(self, mdata, scores: Scores) -> np.ndarray:
        """Positions of the samples among those of training; -1: not there. Names alone do not tell: values must agree."""
        position = self.names.get_indexer(mdata.obs_names.astype(str))
        rows = np.flatnonzero(position >= 0)
        for i, (m, values) in enumerate(scores.values.items()):
            other = self.training.values[m][position[rows]]
            both = scores.has[rows, i] & self.training.has[position[rows], i]
            differs = np.abs(values[rows] - other).max(1, initial=0) > SAME * np.abs(other).max(1, initial=1)
            position[rows[both & differs]] = -1
        return position

    # ---- using -------------------------------------------------------------------------------------------------
    def encode(self, mdata, modalities: Sequence[str] | None, layer: Layers) -> np.ndarray:
        """See `MultimodalAutoencoder.encode`."""
        scores = self.scores(mdata, self.read(mdata, modalities, layer))
        return self.fusion.encode(scores, self.training, self.twins(mdata, scores))

    def weights(self, mdata, modalities: Sequence[str] | None, layer: Layers) -> pd.DataFrame:
        """See `MultimodalAutoencoder.weights`."""
        has = self.scores(mdata, self.read(mdata, modalities, layer)).has
        weights = has * np.array([self.fusion.modality_weights[m] for m in self.kinds], np.float32)
        weights = np.where(weights.any(1, keepdims=True), weights, has)  # a modality of weight 0 alone finds the donors
        shares = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
        return pd.DataFrame(shares, index=mdata.obs_names, columns=list(self.kinds))

    def predict(
        self, mdata, target: str, features: Sequence[str] | None, modalities: Sequence[str] | None, layer: Layers
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """See `MultimodalAutoencoder.predict`."""
        if target not in self.targets:
            raise KeyError(f"target={target!r} is not a modality of this model; it knows {list(self.targets)}.")
        modality = self.targets[target]
        columns = (
            np.arange(len(modality.names))
            if features is None
            else _slots.positions(features, modality.names, "features")
        )
        selection = self.kinds if modalities is None else _slots.name_list(modalities)
        sources = [m for m in selection if m != target and (modalities is not None or m in mdata.mod)]
        if not sources:
            raise ValueError(
                f"nothing to predict {target!r} from: of {list(self.kinds)} the data have {list(mdata.mod)}."
            )
        scores = self.scores(mdata, self.read(mdata, sources, layer))
        twins = self.twins(mdata, scores)
        mean, sd = (np.full((mdata.n_obs, len(columns)), np.nan, np.float32) for _ in range(2))
        for rows, measured in scores.patterns():
            usable = self.training.rows_with([*measured, target])
            if not measured or len(usable) < _slots.FEWEST_COMMON:
                continue
            query = self.fusion.spaces(scores.some(rows), measured)
            reference = self.fusion.spaces(self.training.some(usable), measured)
            position = np.full(len(self.names) + 1, -1)  # the last one: for samples that are not known
            position[usable] = np.arange(len(usable))
            estimate = predict_dimensions(
                modality, query, reference, np.isin(modality.rows, usable), position[twins[rows]], self.random_state
            )
            mean[rows], sd[rows] = modality.features(*estimate, columns)
        names = modality.names[columns]
        return (
            pd.DataFrame(mean, index=mdata.obs_names, columns=names),
            pd.DataFrame(sd, index=mdata.obs_names, columns=names),
        )

    def placed(self, mdata, layer: Layers) -> Iterator[QueryGroup]:
        """See `Estimator.placed`: compared are training samples, coded from the same modalities."""
        scores = self.scores(mdata, self.read(mdata, None, layer))
        code = self.fusion.encode(scores, self.training, self.twins(mdata, scores))
        for rows, measured in scores.patterns():
            yield QueryGroup(rows, code[rows], self._like(measured) if measured else None, measured)

    def _like(self, measured: Sequence[str]) -> Reference:
        """Training samples that have some modalities, coded from these alone."""
        rows = self.training.rows_with(measured)
        if len(rows) < _slots.FEWEST_COMMON:  # as in a mosaic: those that have any of them, coded from what they have
            rows = np.flatnonzero(self.training.some(np.arange(len(self.names)), measured).has.any(1))
        rows = rows[reference_rows(len(rows), self.random_state)]
        code = self.fusion.encode(self.training.some(rows, measured), self.training, rows)
        return Reference.of(code, {name: values[rows] for name, values in self.labels.items()})

    def label_source(self, mdata, labels: Sequence[str], group: QueryGroup, layer: Layers) -> Reference:
        """See `Estimator.label_source`."""
        scores = self.scores(mdata, self.read(mdata, group.modalities, layer))
        rows = np.flatnonzero(scores.has.any(1))
        code = self.fusion.encode(scores, self.training, self.twins(mdata, scores))[rows]
        return Reference.for_labels(code, {name: read_labels(mdata.obs[name], name)[rows] for name in labels})

    def attributions(
        self, mdata, groups: pd.Categorical | None, n_top: int, layer: Layers, random_state: int
    ) -> tuple[dict[str, Attribution], list[str]]:
        """See `Estimator.attributions`."""
        data, rng = self.read(mdata, None, layer), np.random.default_rng(random_state)
        scores = self.scores(mdata, data)
        nets = [self.fusion.net(data, scores, self.training, self.twins(mdata, scores))]
        if groups is None:
            attributions = of_dimensions(nets, n_top, rng)
            return attributions, [str(i) for i in range(next(iter(attributions.values())).values.shape[1])]
        return of_groups(nets, groups, n_top, rng), list(groups.categories)

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "recipe": self.fusion.recipe,
            "fusion": self.fusion.tree(),
            "covariates": self.covariates.tree(),
            "layer": self.layer,
            "modalities": [
                {"name": m, "kind": kind, "target": self.targets[m].tree(), "scores": self.training.values[m]}
                for m, kind in self.kinds.items()
            ],
            "has": self.training.has.astype(np.uint8),
            "names": list(self.names),
            "labels": labels_tree(self.labels),
            "random_state": self.random_state,
        }

    @staticmethod
    def check_model(tree: Any) -> None:
        """Raise a ValueError that names the place where a tree is not what `MultimodalAutoencoder.save` keeps."""
        check_model(tree)

    @classmethod
    @_runtime.learning()
    def from_tree(cls, tree: Mapping[str, Any]) -> FittedMultimodal:
        """Rebuild from a `tree`."""
        parts = {part["name"]: part for part in tree["modalities"]}
        return cls(
            FUSIONS[tree["recipe"]].from_tree(tree["fusion"]),
            {m: part["kind"] for m, part in parts.items()},
            tree["layer"],
            Covariates.from_tree(tree["covariates"]),
            {m: Target.from_tree(part["target"]) for m, part in parts.items()},
            Scores({m: part["scores"] for m, part in parts.items()}, tree["has"].astype(bool)),
            pd.Index(tree["names"]),
            labels_from_tree(tree["labels"]),
            tree["random_state"],
        )
