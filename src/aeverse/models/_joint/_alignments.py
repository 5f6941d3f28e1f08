"""Batches brought together in the scores of a modality."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from aeverse.models._shared._batches import Batches
from aeverse.nn import Alignment


def without_batch(
    scores: np.ndarray, alignment: Alignment | None, batches: Batches, codes: np.ndarray | None
) -> np.ndarray:
    """Scores less what their batch is off where they lie; a batch that the model does not know (-1) is not shifted."""
    one_hot = batches.one_hot(codes, unknown=0.0)
    if alignment is None or one_hot is None:
        return scores
    return alignment(torch.from_numpy(scores), torch.from_numpy(one_hot)).numpy()


def alignment_tree(alignment: Alignment | None) -> dict[str, np.ndarray]:
    """Arrays by name; empty for none."""
    return {} if alignment is None else {name: tensor.cpu().numpy() for name, tensor in alignment.state_dict().items()}


def alignment_from_tree(tree: Mapping[str, np.ndarray]) -> Alignment | None:
    """Rebuild from `alignment_tree`."""
    if not tree:
        return None
    return Alignment(torch.tensor(tree["centroids"]), torch.tensor(tree["shifts"]), float(tree["width"][0]))
