"""The scores of `tl.benchmark`: what is known of the samples, and how well codes of held-out samples show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aeverse import _slots, metrics, models
from aeverse.methods._features import Features
from aeverse.tl._cox import choose_penalty, comparable, penalties, predict

FEWEST_JUDGED = 10  # samples for a score of neighbourhoods


@dataclass
class Known:
    """What is known of the samples; None for what was not asked for."""

    labels: np.ndarray | None = None
    batches: np.ndarray | None = None
    time: np.ndarray | None = None
    event: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> Known:
        return Known(*(None if v is None else v[rows] for v in (self.labels, self.batches, self.time, self.event)))


def features_of(train, test, layer) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """By modality the features of training and test samples as PCA reads them, and the rows that they belong to."""
    if not hasattr(train, "mod"):
        x, new, names = _slots.read_matrix(train, layer), _slots.read_matrix(test, layer), train.var_names.astype(str)
        prepare = Features(x, models.kind_of(x, names), names, _slots.read_mask(train, "auto"))
        return {"": (prepare(x), prepare(new), np.arange(len(train)), np.arange(len(test)))}
    given, new = (_slots.read_modalities(d, layer=layer) for d in (train, test))
    kinds, found = models.kinds_of(given, "auto"), {}
    for m, d in given.items():
        if len(d.rows) and len(new[m].rows):
            prepare = Features(d.x, kinds[m], d.names, d.mask)
            found[m] = prepare(d.x), prepare(new[m].x), d.rows, new[m].rows
    return found


def scores(own, code, features, train: Known, test: Known, random_state: int) -> dict[str, float]:
    """All scores of the codes of one fold."""
    broken = ~np.isfinite(code).all(1)
    if broken.any():  # samples of which nothing is shown have no code: the mean one
        code = np.where(broken[:, None], own.mean(0), code)
    row: dict[str, Any] = {
        "variance_explained": float(
            np.mean(
                [metrics.variance_explained(own[a], x, test_code=code[b], test_x=y) for x, y, a, b in features.values()]
            )
        ),
        "trustworthiness": _trustworthiness(code, features, random_state),
    }
    if train.labels is not None:
        row |= _label_scores(own, code, train.labels, test.labels, random_state)
    if test.batches is not None and len(set(test.batches)) > 1:
        row["batch"] = metrics.batch_score(code, test.batches)
    if train.time is not None:
        row["c_index"] = _concordance(own, code, train, test, random_state)
    return row


def _trustworthiness(code, features, random_state: int) -> float:
    """Of the samples that have all modalities, each modality weighing the same."""
    rows = np.arange(len(code))
    for *_, there in features.values():
        rows = np.intersect1d(rows, there)
    if len(rows) < FEWEST_JUDGED:
        return np.nan
    blocks = [y[np.isin(there, rows)] for _, y, _, there in features.values()]
    lengths = [max(float(np.sqrt((b**2).sum(1).mean())), 1e-12) for b in blocks]
    x = np.hstack([b / length for b, length in zip(blocks, lengths, strict=True)])
    return metrics.trustworthiness(code[rows], x, random_state=random_state)


def _label_scores(own, code, labels, test_labels, random_state: int) -> dict[str, float]:
    from sklearn.metrics import silhouette_score

    held_out = {"test_code": code, "test_labels": test_labels}
    row = {
        "knn": metrics.knn_accuracy(own, labels, **held_out),
        "probe": metrics.linear_probe(own, labels, **held_out),
        **metrics.cluster_agreement(code, test_labels, random_state=random_state),
    }
    there = np.array([label is not None for label in test_labels])
    if 1 < len(set(test_labels[there])) < there.sum():
        row["silhouette"] = float(silhouette_score(code[there], test_labels[there].astype(str)) + 1) / 2
    return row


def _concordance(own, code, train: Known, test: Known, random_state: int) -> float:
    """C-index of a Cox model on the code, its penalty chosen within the training samples."""
    from lifelines.utils import concordance_index

    use, new = (np.isfinite(t.time) & np.isfinite(t.event) for t in (train, test))
    x, t, e = own[use].astype(float), train.time[use], train.event[use]
    if not comparable(test.time[new], test.event[new]):
        return np.nan
    is_code = np.ones(x.shape[1], bool)
    penalty = choose_penalty(x, t, e, is_code, random_state)
    risk = predict(x, t, e, code[new].astype(float), penalties(is_code, penalty))
    return float(concordance_index(test.time[new], -risk, test.event[new]))
