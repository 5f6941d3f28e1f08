"""The autoencoder of several modalities, any of them missing, as an estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse import _settings, _slots, io
from aeverse.models._fronts import COUNT_KINDS, KINDS, Front, kind_of
from aeverse.models._prediction import Target, calibration, from_neighbours, linear_space
from aeverse.models._shared._alignment import alignment
from aeverse.models._shared._attribution import Attribution, net_of_fusion, of_dimensions, of_groups
from aeverse.models._shared._batches import Batches
from aeverse.models._shared._neighbors import neighbors_of, principal, target_weights
from aeverse.models._shared._reference import (
    QueryGroup,
    Reference,
    label_columns,
    labels_from_tree,
    labels_tree,
    read_labels,
    reference_rows,
)
from aeverse.nn import (
    Alignment,
    FusionBatch,
    FusionNet,
    diffusion_coordinates,
    fuse,
    generator_on,
    local_kernel,
    nearest,
    smooth,
)
from aeverse.train import Schedule, train

if TYPE_CHECKING:
    from mudata import MuData

FEWEST_SAMPLES = 10
FEW_SAMPLES = 100  # below, counts too are learnt from like a cohort
SHARE_HELDOUT, MOST_HELDOUT = 0.01, 200_000  # entries of each modality
SMALL_ENTRIES = 20_000_000  # matrices up to this size may as well be dense
SMALLEST_SHARE_OF_FEATURES = 0.1  # of a modality's features that new data must have
RELIABILITY_CELLS = 4000
LEAST_MIXING = 0.5  # of complete and incomplete samples, over chance, for the former to tell of the latter
MOST_COMPLETE = 5000  # training samples among which those that lack a modality are placed
BLOCK = 8192


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to learn from one kind of data set; found by measuring, see benchmarks.

    ``guide``: what the head predicts, ``"diffusion"`` coordinates of the fused neighbour graph or ``"smoothed"``
    components. ``trust``: how much a modality counts, by its number of significant ``"components"`` or by its
    ``"reliability"``.
    """

    trust: str
    guide: str
    n_targets: int  # outputs of the head
    n_guided: int  # how many of them are in the code
    n_neighbors: tuple[int, ...]
    max_components: int
    linear_share: float  # length of the linear block beside the guided one
    linear_share_apart: float  # the same where samples that lack a modality are unlike all complete ones, as in a batch
    # of their own: what was measured must count there
    n_like: int  # complete samples like it that say where one belongs that lacks a modality; 0: the encoders alone say
    n_measured: int  # dimensions of the block of what was measured, too short to be felt by neighbours and clusters,
    measured_share: float  # there for linear models, which standardise what they are given
    n_models: int
    n_hidden: int
    masking: float
    modality_dropout: float
    n_steps: int
    batch_size: int
    learning_rate: float
    average: float
    emphasis: float  # error of a target is divided by its variance to this power
    skip: bool  # a linear way past the hidden layer of the encoders


RECIPES = {
    "samples": Recipe(
        trust="components", guide="diffusion", n_targets=10, n_guided=6, n_neighbors=(5, 10, 20), max_components=128,
        linear_share=0.6, linear_share_apart=0.6, n_like=0, n_measured=64, measured_share=0.1, n_models=4, n_hidden=64, masking=0.5, modality_dropout=0.25, n_steps=200, batch_size=64,
        learning_rate=5e-3, average=0.98, emphasis=0.0, skip=True,
    ),
    "cells": Recipe(
        trust="reliability", guide="smoothed", n_targets=20, n_guided=20, n_neighbors=(15,), max_components=50,
        linear_share=0.1, linear_share_apart=0.7, n_like=5, n_measured=0, measured_share=0.0, n_models=3, n_hidden=128, masking=0.2, modality_dropout=0.3, n_steps=600, batch_size=256,
        learning_rate=3e-3, average=0.99, emphasis=0.5, skip=False,
    ),
}  # fmt: skip
DIFFUSION_TIME, SMOOTHING_STEPS = 2, 2


@dataclasses.dataclass(frozen=True)
class MultimodalConfig:
    """What a multimodal autoencoder is, apart from what it learns.

    Parameters
    ----------
    recipe
        ``"samples"`` (cohorts: hundreds of samples, many features), ``"cells"`` (single cells), or ``"auto"``: cells
        where there are counts that are mostly zeros, and at least 100 samples.
    n_latent
        Dimensions of the network's code, and at most so many decoded ones in the reported one.
    n_models
        Members of the ensemble; None: what the recipe says.
    n_steps
        Steps of training; None: what the recipe says.
    n_inputs
        How many features of a count modality are read, the most overdispersed, where no mask says which.
    random_state
        Seed.
    """

    recipe: str = "auto"
    n_latent: int = 32
    n_models: int | None = None
    n_steps: int | None = None
    n_inputs: int = 3000
    random_state: int = 0

    def __post_init__(self):
        if self.recipe not in ("auto", *RECIPES):
            raise ValueError(f"recipe={self.recipe!r} must be 'auto' or one of {list(RECIPES)}.")
        for name in ("n_latent", "n_models", "n_steps", "n_inputs", "random_state"):
            value, least = getattr(self, name), 0 if name == "random_state" else 1
            if value is None and name in ("n_models", "n_steps"):
                continue
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name}={value!r} must be an integer, at least {least}.")
            object.__setattr__(self, name, int(value))


