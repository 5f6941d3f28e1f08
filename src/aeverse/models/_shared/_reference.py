"""What a fitted model remembers of its training samples: where they lie in the code, and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.models._shared._conformal import prediction_sets
from aeverse.nn import nearest

MOST_KEPT = 5000  # samples
MOST_CALIBRATION = 500  # samples that training does not see
FEWEST_CALIBRATION, SHARE_FEW = 50, 0.2  # of few samples, rather so many, but no larger a share
MOST_CATEGORIES = 500  # of a column of labels; more are names of samples
N_NEIGHBORS = 15
CALIBRATED_AT = (0.7, 0.8, 0.9)  # quantiles: near the tail that counts, and not too noisy


@dataclass(frozen=True)
class Reference:
    """Codes of training samples, (samples, dimensions), and their labels by column of ``obs``.

    ``calibration``: how far samples like these lie from them, for the p-value of a new one. ``unseen``, ``unseen_labels``:
    codes and labels of samples that were kept out of training, for prediction sets.
    """

    code: np.ndarray
    calibration: np.ndarray
    labels: dict[str, pd.Categorical]
    unseen: np.ndarray
    unseen_labels: dict[str, pd.Categorical]

    @classmethod
    def of(cls, code: np.ndarray, labels: Mapping[str, pd.Categorical], n_unseen: int = 0) -> Reference:
        """Training samples, each measured against the others; the last `n_unseen` are those kept out of training.

        The codes of the others lie further apart than those of new samples, for the net has seen their noise, so that too
        few new samples would seem strange. Their distances are rescaled so that the larger quantiles agree with those of
        the samples kept out. (These alone would do for an exactly conformal p-value, but are too few to tell 0.05 from
        0.02.)
        """
        n = len(code) - n_unseen
        training, unseen = code[:n], code[n:]
        distances = nonconformity(training)
        if n_unseen and (distances > 0).all():
            beyond = np.quantile(nonconformity(training, unseen), CALIBRATED_AT)
            distances = distances * np.exp(
                np.mean(np.log(np.maximum(beyond, 1e-12)) - np.log(np.quantile(distances, CALIBRATED_AT)))
            )
        parts = [{name: values[rows] for name, values in labels.items()} for rows in (slice(n), slice(n, None))]
        return cls(training, distances.astype(np.float32), parts[0], unseen, parts[1])

    @classmethod
    def for_labels(cls, code: np.ndarray, labels: Mapping[str, pd.Categorical]) -> Reference:
        """Samples that only lend their labels."""
        return cls(code, np.empty(0), dict(labels), code[:0], {name: values[:0] for name, values in labels.items()})

    def p_values(self, code: np.ndarray) -> np.ndarray:
        """P-values of new codes: the share of the training samples that lie at least as far from the others."""
        beyond = np.sort(self.calibration)
        at_least = len(beyond) - np.searchsorted(beyond, nonconformity(self.code, code), side="left")
        return (1 + at_least) / (1 + len(beyond))

    def transfer(self, column: str, code: np.ndarray) -> tuple[pd.Categorical, np.ndarray]:
        """Label of new codes by their nearest samples whose label is known, and the share of their votes."""
        labels = self.labels[column]
        labeled = np.flatnonzero(labels.codes >= 0)
        distances, indices = nearest(code, min(N_NEIGHBORS, len(labeled)), among=self.code[labeled])
        weights = 1 / np.maximum(distances, 1e-6 * max(float(distances.mean()), 1e-12))
        votes = np.zeros((len(code), len(labels.categories)))
        np.add.at(votes, (np.arange(len(code))[:, None], labels.codes[labeled][indices]), weights)
        votes /= np.maximum(votes.sum(1, keepdims=True), 1e-12)
        return pd.Categorical.from_codes(votes.argmax(1), labels.categories), votes.max(1)

    def possible(self, column: str, code: np.ndarray, alpha: float) -> np.ndarray:
        """Which labels belong to the prediction set of each new code, (samples, labels)."""
        labels, unseen = np.asarray(self.labels[column].codes), np.asarray(self.unseen_labels[column].codes)
        return prediction_sets(
            self.code[labels >= 0],
            labels[labels >= 0],
            code,
            n_labels=len(self.labels[column].categories),
            unseen=self.unseen[unseen >= 0],
            unseen_labels=unseen[unseen >= 0],
            alpha=alpha,
        )

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {
            "code": self.code,
            "calibration": self.calibration,
            "labels": labels_tree(self.labels),
            "unseen": self.unseen,
            "unseen_labels": labels_tree(self.unseen_labels),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Reference:
        """Rebuild from a `tree`."""
        training_labels, unseen = labels_from_tree(tree["labels"]), labels_from_tree(tree["unseen_labels"])
        return cls(tree["code"], tree["calibration"], training_labels, tree["unseen"], unseen)


@dataclass(frozen=True)
class QueryGroup:
    """New samples of which the same was measured, so that the same training samples are to be compared with.

    ``rows``: their positions; ``reference``: None where nothing was measured, so that the code says nothing;
    ``modalities``: what was measured, for several modalities.
    """

    rows: np.ndarray
    code: np.ndarray
    reference: Reference | None
    modalities: list[str] | None = None


def nonconformity(code: np.ndarray, new: np.ndarray | None = None) -> np.ndarray:
    """Mean distance to the nearest samples: of new ones, or of the samples themselves, each without itself."""
    if new is None and len(code) < 2:
        return np.zeros(len(code))
    distances, _ = nearest(code, N_NEIGHBORS) if new is None else nearest(new, N_NEIGHBORS, among=code)
    return distances.mean(1)


def calibration_rows(n: int, share: float, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the samples to learn from, and of those that are kept out to calibrate p-values."""
    size = max(share * n, min(FEWEST_CALIBRATION, SHARE_FEW * n)) if share else 0
    order = np.random.default_rng(random_state).permutation(n)
    size = int(min(size, MOST_CALIBRATION))
    return np.sort(order[size:]), np.sort(order[:size])


