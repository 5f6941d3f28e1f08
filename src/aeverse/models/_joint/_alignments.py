"""Batches brought together in the scores of each modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from aeverse.models._shared._alignment import alignment
from aeverse.models._shared._batches import Batches
from aeverse.nn import Alignment


def align(
    scores: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    batches: Batches,
    codes: np.ndarray | None,
    random_state: int,
) -> tuple[dict[str, Alignment], dict[str, np.ndarray]]:
    """Learn how far batches lie apart in each modality (not in one measured in a single batch); scores without that."""
    if codes is None:
        return {}, dict(scores)
    found = {m: alignment(z, codes[rows[m]], len(batches.names), random_state) for m, z in scores.items()}
    known = {m: a for m, a in found.items() if a is not None}
    return known, without_batch(scores, rows, known, batches, codes)


def without_batch(
    scores: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    alignments: Mapping[str, Alignment],
    batches: Batches,
    codes: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Scores less what their batch is off where they lie; a batch that the model does not know (-1) is not shifted."""
    moved = dict(scores)
    if codes is None:
        return moved
    for m in scores:
        if m in alignments:
            known = batches.one_hot(codes[rows[m]], unknown=0.0)
            assert known is not None
            moved[m] = alignments[m](torch.from_numpy(scores[m]), torch.from_numpy(known)).numpy()
    return moved


def alignments_tree(alignments: Mapping[str, Alignment], modalities: Sequence[str]) -> list[Any]:
    """Modality and arrays of each."""
    return [
        {"name": m, **{name: tensor.cpu().numpy() for name, tensor in alignments[m].state_dict().items()}}
        for m in modalities
        if m in alignments
    ]


def alignments_from_tree(tree: Sequence[Mapping[str, Any]]) -> dict[str, Alignment]:
    """Rebuild from `alignments_tree`."""
    return {
        a["name"]: Alignment(torch.tensor(a["centroids"]), torch.tensor(a["shifts"]), float(a["width"][0]))
        for a in tree
    }