class MultimodalAutoencoder:
    """Autoencoder over several modalities, any of which a sample may lack: fit, encode, predict, save.

    Each modality is reduced to its significant principal components (its *front*); encoders, one a modality, are fused
    to one code, from which decoders give every modality back and a head tells where the sample lies in the neighbour
    graph of all of them. Training hides entries and whole modalities, so that any subset gives the same kind of code.
    The reported code holds the predicted place in the graph and, beside it, the principal components of what was decoded;
    for cells that lack a modality both are shifted by what the complete cells most like them show to be lacking;
    of cohorts also those of what was measured, a tenth as long: neighbours and clusters do not feel them, linear models
    (regression, Cox), which standardise what they are given, do.

    Parameters
    ----------
    **config
        Fields of `MultimodalConfig`.

    Attributes
    ----------
    config
        The frozen `MultimodalConfig`.
    kinds
        Kind of data of each modality.
    trust
        How much each modality counts, summing to one.
    recipe
        The recipe taken.
    exchangeable
        Whether samples that lack a modality have complete ones among their neighbours, which may then tell of them.
    variance_explained
        For each modality the share of the variance of held-out entries (standardised) that the decoder explains.
    history
        ``step``, ``loss`` and ``heldout`` (variance explained, mean over modalities by trust).

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

    def __init__(self, **config):
        known = {f.name for f in dataclasses.fields(MultimodalConfig)}
        if unknown := set(config) - known:
            raise TypeError(f"MultimodalAutoencoder does not know {sorted(unknown)}; it takes {sorted(known)}.")
        self.config = MultimodalConfig(**config)
        self.device = torch.device("cpu")
        self.variance_explained: dict[str, float] | None = None  # the last thing that a fit learns

    # ---- learning ----------------------------------------------------------------------------------------------
    @_settings.learning()
    def fit(
        self,
        mdata: MuData,
        *,
        modalities: Sequence[str] | None = None,
        likelihood: str | Mapping[str, str] = "auto",
        layer: Mapping[str, str | None] | None = None,
        mask_var: Mapping[str, str | np.ndarray | None] | None = None,
        batch_key: str | None = None,
        device: str = "auto",
        progress: bool | None = None,
    ) -> MultimodalAutoencoder:
        """Learn from `mdata`, which is not changed.

        Parameters
        ----------
        mdata
            Samples that lack a modality, entries that are NaN: both are left out of what is learnt, never filled in.
        modalities
            Names of the modalities to use; None: all.
        likelihood
            ``"auto"`` tells the kind of data of each modality from its values; a dict names it for some:
            ``"counts"`` (RNA), ``"protein"`` (protein counts), ``"peaks"`` (chromatin), ``"binary"`` (mutations),
            ``"ordinal"`` (copy number), ``"fractions"`` (methylation), ``"continuous"``.
        layer
            Modality -> layer to read; those not named are read from ``X``.
        mask_var
            Modality -> column of its ``var`` (or boolean array) with the features that the encoder reads. Default:
            ``highly_variable`` where present, else all (of counts the most overdispersed).
        batch_key
            Column of ``mdata.obs``: the components of a modality are shifted, each region of them by itself, so that
            matching samples of different batches meet, neighbours are sought in every batch alike, and the decoders are
            told the batch.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …
        progress
            Show a progress bar; None: on a terminal or in a notebook.

        Returns
        -------
        The estimator itself.
        """
        self.variance_explained = None
        self.device = _settings.resolve_device(device)
        data = _slots.read_modalities(_slots.target_mudata(mdata, copy=False), modalities, layer, mask_var)
        self._batches, codes = Batches.read(mdata, batch_key)
        self.layer = {m: name for m, name in (layer or {}).items() if m in data}
        self.kinds = kinds_of(data, likelihood)
        data = {m: _without_empty(d, self.kinds[m]) for m, d in data.items()}
        self._check(data, mdata.n_obs)
        self.recipe = self._choose_recipe(data, mdata.n_obs)
        rng = np.random.default_rng(self.config.random_state)

        heldout = {m: _heldout_entries(d, rng) for m, d in data.items()}
        seen = {m: _blanked(d.x, *heldout[m]) for m, d in data.items()}
        self.fronts = {m: self._new_front(self.kinds[m]) for m in data}
        scores = {m: self.fronts[m].fit(seen[m], d.names, _columns(d)) for m, d in data.items()}
        rows = {m: d.rows for m, d in data.items()}
        self.alignments = {}
        if codes is not None:
            found = {
                m: alignment(z, codes[rows[m]], len(self._batches.names), self.config.random_state)
                for m, z in scores.items()
            }
            self.alignments = {m: a for m, a in found.items() if a is not None}  # None: measured in one batch only
            scores = {m: self._without_batch(m, z, codes[rows[m]]) for m, z in scores.items()}
        neighbours = {
            m: neighbors_of(z, max(self._recipe.n_neighbors), None if codes is None else codes[rows[m]])
            for m, z in scores.items()
        }
        self.trust = self._fit_trust(seen, data, scores, neighbours)
        target = self._guidance(scores, rows, neighbours, mdata.n_obs)

        x, weights = self._tensors(scores, rows, mdata.n_obs)
        one_hot = self._batches.one_hot(codes)
        covariate = None if one_hot is None else torch.tensor(one_hot, device=self.device)
        judged = self._judge_entries(data, heldout, rng)
        generator = torch.Generator().manual_seed(self.config.random_state)
        self.net = self._new_net({m: z.shape[1] for m, z in scores.items()}, target.shape[1], generator)
        self.net.get_buffer("emphasis").copy_(target_weights(target, self._recipe.emphasis))
        self.net.to(self.device)
        n_steps = self.config.n_steps or self._recipe.n_steps
        batch_size = min(self._recipe.batch_size, mdata.n_obs)
        self.history = train(
            self.net,
            self._shuffled(
                x,
                weights,
                torch.tensor(target, dtype=torch.float32, device=self.device),
                covariate,
                batch_size,
                generator,
            ),
            lambda: float(sum(self.trust[m] * v for m, v in self._explained(x, weights, covariate, judged).items())),
            Schedule(
                n_steps=n_steps,
                judge_every=n_steps,  # the head is no part of the judgement, so that an earlier best would not be one
                learning_rate=self._recipe.learning_rate,
                average=self._recipe.average,
            ),
            progress=progress,
        )
        self.exchangeable = _exchangeable((weights > 0).all(1).cpu().numpy(), rows, neighbours)
        self._fit_code(x, weights)
        self.targets = {m: Target.fit(d, self.fronts[m], scores[m]) for m, d in data.items()}
        self.reference, self.reference_names = {m: v.cpu().numpy() for m, v in x.items()}, mdata.obs_names.astype(str)
        self.labels = label_columns(mdata.obs, np.arange(mdata.n_obs))
        self.variance_explained = self._explained(x, weights, covariate, judged)
        return self

    @property
    def batch_key(self) -> str | None:
        """Column of ``obs`` with the batches."""
        return self._batches.key

    @property
    def batches(self) -> list[str] | None:
        """Batches that the model knows."""
        return None if self.batch_key is None else list(self._batches.names)

    @property
    def _recipe(self) -> Recipe:
        return RECIPES[self.recipe]

    def _choose_recipe(self, data: Mapping[str, _slots.Modality], n: int) -> str:
        if self.config.recipe != "auto":
            return self.config.recipe
        molecules: list[sp.csr_matrix] = [
            d.x for m, d in data.items() if self.kinds[m] in COUNT_KINDS and sp.issparse(d.x)
        ]
        mostly_zeros = any(x.nnz < x.shape[0] * x.shape[1] / 2 for x in molecules)
        return "cells" if mostly_zeros and n >= FEW_SAMPLES else "samples"

    def _new_front(self, kind: str) -> Front:
        return Front(kind, self.config.n_inputs, self._recipe.max_components)

    def _new_net(self, sizes: Mapping[str, int], n_targets: int, generator: torch.Generator) -> FusionNet:
        recipe = self._recipe
        return FusionNet(
            sizes,
            n_targets,
            n_members=self.config.n_models or recipe.n_models,
            n_hidden=recipe.n_hidden,
            n_latent=self.config.n_latent,
            n_covariates=len(self._batches.names),
            masking=recipe.masking,
            modality_dropout=recipe.modality_dropout,
            skip=recipe.skip,
            generator=generator,
        )

    def _check(self, data: Mapping[str, _slots.Modality], n_obs: int) -> None:
        """Refuse what cannot be embedded together, saying what is needed."""
        if n_obs < FEWEST_SAMPLES:
            raise ValueError(f"{n_obs} samples are too few to learn from; at least {FEWEST_SAMPLES} are needed.")
        for name, d in data.items():
            if len(d.rows) < _slots.FEWEST_COMMON:
                raise ValueError(
                    f"modality {name!r} was measured in {len(d.rows)} samples; at least {_slots.FEWEST_COMMON} are needed. Leave it "
                    "out with modalities=."
                )
        _slots.require_linked(data)

    # ---- trust and guidance ------------------------------------------------------------------------------------
    def _fit_trust(self, seen, data, scores, neighbours) -> dict[str, float]:
        """How much each modality counts; the shares sum to one."""
        if self._recipe.trust == "components":
            trust = {m: max(front.n_significant, 0.5) for m, front in self.fronts.items()}
        else:
            trust = {m: self._reliability(m, seen[m], data, scores, neighbours) ** 2 for m in data}
        return {m: t / sum(trust.values()) for m, t in trust.items()}

    def _reliability(self, name: str, x, data, scores, neighbours) -> float:
        """Share of a modality's structure that independent evidence confirms, at most over two kinds of evidence.

        Neighbours in one half of its features predict the other half; neighbours in another modality predict it.
        """
        rng, found = np.random.default_rng(self.config.random_state), [0.01]
        columns = self.fronts[name].columns
        chosen = np.sort(rng.permutation(x.shape[0])[:RELIABILITY_CELLS])
        if len(columns) >= 4:
            shuffled = rng.permutation(columns)
            halves = [np.sort(shuffled[: len(columns) // 2]), np.sort(shuffled[len(columns) // 2 :])]
            z = [self._new_front(self.kinds[name]).fit(x[chosen], data[name].names, half) for half in halves]
            near = [local_kernel(*neighbors_of(v, self._recipe.n_neighbors[-1])) for v in z]
            found.append((_predictable(near[0], z[1]) + _predictable(near[1], z[0])) / 2)
        for other in data:
            common, a, b = np.intersect1d(data[other].rows, data[name].rows, return_indices=True)
            k = self._recipe.n_neighbors[-1]
            if other != name and len(common) > 3 * k:
                a, b = a[:RELIABILITY_CELLS], b[:RELIABILITY_CELLS]
                found.append(_predictable(local_kernel(*neighbors_of(scores[other][a], k)), scores[name][b]))
        return max(found)

    def _guidance(self, scores, rows, neighbours, n: int) -> np.ndarray:
        """What the head has to predict, of unit variance over all: where each sample lies in the fused graph."""
        recipe, kernels, where, weights = self._recipe, [], [], []
        for m in scores:
            distances, indices = neighbours[m]
            for k in recipe.n_neighbors if self.batches is None else (distances.shape[1],):
                kernels.append(local_kernel(distances[:, :k], indices[:, :k]))
                where.append(rows[m])
                weights.append(self.trust[m])
        graph = fuse(kernels, where, weights, n)
        if recipe.guide == "diffusion":
            target = diffusion_coordinates(graph, recipe.n_targets, DIFFUSION_TIME)
        else:
            parts = [
                self.trust[m] ** 0.5 * smooth(graph, z / z.shape[1] ** 0.5, rows[m], SMOOTHING_STEPS)
                for m, z in scores.items()
            ]
            target = principal(np.hstack(parts), recipe.n_targets)
        target = target - target.mean(0)
        return target / max(float(np.sqrt(np.mean(target**2))), 1e-12)

    def _without_batch(self, modality: str, scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Scores less what their batch is off where they lie; a batch that the model does not know (-1) is not shifted."""
        if modality not in self.alignments:
            return scores
        known = self._batches.one_hot(codes, unknown=0.0)
        return self.alignments[modality](torch.from_numpy(scores), torch.from_numpy(known)).numpy()

    # ---- tensors -----------------------------------------------------------------------------------------------
    def _tensors(self, scores, rows, n: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Scores of all samples, zero where a modality is missing, and the weights (samples, modalities)."""
        x, weights = {}, torch.zeros(n, len(self.fronts), dtype=torch.float32)
        for i, (m, front) in enumerate(self.fronts.items()):
            x[m] = torch.zeros(n, front.loadings.shape[1], dtype=torch.float32)
            if m in scores:
                x[m][rows[m]] = torch.from_numpy(scores[m])
                weights[rows[m], i] = self.trust[m]
        return {m: v.to(self.device) for m, v in x.items()}, weights.to(self.device)

    def _shuffled(self, x, weights, target, covariate, size: int, generator: torch.Generator) -> Iterator[FusionBatch]:
        """Batches without end; every member draws its own samples."""
        n, members = len(target), self.net.n_members
        orders, at, own = torch.empty(members, 0, dtype=torch.long), 0, generator_on(self.device, generator)
        while True:
            if at + size > orders.shape[1]:
                orders, at = torch.rand(members, n, generator=generator, dtype=torch.float32).argsort(1), 0
            rows, at = orders[:, at : at + size].to(self.device), at + size
            yield FusionBatch(
                {m: v[rows] for m, v in x.items()},
                weights[rows],
                target[rows],
                None if covariate is None else covariate[rows],
                own,
            )

    @torch.no_grad()
    def _outputs(self, x, weights, covariate=None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Mean over the members of what the head and the decoders say; without a covariate: of an average batch."""
        members, n = self.net.n_members, len(weights)
        heads: list[torch.Tensor] = []
        decoded: dict[str, list[torch.Tensor]] = {m: [] for m in x}
        if covariate is None and self.batches is not None:
            covariate = torch.full(
                (n, len(self.batches)), 1 / len(self.batches), dtype=torch.float32, device=self.device
            )
        for start in range(0, n, BLOCK):
            rows = slice(start, start + BLOCK)
            code = self.net.encode(
                {m: v[rows].expand(members, -1, -1) for m, v in x.items()}, weights[rows].expand(members, -1, -1)
            )
            heads.append(self.net.head(code).mean(0))
            told = None if covariate is None else covariate[rows].expand(members, -1, -1)
            for m, v in self.net.decode(code, told).items():
                decoded[m].append(v.mean(0))
        return torch.cat(heads).cpu().numpy(), {m: torch.cat(v).cpu().numpy() for m, v in decoded.items()}

    # ---- judging -----------------------------------------------------------------------------------------------
    def _judge_entries(self, data, heldout, rng) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Held-out entries that the encoder would read: (sample, feature read, standardised value)."""
        out = {}
        for m, d in data.items():
            front, (row, column) = self.fronts[m], heldout[m]
            position = np.full(d.x.shape[1], -1)
            position[front.columns] = np.arange(len(front.columns))
            row, column = row[position[column] >= 0], position[column[position[column] >= 0]]
            value = np.asarray(front.standardised(d.x)[row, column], np.float32).ravel()
            there = np.isfinite(np.asarray(d.x[row, front.columns[column]], np.float32).ravel())
            out[m] = d.rows[row[there]], column[there], value[there]
        return out

    def _explained(self, x, weights, covariate, judged) -> dict[str, float]:
        """Share of the variance of the held-out entries that the decoders explain, by modality."""
        _, decoded = self._outputs(x, weights, covariate)
        explained = {}
        for m, (row, column, value) in judged.items():
            front = self.fronts[m]
            mean = np.einsum("ij,ij->i", decoded[m][row] * front.unit, front.loadings[column])
            value = value - front.centre[column]
            total = float((value**2).sum())
            explained[m] = 1 - float(((value - mean) ** 2).sum()) / total if total > 0 else 0.0
        return explained

    # ---- the code ----------------------------------------------------------------------------------------------
    def _fit_code(self, x: Mapping[str, torch.Tensor], weights: torch.Tensor) -> None:
        """Learn the blocks of the code, each turned so that its columns share the variance."""
        rng, recipe = np.random.default_rng(self.config.random_state), self._recipe
        head, decoded = self._outputs(x, weights)
        head = head[:, : recipe.n_guided]
        self.guided_mean = head.mean(0)
        length = np.sqrt(((head - self.guided_mean) ** 2).sum(1).mean())
        self.guided_axes = np.ascontiguousarray(_turn(head.shape[1], rng) / max(length, 1e-12), np.float32)
        share = recipe.linear_share if self.exchangeable else recipe.linear_share_apart
        self.linear_mean, self.linear_axes = _block(self._beside(decoded), self.config.n_latent, share, rng)
        measured = self._beside(self._measured(x, weights, decoded))
        self.measured_mean, self.measured_axes = _block(measured, recipe.n_measured, recipe.measured_share, rng)

    def _code(self, x: Mapping[str, torch.Tensor], weights: torch.Tensor, same: np.ndarray) -> np.ndarray:
        """The code of samples, from the scores of the modalities that they have.

        What the encoders say of a sample that lacks a modality is a mean over all that it might be, nearer to the centre
        than any of these is. Training samples that have every modality know by how much: those most like the sample,
        encoded with and without what it lacks. Their mean difference is added, unless training found that samples which
        lack a modality are unlike those that have all.

        Parameters
        ----------
        x, weights
            As from `_tensors`.
        same
            For each sample the position of the training sample that is the same, which must not tell; -1: none.
        """
        code, has, n_like = self._encoded(x, weights), (weights > 0).cpu().numpy(), self._recipe.n_like
        if not n_like or not self.exchangeable or has.all():
            return code
        complete = self._complete()
        if len(complete) <= n_like:
            return code
        full = self._encoded(*self._reference_tensors(complete, self.fronts))
        for pattern in np.unique(has[has.any(1) & ~has.all(1)], axis=0):
            which = np.flatnonzero((has == pattern).all(1))
            given = [m for m, there in zip(self.fronts, pattern, strict=True) if there]
            part = self._encoded(*self._reference_tensors(complete, given))
            query = self._likeness({m: x[m][which].cpu().numpy() for m in given}, code[which])
            among = self._likeness({m: self.reference[m][complete] for m in given}, part)
            indices = nearest(query, n_like + 1, among=among)[1]
            others = complete[indices] != same[which][:, None]
            others[others.all(1), -1] = False  # one more than needed was sought, in case that one is the sample itself
            code[which] += np.einsum("ij,ijk->ik", others / n_like, (full - part)[indices]).astype(np.float32)
        return code

    def _complete(self) -> np.ndarray:
        """Training samples that have every modality, at most so many."""
        rows = np.arange(len(self.reference_names))
        for target in self.targets.values():
            rows = rows[np.isin(rows, target.rows)]
        return np.sort(np.random.default_rng(self.config.random_state).permutation(rows)[:MOST_COMPLETE])

    def _reference_tensors(
        self, rows: np.ndarray, given: Iterable[str]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Training samples with some of their modalities."""
        place = {m: np.flatnonzero(np.isin(rows, self.targets[m].rows)) for m in given}
        return self._tensors({m: self.reference[m][rows[place[m]]] for m in given}, place, len(rows))

    def _likeness(self, scores: Mapping[str, np.ndarray], code: np.ndarray) -> np.ndarray:
        """Where samples are compared: the scores of their modalities, of unit variance in all, and the code."""
        total = sum(self.trust[m] for m in scores)
        return np.hstack([self._beside(scores) / total**0.5, code])

    def _encoded(self, x: Mapping[str, torch.Tensor], weights: torch.Tensor) -> np.ndarray:
        """What the networks alone say of samples."""
        head, decoded = self._outputs(x, weights)
        guided = (head[:, : self._recipe.n_guided] - self.guided_mean) @ self.guided_axes
        linear = (self._beside(decoded) - self.linear_mean) @ self.linear_axes
        measured = (self._beside(self._measured(x, weights, decoded)) - self.measured_mean) @ self.measured_axes
        return np.hstack([guided, linear, measured]).astype(np.float32)

    def _beside(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.hstack([v * (self.trust[m] / v.shape[1]) ** 0.5 for m, v in values.items()])

    @staticmethod
    def _measured(x, weights, decoded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores of the modalities, what was decoded standing for a missing one."""
        has = (weights > 0).cpu().numpy()
        return {m: np.where(has[:, [i]], x[m].cpu().numpy(), v) for i, (m, v) in enumerate(decoded.items())}

    # ---- using -------------------------------------------------------------------------------------------------
    def encode(
        self, mdata: MuData, *, modalities: Sequence[str] | None = None, layer: Mapping[str, str | None] | None = None
    ) -> np.ndarray:
        """Code of each sample of ``mdata.obs``, in order, from whatever modalities it has.

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
        Array of shape (samples, dimensions of the code). A sample without any modality gets the code of an empty one.

        Raises
        ------
        ValueError
            No modality is known to the model, or fewer than a tenth of a modality's features are there.
        """
        return self._code(*self._read_new(mdata, modalities, layer), self._same(mdata))

    def _same(self, mdata: MuData) -> np.ndarray:
        """Positions of the samples among those of training, by name; -1: not there."""
        return self.reference_names.get_indexer(mdata.obs_names.astype(str))

    def weights(
        self, mdata: MuData, *, modalities: Sequence[str] | None = None, layer: Mapping[str, str | None] | None = None
    ) -> pd.DataFrame:
        """How much each modality counts in the code of each sample: (samples, modalities), rows summing to one.

        Zero where the sample lacks the modality. Parameters as in `encode`.
        """
        _, weights = self._read_new(mdata, modalities, layer)
        shares = (weights / weights.sum(1, keepdim=True).clamp_min(1e-9)).cpu().numpy()
        return pd.DataFrame(shares, index=mdata.obs_names, columns=list(self.fronts))

    def predict(
        self,
        mdata: MuData,
        target: str,
        *,
        features: Sequence[str] | None = None,
        modalities: Sequence[str] | None = None,
        layer: Mapping[str, str | None] | None = None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Predict one modality from the others, for every sample of ``mdata.obs``.

        The values of the training samples nearest to it, in the code, in the components that the other modalities give,
        and in what a linear regression on these says of the target; a sample never predicts itself. Counts are predicted
        as log1p (RNA after normalisation to the median depth), peaks and mutations as probabilities, anything else on
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
        self._require_fit()
        if target not in self.fronts:
            raise KeyError(f"target={target!r} is not a modality of this model; it knows {list(self.fronts)}.")
        known = self.targets[target]
        columns = (
            np.arange(len(known.names)) if features is None else _slots.positions(features, known.names, "features")
        )
        sources = [m for m in (modalities or self.fronts) if m != target and (modalities is not None or m in mdata.mod)]
        if not sources:
            raise ValueError(
                f"nothing to predict {target!r} from: of {list(self.fronts)} the data have {list(mdata.mod)}."
            )
        scores, rows = self._new_scores(mdata, sources, layer)
        x, weights = self._tensors(scores, rows, mdata.n_obs)
        queries = {m: v.cpu().numpy() for m, v in x.items()}
        mean, sd = (np.full((mdata.n_obs, len(columns)), np.nan, np.float32) for _ in range(2))
        has = (weights > 0).cpu().numpy()
        own = self._same(mdata)
        for pattern in np.unique(has[has.any(1)], axis=0):
            which = np.flatnonzero((has == pattern).all(1))
            given = [m for m, there in zip(self.fronts, pattern, strict=True) if there]
            usable = known.rows[np.all([np.isin(known.rows, self.targets[m].rows) for m in given], 0)]
            if len(usable) < _slots.FEWEST_COMMON:
                continue
            values = known.values[np.isin(known.rows, usable)]
            query, reference = (self._spaces(v, given, r) for v, r in ((queries, which), (self.reference, usable)))
            same = np.full(len(self.reference_names) + 1, -1)  # the last one: for samples that are not known
            same[usable] = np.arange(len(usable))
            same = same[own[which]]
            further = linear_space(query[-1], reference[-1], values, same, standardise=known.readout is None)
            query, reference = [*query, further[0]], [*reference, further[1]]
            estimate, variance = from_neighbours(query, reference, values, same)
            variance = variance * calibration(reference, values, self.config.random_state)
            mean[which], sd[which] = known.features(estimate, variance, columns)
        names = known.names[columns]
        return (
            pd.DataFrame(mean, index=mdata.obs_names, columns=names),
            pd.DataFrame(sd, index=mdata.obs_names, columns=names),
        )

    def placed(self, mdata: MuData, *, layer: Mapping[str, str | None] | None = None) -> Iterator[QueryGroup]:
        """Codes of new samples, and the training samples to compare them with: coded from the same modalities.

        Parameters as in `encode`; what `aeverse.tl.map_query` is made of.
        """
        x, weights = self._read_new(mdata, None, layer)
        code, has = self._code(x, weights, self._same(mdata)), (weights > 0).cpu().numpy()
        for pattern in np.unique(has, axis=0):
            rows = np.flatnonzero((has == pattern).all(1))
            given = [m for m, there in zip(self.fronts, pattern, strict=True) if there]
            yield QueryGroup(rows, code[rows], self._like(given) if given else None, given)

    def _like(self, given: Sequence[str]) -> Reference:
        """Training samples that have some modalities, coded from these alone."""
        rows = np.arange(len(self.reference_names))
        for m in given:
            rows = rows[np.isin(rows, self.targets[m].rows)]
        if len(rows) < _slots.FEWEST_COMMON:  # as in a mosaic: those that have any of them, coded from what they have
            rows = np.unique(np.concatenate([self.targets[m].rows for m in given]))
        rows = rows[reference_rows(len(rows), self.config.random_state)]
        code = self._code(*self._reference_tensors(rows, given), rows)
        return Reference.of(code, {name: values[rows] for name, values in self.labels.items()})

    def labelled(
        self, mdata: MuData, labels: Sequence[str], group: QueryGroup, *, layer: Mapping[str, str | None] | None = None
    ) -> Reference:
        """Other samples to take labels from, coded from the modalities of a group."""
        x, weights = self._read_new(mdata, group.modalities, layer)
        rows = np.flatnonzero((weights > 0).any(1).cpu().numpy())
        code = self._code(x, weights, self._same(mdata))[rows]
        return Reference(code, np.empty(0), {name: read_labels(mdata.obs[name], name)[rows] for name in labels})

    def attributions(
        self,
        mdata: MuData,
        groups: pd.Categorical | None = None,
        *,
        n_top: int = 50,
        layer: Mapping[str, str | None] | None = None,
        random_state: int = 0,
    ) -> tuple[dict[str, Attribution], list[str]]:
        """Integrated gradients of the code's dimensions, or of `groups` of the samples, by modality; names of both.

        What `aeverse.tl.attribute` is made of, see there.
        """
        data, rng = self._new_data(mdata, None, layer), np.random.default_rng(random_state)
        scores, weights = self._tensors(*self._scores_of(mdata, data), mdata.n_obs)
        nets = [net_of_fusion(self, data, scores, weights)]
        if groups is None:
            found = of_dimensions(nets, n_top, rng)
            return found, [str(i) for i in range(next(iter(found.values())).values.shape[1])]
        return of_groups(nets, groups, n_top, rng), list(groups.categories)

    def _spaces(self, scores: Mapping[str, np.ndarray], given: Sequence[str], rows: np.ndarray) -> list[np.ndarray]:
        """Where samples lie, by some of their modalities: the linear part of their code, and their components."""
        own, place = {m: scores[m][rows] for m in given}, dict.fromkeys(given, np.arange(len(rows)))
        code = self._encoded(*self._tensors(own, place, len(rows)))[:, self.guided_axes.shape[1] :]
        return [code, np.hstack([v * (self.trust[m] / v.shape[1]) ** 0.5 for m, v in own.items()])]

    def _read_new(self, mdata, modalities=None, layer=None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        scores, rows = self._new_scores(mdata, modalities, layer)
        return self._tensors(scores, rows, mdata.n_obs)

    def _new_scores(self, mdata, modalities=None, layer=None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Scores of the modalities that both have, and the samples that they belong to."""
        return self._scores_of(mdata, self._new_data(mdata, modalities, layer))

    def _new_data(self, mdata, modalities=None, layer=None) -> dict[str, _slots.Modality]:
        """The modalities that both have."""
        self._require_fit()
        _slots.target_mudata(mdata, copy=False)
        known = [m for m in self.fronts if m in mdata.mod]
        if modalities is not None and (unknown := [m for m in _slots.name_list(modalities) if m not in known]):
            raise KeyError(f"modalities names {unknown}; model and data have {known or 'none'} in common.")
        wanted = known if modalities is None else _slots.name_list(modalities)
        if not wanted:
            raise ValueError(
                f"the model knows {list(self.fronts)}, the data have {list(mdata.mod)}: no modality in common."
            )
        layer = self.layer if layer is None else layer
        data = _slots.read_modalities(
            mdata, wanted, {m: name for m, name in layer.items() if m in wanted}, dict.fromkeys(wanted)
        )
        data = {m: _without_empty(d, self.kinds[m]) for m, d in data.items()}
        for m, d in data.items():
            self._check_features(m, d.names)
        return data

    def _scores_of(self, mdata, data) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        scores, rows = {m: self.fronts[m](d.x, d.names) for m, d in data.items()}, {m: d.rows for m, d in data.items()}
        codes = self._batches.codes_in(mdata, may_lack_column=True, treated="coded as they are")
        if codes is not None:
            scores = {m: self._without_batch(m, z, codes[rows[m]]) for m, z in scores.items()}
        return scores, rows

    def _check_features(self, modality: str, names: pd.Index) -> None:
        front = self.fronts[modality]
        found, total = len(front.match(names)[1]), len(front.names)
        message = f"modality {modality!r}: {found} of the {total} features that the encoder reads were found"
        if found < SMALLEST_SHARE_OF_FEATURES * total:
            raise ValueError(
                f"{message}; do the names match? The model has {list(front.names[:3])} …, the data {list(names[:3])} …."
            )
        if found < total:
            _slots.warn(f"{message}; the others are taken to be at their means.")

    def _require_fit(self) -> None:
        if self.variance_explained is None:
            raise RuntimeError(
                "this MultimodalAutoencoder is not fitted, or its last fit did not end; call .fit(mdata) first."
            )

    # ---- keeping -----------------------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write the model to one file (safetensors with a JSON header), which `models.load` reads."""
        self._require_fit()
        io.save_arrays(path, type(self).__name__, *io.pack(self.tree()))

    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "config": dataclasses.asdict(self.config),
            "batches": self._batches.tree(),
            "modalities": [
                {
                    "name": m,
                    "front": front.tree(),
                    "target": self.targets[m].tree(),
                    "reference": self.reference[m],
                    "alignment": _state(self.alignments[m]) if m in self.alignments else None,
                }
                for m, front in self.fronts.items()
            ],
            "reference_names": list(self.reference_names),
            "labels": labels_tree(self.labels),
            "net": _state(self.net),
            **{name: getattr(self, name) for name in _KEPT},
        }

    @classmethod
    @_settings.learning()
    def from_tree(cls, tree: Mapping[str, Any]) -> MultimodalAutoencoder:
        """Rebuild a model from its `tree`."""
        model = cls(**tree["config"])
        for name in _KEPT:
            setattr(model, name, tree[name])
        model._batches = Batches.from_tree(tree["batches"])
        model.reference_names, model.labels = pd.Index(tree["reference_names"]), labels_from_tree(tree["labels"])
        parts = {part["name"]: part for part in tree["modalities"]}
        model.fronts = {m: Front.from_tree(part["front"]) for m, part in parts.items()}
        model.targets = {m: Target.from_tree(part["target"]) for m, part in parts.items()}
        model.reference = {m: part["reference"] for m, part in parts.items()}
        model.alignments = {
            m: _alignment(part["alignment"]) for m, part in parts.items() if part["alignment"] is not None
        }
        sizes = {m: front.loadings.shape[1] for m, front in model.fronts.items()}
        start = torch.Generator()  # of weights that those of the file replace
        model.net = model._new_net(sizes, len(tree["net"]["emphasis"]), start)
        model.net.load_state_dict({name: torch.tensor(a) for name, a in tree["net"].items()})
        model.net.eval()
        return model


_KEPT = (
    "kinds", "layer", "recipe", "trust", "exchangeable", "history", "variance_explained",
    "guided_mean", "guided_axes", "linear_mean", "linear_axes", "measured_mean", "measured_axes",
)  # fmt: skip


# ---- helpers ---------------------------------------------------------------------------------------------------
def _alignment(state: Mapping[str, np.ndarray]) -> Alignment:
    return Alignment(torch.tensor(state["places"]), torch.tensor(state["shifts"]), float(state["width"][0]))


def _state(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}


def kinds_of(data: Mapping[str, _slots.Modality], likelihood: str | Mapping[str, str]) -> dict[str, str]:
    """Kind of data of each modality: what the caller says, else what its values tell."""
    if isinstance(likelihood, str):
        if likelihood != "auto":
            raise ValueError(
                f"likelihood={likelihood!r} must be 'auto' or a dict from modality to one of {list(KINDS)}."
            )
        likelihood = {}
    for m, kind in likelihood.items():
        if m not in data:
            raise KeyError(f"likelihood names {m!r}, but the modalities are {list(data)}.")
        if kind not in (*KINDS, "auto"):
            raise ValueError(f"likelihood={kind!r} of modality {m!r} must be 'auto' or one of {list(KINDS)}.")
        x = data[m].x
        values = x if isinstance(x, np.ndarray) else x.data
        if kind in COUNT_KINDS and values.size and np.nanmin(values) < 0:
            raise ValueError(f"likelihood={kind!r} of modality {m!r} needs counts, but there are negative values.")
    chosen = {m: likelihood.get(m, "auto") for m in data}
    return {m: kind_of(data[m].x, data[m].names) if kind == "auto" else kind for m, kind in chosen.items()}


def _without_empty(d: _slots.Modality, kind: str) -> _slots.Modality:
    """Leave out samples without a molecule; make small matrices that are no sparse counts dense."""
    x, rows = d.x, d.rows
    if not isinstance(x, np.ndarray) and kind not in ("counts", "peaks") and x.shape[0] * x.shape[1] <= SMALL_ENTRIES:
        x = x.toarray()
    if not sp.issparse(x) and kind in ("counts", "peaks") and not np.isnan(x).any():
        x = sp.csr_matrix(x)
    if kind in COUNT_KINDS:
        total = np.asarray(x.sum(1) if sp.issparse(x) else np.nansum(x, 1)).ravel()
        if not (total > 0).all():
            x, rows = x[total > 0], rows[total > 0]
    return _slots.Modality(x, rows, d.names, d.mask)


def _columns(d: _slots.Modality) -> np.ndarray | None:
    return None if d.mask is None else np.flatnonzero(d.mask)


def _heldout_entries(d: _slots.Modality, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions (row, column) of the entries that nothing is learnt from."""
    n, p = d.x.shape
    size = max(1, int(min(SHARE_HELDOUT * n * p, MOST_HELDOUT)))
    position = np.unique(rng.integers(0, n * p, size))
    return position // p, position % p


def _blanked(x, row: np.ndarray, column: np.ndarray):
    """A copy without some entries: NaN where dense, zero where sparse."""
    if sp.issparse(x):
        there = sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=x.shape)
        return sp.csr_matrix(x - x.multiply(there))
    x = x.copy()
    x[row, column] = np.nan
    return x


def _exchangeable(
    complete: np.ndarray, rows: Mapping[str, np.ndarray], neighbours: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> bool:
    """Whether samples that lack a modality have complete ones among their neighbours, at least half as often as by chance."""
    found, expected = 0.0, 0.0
    for m, (_, indices) in neighbours.items():
        whole = complete[rows[m]]
        found += float(whole[indices[~whole]].mean(1).sum())
        expected += float((~whole).sum() * whole.mean())
    return bool(complete.all() or 0 < LEAST_MIXING * expected <= found)


def _predictable(kernel: sp.csr_matrix, z: np.ndarray) -> float:
    """Share of the variance of `z` that its neighbours along a kernel predict."""
    return max(0.0, 1 - float(((z - kernel @ z) ** 2).sum() / max(((z - z.mean(0)) ** 2).sum(), 1e-12)))


def _turn(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random rotation."""
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def _block(values: np.ndarray, k: int, length: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and axes of a block of the code: principal components, half whitened, turned, of a given length in all."""
    mean = values.mean(0)
    covariance = np.cov(values.T.astype(np.float64)).reshape(values.shape[1], -1)
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    k = min(k, max(1, int((variances > 1e-12 * max(variances[0], 1e-12)).sum())))
    spread = np.sqrt(np.maximum(variances[:k], 1e-12))
    axes = length * (vectors[:, :k] / spread**0.5) @ _turn(k, rng) / np.sqrt(max(spread.sum(), 1e-12))
    return mean, np.ascontiguousarray(axes, np.float32)