def reference_rows(n: int, random_state: int) -> np.ndarray:
    """Positions of the training samples that are remembered."""
    return np.sort(np.random.default_rng(random_state).permutation(n)[:MOST_KEPT])


def label_columns(obs: pd.DataFrame, rows: np.ndarray) -> dict[str, pd.Categorical]:
    """The columns of ``obs`` that label samples: categories, words, yes and no; those unknown are missing."""
    columns: dict[str, pd.Categorical] = {}
    for name in obs.columns:
        values = obs[name]
        is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if not is_number and 0 < values.nunique() <= min(MOST_CATEGORIES, max(2, len(values) // 2)):
            labels = read_labels(values, name) if _slots.unknown_as_nan(values).notna().any() else None
            columns |= {} if labels is None else {str(name): labels[rows]}
    return columns


def read_labels(values: pd.Series, name: str) -> pd.Categorical:
    """A column as labels; those that say that nothing is known are missing."""
    if pd.api.types.is_float_dtype(values):
        raise ValueError(f"{name!r} holds numbers ({values.dtype}), not labels.")
    words = _slots.unknown_as_nan(values).astype(object).map(str, na_action="ignore")
    order = (
        [str(c) for c in values.cat.categories]
        if isinstance(values.dtype, pd.CategoricalDtype)
        else sorted(words.dropna().unique())
    )
    present = set(words.dropna())
    labels = pd.Categorical(words, categories=[c for c in order if c in present])
    if not 0 < len(labels.categories) <= MOST_CATEGORIES:
        raise ValueError(f"{name!r} has {len(labels.categories)} different values; labels have 1 to {MOST_CATEGORIES}.")
    return labels


def labels_tree(labels: Mapping[str, pd.Categorical]) -> list[dict[str, Any]]:
    """Name, categories and codes (-1 where a label is missing) of each column."""
    return [
        {"name": name, "categories": [str(c) for c in values.categories], "codes": np.asarray(values.codes, np.int16)}
        for name, values in labels.items()
    ]


def labels_from_tree(tree: list[dict[str, Any]]) -> dict[str, pd.Categorical]:
    """Rebuild labels from `labels_tree`."""
    return {
        column["name"]: pd.Categorical.from_codes(column["codes"].astype(int), column["categories"]) for column in tree
    }
