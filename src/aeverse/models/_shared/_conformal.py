"""Prediction sets: the labels that a new sample may have, holding the true one with a chosen probability.

Conformal prediction [Vovk2005]_ in two steps. How well a sample conforms to a label is its rank among the training samples of
that label (each compared with the others only), so that wide and narrow labels are treated alike (Mondrian). Two ranks are
taken, and the smaller one counts: of the distance to the samples of the label, and of that distance as a multiple of the
distance to the samples of the nearest other label. The level is then set by samples that training has not seen
(split conformal, [Angelopoulos2023]_).
"""

from __future__ import annotations

import numpy as np

from aeverse.nn import nearest

N_NEIGHBORS = 15
FEWEST_OF_LABEL = 30  # samples of a label that are compared among themselves; those of rarer labels are pooled
FEWEST_UNSEEN = 2  # unseen samples that must be expected outside their sets, for these to set the level


def prediction_sets(
    reference: np.ndarray,
    labels: np.ndarray,
    new: np.ndarray,
    *,
    n_labels: int,
    unseen: np.ndarray,
    unseen_labels: np.ndarray,
    alpha: float,
) -> np.ndarray:
    """Which labels belong to the prediction set of each new sample, (new samples, labels).

    Parameters
    ----------
    reference, labels
        Embedding of training samples, (samples, dimensions), and their labels as integers.
    new
        Embedding of new samples.
    n_labels
        Number of labels.
    unseen, unseen_labels
        Embedding and labels of samples that training has not seen. Where there are too few of them, the training samples
        set the level, which makes the sets larger.
    alpha
        Probability that the true label is outside.
    """
    reference_distances = _class_distances(reference, labels, n_labels)
    if alpha * len(unseen) >= FEWEST_UNSEEN:
        judges, judges_labels = _class_distances(reference, labels, n_labels, unseen), unseen_labels
    else:
        judges, judges_labels = reference_distances, labels
    conforms = _conformity(reference_distances, labels, judges)[np.arange(len(judges_labels)), judges_labels]
    distances = _class_distances(reference, labels, n_labels, new)
    return (_share_at_most(conforms, _conformity(reference_distances, labels, distances)) > alpha) & np.isfinite(
        distances
    )


def _class_distances(
    reference: np.ndarray, labels: np.ndarray, n_labels: int, new: np.ndarray | None = None
) -> np.ndarray:
    """Mean distance to the nearest samples of each label, (samples, labels); infinite where it has none.

    Of new samples, or of the reference samples themselves, each without itself.
    """
    distances = np.full((len(reference if new is None else new), n_labels), np.inf)
    for label in range(n_labels):
        members = labels == label
        among = reference[members]
        if new is not None and len(among):
            distances[:, label] = nearest(new, min(N_NEIGHBORS, len(among)), among=among)[0].mean(1)
        elif len(among):
            other_distances = nearest(reference[~members], min(N_NEIGHBORS, len(among)), among=among)[0]
            distances[~members, label] = other_distances.mean(1)
            if len(among) > 1:
                distances[members, label] = nearest(among, N_NEIGHBORS)[0].mean(1)
    return distances


def _conformity(reference_distances: np.ndarray, labels: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The smaller of the two ranks of each sample among the reference samples of each label, (samples, labels)."""
    ranks = [
        _ranks(reference_part, labels, part)
        for reference_part, part in (
            (reference_distances, distances),
            (_ratios(reference_distances), _ratios(distances)),
        )
    ]
    return np.minimum(*ranks)


def _ratios(distances: np.ndarray) -> np.ndarray:
    """Distance to each label as a multiple of the distance to the nearest other label."""
    if distances.shape[1] < 2:
        return distances
    first, second = np.partition(distances, 1, axis=1)[:, :2].T
    other = np.where(distances == first[:, None], second[:, None], first[:, None])
    ratios = np.full_like(distances, np.inf)
    return np.divide(distances, np.maximum(other, 1e-12), out=ratios, where=np.isfinite(distances))


def _ranks(reference_distances: np.ndarray, labels: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Share of the reference samples of each label that are at least as far from it, (samples, labels).

    Beyond the furthest of them it goes on falling with the distance: else a sample just outside a label would conform as
    little as one of another kind, and a few unseen samples of the former sort would let all of the latter in.
    """
    of_own_label = reference_distances[np.arange(len(reference_distances)), labels]
    ranks = np.zeros(distances.shape)
    for label in range(distances.shape[1]):
        members = labels == label
        peers = of_own_label[members] if members.sum() >= FEWEST_OF_LABEL else of_own_label
        peers = peers[np.isfinite(peers)]
        furthest = peers.max() if len(peers) else np.inf
        beyond = furthest / np.maximum(distances[:, label], max(furthest, 1e-12)) if np.isfinite(furthest) else 1
        ranks[:, label] = _share_at_most(-peers, -distances[:, label]) * beyond
    return np.where(np.isfinite(distances), ranks, 0)


def _share_at_most(sample: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Conformal p-values: share of a sample, together with the value itself, that is at most as large as each value."""
    return (1 + np.searchsorted(np.sort(sample), values, side="right")) / (1 + len(sample))
