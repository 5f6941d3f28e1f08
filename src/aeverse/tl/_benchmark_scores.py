"""The scores of `tl.benchmark`: what is known of the samples, and how well embeddings of held-out samples show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aeverse import _slots, metrics, models
from aeverse.methods import Features
from aeverse.tl._cox import choose_penalty, comparable, predict

FEWEST_JUDGED = 10  # samples for a score of neighborhoods


@dataclass
class Known:
    """What is known of the samples; None for what was not asked for."""

    labels: np.ndarray | None = None
    batches: np.ndarray | None = None
    outcome: np.ndarray | None = None  # (samples, 2): time and event

    def of(self, rows: np.ndarray) -> Known:
        return Known(*(None if v is None else v[rows] for v in (self.labels, self.batches, self.outcome)))


def features_of(train, test, layer) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """By modality the features of training and test samples as PCA reads them, and the rows that they belong to."""
    if hasattr(train, "mod"):
        training, new = (_slots.read_modalities(d, layer=layer) for d in (train, test))
        kinds = models.kinds_of(training, "auto")
    else:
        training, new = ({"X": _slots.as_modality(d, layer, "auto")} for d in (train, test))
        kinds = {"X": models.kind_of(training["X"].x, training["X"].names)}
    matrices = {}
    for m, d in training.items():
        if len(d.rows) and len(new[m].rows):
            features = Features(d, kinds[m])
            matrices[m] = features(d), features(new[m]), d.rows, new[m].rows
    return matrices


@dataclass(frozen=True)
class Judge:
    """Scores the embeddings of one fold."""

    features: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]  # see `features_of`
    train: Known
    test: Known
    random_state: int

    def scores(self, code: np.ndarray, test_code: np.ndarray) -> dict[str, float]:
        """All scores, by the embeddings of the training and of the held-out samples."""
        broken = ~np.isfinite(test_code).all(1)
        if broken.any():  # samples of which nothing is shown have no embedding: the mean one
            test_code = np.where(broken[:, None], code.mean(0), test_code)
        explained = [
            metrics.variance_explained(code[a], x, test_code=test_code[b], test_x=y)
            for x, y, a, b in self.features.values()
        ]
        row: dict[str, Any] = {
            "variance_explained": float(np.mean(explained)),
            "trustworthiness": _trustworthiness(test_code, self.features, self.random_state),
        }
        if self.train.labels is not None and self.test.labels is not None:
            row |= _label_scores(code, test_code, self.train.labels, self.test.labels, self.random_state)
        if self.test.batches is not None and len(set(self.test.batches)) > 1:
            row["batch"] = metrics.batch_score(test_code, self.test.batches)
        if self.train.outcome is not None and self.test.outcome is not None:
            row["c_index"] = _concordance(code, test_code, self.train.outcome, self.test.outcome, self.random_state)
        return row


def _trustworthiness(code, features, random_state: int) -> float:
    """Of the samples that have all modalities, each modality weighing the same."""
    rows = np.arange(len(code))
    for *_, present in features.values():
        rows = np.intersect1d(rows, present)
    if len(rows) < FEWEST_JUDGED:
        return np.nan
    blocks = [y[np.isin(present, rows)] for _, y, _, present in features.values()]
    lengths = [max(float(np.sqrt((b**2).sum(1).mean())), 1e-12) for b in blocks]
    x = np.hstack([b / length for b, length in zip(blocks, lengths, strict=True)])
    return metrics.trustworthiness(code[rows], x, random_state=random_state)


def _label_scores(training_code, code, labels, test_labels, random_state: int) -> dict[str, float]:
    from sklearn.metrics import silhouette_score

    held_out = {"test_code": code, "test_labels": test_labels}
    row = {
        "knn": metrics.knn_accuracy(training_code, labels, **held_out),
        "probe": metrics.linear_probe(training_code, labels, **held_out),
        **metrics.cluster_agreement(code, test_labels, random_state=random_state),
    }
    labeled = np.array([label is not None for label in test_labels])
    if 1 < len(set(test_labels[labeled])) < labeled.sum():
        row["silhouette"] = float(silhouette_score(code[labeled], test_labels[labeled].astype(str)) + 1) / 2
    return row


def _concordance(code, test_code, train: np.ndarray, test: np.ndarray, random_state: int) -> float:
    """C-index of a Cox model on the embedding, its penalty chosen within the training samples."""
    from lifelines.utils import concordance_index

    use, new = (np.isfinite(outcome).all(1) for outcome in (train, test))
    x, (t, e), (test_t, test_e) = code[use].astype(float), train[use].T, test[new].T
    if not comparable(test_t, test_e):
        return np.nan
    is_code = np.ones(x.shape[1], bool)
    penalty = choose_penalty(x, t, e, is_code, random_state)
    risk = predict(x, t, e, test_code[new].astype(float), is_code, penalty)
    return float(concordance_index(test_t, -risk, test_e))
