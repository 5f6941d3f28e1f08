"""The recipe for cohorts: encoders fused to one code, guided by the neighbor graph of all modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aeverse import _slots
from aeverse.models._joint._data import (
    HeldoutEntries,
    Scores,
    TrainingModalities,
    explained,
    features_found,
    mask_columns,
)
from aeverse.models._joint._joint_code import JointCode, half_whitened, random_rotation
from aeverse.models._shared._arrays import arrays_of, load_arrays
from aeverse.models._shared._attribution import Net, Side
from aeverse.models._shared._correction import corrected, correction, correction_from_tree, correction_tree
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._neighbors import neighbors_of
from aeverse.models._shared._views import View
from aeverse.nn import Correction, FusionBatch, FusionNet, diffusion_coordinates, fuse, generator_on, local_kernel
from aeverse.train import Schedule, train

N_NEIGHBORS, DIFFUSION_TIME = (5, 10, 20), 2  # of the graphs that are fused; found by measuring, see benchmarks
N_TARGETS, N_GUIDED = 10, 6  # coordinates in the graph that the head predicts; how many of them are in the code
MAX_COMPONENTS, N_MEASURED = 128, 64
# Of the blocks beside the guided one. What was measured is too short to be felt by neighbors and clusters; it is there for
# linear models, which standardize what they are given.
LINEAR_LENGTH, MEASURED_LENGTH = 0.6, 0.1
N_MEMBERS, N_HIDDEN, MASKING, MODALITY_DROPOUT = 4, 64, 0.5, 0.25
N_STEPS, BATCH_SIZE, LEARNING_RATE, AVERAGE = 200, 64, 5e-3, 0.98


@dataclass
class SampleFusion:
    """Significant components of each modality, an ensemble of fused networks, and the code made of what they say."""

    recipe: ClassVar[str] = "samples"
    views: dict[str, View]
    covariates: Covariates
    corrections: dict[str, Correction | None]
    code: JointCode
    history: dict[str, list[float]]
    variance_explained: dict[str, float]

    # ---- learning ----------------------------------------------------------------------------------------------
    @classmethod
    def fit(
        cls, training: TrainingModalities, config: Any, device: torch.device, progress: bool | None
    ) -> tuple[SampleFusion, Scores]:
        """See `Fusion`."""
        data, covariates, table = training.data, training.covariates, training.table
        rng = np.random.default_rng(config.random_state)
        heldout = {m: HeldoutEntries.draw(d, rng) for m, d in data.items()}
        views = {m: View(training.kinds[m], config.n_inputs, MAX_COMPONENTS) for m in data}
        values = {m: views[m].fit(heldout[m].without(d.x), d.names, mask_columns(d)) for m, d in data.items()}
        rows = {m: d.rows for m, d in data.items()}
        matrices = {m: None if table is None else covariates.matrix(table.iloc[rows[m]]) for m in values}
        corrections = {m: correction(z, covariates, matrices[m], config.random_state) for m, z in values.items()}
        values = {m: corrected(z, corrections[m], matrices[m]) for m, z in values.items()}
        modality_weights: dict[str, float] = {m: max(view.n_significant, 0.5) for m, view in views.items()}
        modality_weights = {m: t / sum(modality_weights.values()) for m, t in modality_weights.items()}
        matrix = covariates.matrix(table)
        target = graph_target(values, rows, modality_weights, covariates.batch_codes(matrix), training.n_obs)

        scores = Scores.of(values, rows, {m: z.shape[1] for m, z in values.items()}, training.n_obs)
        samples = Samples.of(scores, modality_weights, device, target, matrix)
        judged = {m: heldout[m].judged(d, views[m]) for m, d in data.items()}
        generator = torch.Generator().manual_seed(config.random_state)
        net = FusionNet(
            {m: z.shape[1] for m, z in values.items()},
            target.shape[1],
            n_members=config.n_models or N_MEMBERS,
            n_hidden=N_HIDDEN,
            n_latent=config.n_latent,
            n_covariates=covariates.n_columns,
            masking=MASKING,
            modality_dropout=MODALITY_DROPOUT,
            skip=True,
            generator=generator,
        ).to(device)
        code = JointCode(net, modality_weights, covariates, {})

        def heldout_explained() -> dict[str, float]:
            _, decoded = code.all_outputs(samples.x, samples.weights, samples.covariate)
            return {m: explained(views[m], decoded[m].cpu().numpy()[rows[m]], judged[m]) for m in data}

        n_steps = config.n_steps or N_STEPS
        history = train(
            net,
            samples.shuffled(net.n_members, min(BATCH_SIZE, training.n_obs), generator),
            lambda: float(sum(modality_weights[m] * v for m, v in heldout_explained().items())),
            # judged at the end: the head is no part of the judgment, so that an earlier best would not be one
            Schedule(n_steps=n_steps, judge_every=n_steps, learning_rate=LEARNING_RATE, average=AVERAGE),
            progress=progress,
        )
        code = joint_code(net, samples, modality_weights, covariates, config)
        return cls(views, covariates, corrections, code, history, heldout_explained()), scores

    # ---- using -------------------------------------------------------------------------------------------------
    @property
    def modality_weights(self) -> dict[str, float]:
        """How much each modality counts."""
        return self.code.modality_weights

    @property
    def sizes(self) -> dict[str, int]:
        """Components of each modality."""
        return {m: view.loadings.shape[1] for m, view in self.views.items()}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.code.get_buffer("guided_mean").device

    def check(self, modality: str, d: _slots.Modality) -> None:
        """See `Fusion`."""
        view = self.views[modality]
        features_found(view.names, len(view.match(d.names)[1]), modality, d.names)

    def scores(self, data: Mapping[str, _slots.Modality], table: pd.DataFrame | None) -> dict[str, np.ndarray]:
        """See `Fusion`."""
        values = {m: self.views[m](d.x, d.names) for m, d in data.items()}
        if table is None:
            return values
        matrices = {m: self.covariates.matrix(table.iloc[d.rows], unknown=0.0) for m, d in data.items()}
        return {m: corrected(z, self.corrections[m], matrices[m]) for m, z in values.items()}

    def encode(self, scores: Scores, training: Scores, twins: np.ndarray) -> np.ndarray:
        """See `Fusion`; training samples are not needed."""
        samples = Samples.of(scores, self.modality_weights, self.device)
        return self.code.encode(samples.x, samples.weights)

    def spaces(self, scores: Scores, measured: Sequence[str]) -> list[np.ndarray]:
        """The linear part of the code, and the components."""
        all_rows = np.arange(len(scores.has))
        code = self.encode(scores.some(all_rows, measured), scores, all_rows)[:, N_GUIDED:]
        parts = {m: scores.values[m] for m in measured}
        return [code, np.hstack([v * (self.modality_weights[m] / v.shape[1]) ** 0.5 for m, v in parts.items()])]

    def net(self, data: Mapping[str, _slots.Modality], scores: Scores, training: Scores, twins: np.ndarray) -> Net:
        """See `Fusion`."""
        samples, sides = Samples.of(scores, self.modality_weights, self.device), {}
        for name, d in data.items():
            view, n = self.views[name], len(scores.has)
            y, columns, where = view.read(d.x, d.names)
            weight = torch.as_tensor(view.loadings[columns] / view.unit, device=self.device)
            present = np.isin(np.arange(n), d.rows)
            sides[name] = Side(_slots.scatter_rows(y, d.rows, n), weight, where, present)
        absent = [m for m in self.views if m not in data]
        context = torch.cat([samples.weights, *(samples.x[m] for m in absent)], 1)

        def code(hidden: Tensor, context: Tensor) -> Tensor:
            weights, absent_scores = context[:, : len(self.views)], context[:, len(self.views) :]
            x = dict(zip(sides, hidden.split([self.sizes[m] for m in sides], 1), strict=True))
            if absent:
                x |= dict(zip(absent, absent_scores.split([self.sizes[m] for m in absent], 1), strict=True))
            return self.code({m: x[m] for m in self.views}, weights)

        return Net(sides, torch.cat([samples.x[m] for m in sides], 1), context, code)

    def to(self, device: torch.device) -> None:
        """Move all weights."""
        self.code.to(device)

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "modalities": list(self.views),
            "views": [view.tree() for view in self.views.values()],
            "modality_weights": list(self.modality_weights.values()),
            "covariates": self.covariates.tree(),
            "corrections": [correction_tree(self.corrections[m]) for m in self.views],
            "code": arrays_of(self.code),
            "net": {
                "n_members": self.code.net.n_members,
                "n_latent": self.code.net.decoders[0].get_parameter("weight").shape[1],
            },
            "history": self.history,
            "variance_explained": list(self.variance_explained.values()),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> SampleFusion:
        """Rebuild from a `tree`."""
        names, covariates, state = tree["modalities"], Covariates.from_tree(tree["covariates"]), tree["code"]
        views = {m: View.from_tree(part) for m, part in zip(names, tree["views"], strict=True)}
        sizes = {m: view.loadings.shape[1] for m, view in views.items()}
        net = FusionNet(
            sizes,
            len(state["net.target_weights"]),
            n_members=tree["net"]["n_members"],
            n_hidden=N_HIDDEN,
            n_latent=tree["net"]["n_latent"] - covariates.n_columns,
            n_covariates=covariates.n_columns,
            skip=True,
            generator=torch.Generator(),  # of weights that those of the file replace
        )
        shapes = {b: state[f"{b}_axes"].shape for b in ("guided", "linear", "measured")}
        code = JointCode(net, dict(zip(names, tree["modality_weights"], strict=True)), covariates, shapes)
        load_arrays(code, state)
        code.eval()
        explained = dict(zip(names, tree["variance_explained"], strict=True))
        parts = zip(names, tree["corrections"], strict=True)
        corrections = {m: correction_from_tree(part, covariates, sizes[m]) for m, part in parts}
        return cls(views, covariates, corrections, code, tree["history"], explained)


# ---- helpers -----------------------------------------------------------------------------------------------------
@dataclass
class Samples:
    """Tensors of samples: components, weights (samples, modalities; 0 where missing), and for training what it needs."""

    x: dict[str, Tensor]
    weights: Tensor
    target: Tensor | None = None
    covariate: Tensor | None = None

    @classmethod
    def of(
        cls,
        scores: Scores,
        modality_weights: Mapping[str, float],
        device: torch.device,
        target: np.ndarray | None = None,
        covariate: np.ndarray | None = None,
    ) -> Samples:
        """On a device."""
        weights = scores.has * np.array([modality_weights[m] for m in scores.values], np.float32)
        return cls(
            {m: torch.from_numpy(v).to(device) for m, v in scores.values.items()},
            torch.from_numpy(weights).to(device),
            None if target is None else torch.tensor(target, dtype=torch.float32, device=device),
            None if covariate is None else torch.tensor(covariate, device=device),
        )

    def shuffled(self, n_members: int, size: int, generator: torch.Generator) -> Iterator[FusionBatch]:
        """Batches without end; every member draws its own samples."""
        assert self.target is not None
        n, orders, at = len(self.weights), torch.empty(n_members, 0, dtype=torch.long), 0
        on_device = generator_on(self.weights.device, generator)
        while True:
            if at + size > orders.shape[1]:
                orders, at = torch.rand(n_members, n, generator=generator, dtype=torch.float32).argsort(1), 0
            rows, at = orders[:, at : at + size].to(self.weights.device), at + size
            covariate = None if self.covariate is None else self.covariate[rows]
            yield FusionBatch(
                {m: v[rows] for m, v in self.x.items()}, self.weights[rows], self.target[rows], covariate, on_device
            )


def graph_target(
    scores: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    modality_weights: Mapping[str, float],
    codes: np.ndarray | None,
    n: int,
) -> np.ndarray:
    """Where each sample lies in the fused neighbor graph, of unit variance over all."""
    kernels, where, weights = [], [], []
    for m, z in scores.items():
        distances, indices = neighbors_of(z, max(N_NEIGHBORS), None if codes is None else codes[rows[m]])
        for k in N_NEIGHBORS if codes is None else (distances.shape[1],):
            kernels.append(local_kernel(distances[:, :k], indices[:, :k]))
            where.append(rows[m])
            weights.append(modality_weights[m])
    target = diffusion_coordinates(fuse(kernels, where, weights, n), N_TARGETS, DIFFUSION_TIME)
    target = target - target.mean(0)
    return target / max(float(np.sqrt(np.mean(target**2))), 1e-12)


def joint_code(
    net: FusionNet, samples: Samples, modality_weights: Mapping[str, float], covariates: Covariates, config: Any
) -> JointCode:
    """Learn the blocks of the code, each rotated so that its columns share the variance."""
    rng, plain = np.random.default_rng(config.random_state), JointCode(net, modality_weights, covariates, {})
    head, decoded = plain.all_outputs(samples.x, samples.weights)
    blocks = plain.blocks(samples.x, samples.weights, head[:, :N_GUIDED], decoded)
    guided, linear, measured = (b.cpu().numpy() for b in blocks.values())
    mean = guided.mean(0)
    length = np.sqrt(((guided - mean) ** 2).sum(1).mean())
    axes = np.ascontiguousarray(random_rotation(guided.shape[1], rng) / max(length, 1e-12), np.float32)
    fixed = {"guided": (mean, axes), "linear": half_whitened(linear, config.n_latent, LINEAR_LENGTH, rng)}
    fixed["measured"] = half_whitened(measured, N_MEASURED, MEASURED_LENGTH, rng)
    code = JointCode(net, modality_weights, covariates, {b: axes.shape for b, (_, axes) in fixed.items()})
    for b, (mean, axes) in fixed.items():
        code.get_buffer(f"{b}_mean").copy_(torch.as_tensor(mean))
        code.get_buffer(f"{b}_axes").copy_(torch.as_tensor(axes))
    return code.to(samples.weights.device).eval()
