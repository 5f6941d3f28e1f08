"""The judge of `tl.benchmark` without labels: clusters found with half of the molecules, judged on the other half."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp

from aeverse import _slots, metrics, models, train
from aeverse.tl._benchmark_fits import Run, embed_matrix
from aeverse.tl._benchmark_scores import FEWEST_JUDGED

MOLECULES = ("counts", "protein")  # kinds of values whose molecules can be split
NO_SCORES = {"n_clusters": np.nan, "cluster_deviance": np.nan}


@dataclasses.dataclass(frozen=True)
class Halves:
    """All cells with one half of their molecules in ``X``, and the other half of the molecules."""

    first: Any  # AnnData
    second: sp.csr_matrix


def split_in_halves(data, layer, random_state: int) -> Halves | None:
    """Give each molecule to one of two halves; None for several modalities, values that are no counts, or few samples."""
    if hasattr(data, "mod") or data.n_obs < FEWEST_JUDGED:
        return None
    matrix = _slots.as_modality(data, layer, "auto")
    if models.kind_of(matrix.x, matrix.names) not in MOLECULES:
        return None
    from anndata import AnnData

    counts = _slots.read_counts(data, layer)
    first, second = train.split_molecules(counts, 0.5, np.random.default_rng(random_state))
    expressed = np.asarray(first.sum(0)).ravel() > 0  # a gene without a molecule cannot be learned
    return Halves(AnnData(first[:, expressed], obs=data.obs, var=data.var[expressed]), second[:, expressed])


def cluster_scores(run: Run, halves: Halves | None) -> dict[str, float]:
    """Clusters of scanpy's default call on the embedding of the first half: their number, and how they predict the second.

    One fit for all cells: no molecule that judges was seen, so there is no need for folds.
    """
    if halves is None:
        return NO_SCORES
    code = embed_matrix(dataclasses.replace(run, layer=None), halves.first.copy())
    clusters = metrics.default_clusters(code, random_state=run.seed)
    deviance = metrics.cluster_deviance(clusters["clusters"], halves.first.X, halves.second)
    return {"n_clusters": clusters["n_clusters"], "cluster_deviance": deviance}
