"""How well labels can be read from an embedding: by neighbors, by a linear model, by clusters."""

from __future__ import annotations

import numpy as np

from aeverse._arguments import checked
from aeverse.metrics._codes import as_code, as_labels, is_known

PROBE_PENALTY = 0.1  # C of the logistic regression
RESTARTS = 20  # of k-means


@checked
def knn_accuracy(
    code: np.ndarray, labels: np.ndarray, *, test_code: np.ndarray, test_labels: np.ndarray, n_neighbors: int = 10
) -> float:
    """Balanced accuracy of the labels of held-out samples, from their nearest training samples.

    Neighbors vote by the inverse of their distance. Samples whose label is unknown (NaN, ``"NA"``, ``"unknown"``, …)
    are left out.

    Parameters
    ----------
    code, labels
        Of the training samples, (samples, dimensions) and (samples,).
    test_code, test_labels
        Of the held-out samples.
    n_neighbors
        Neighbors that vote.

    Returns
    -------
    Mean over the labels of the share that is recognized, between 0 and 1.

    Raises
    ------
    ValueError
        Lengths do not fit, or no label is known.

    Examples
    --------
    >>> import numpy as np, aeverse as ae
    >>> code = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> labels = np.array(["a", "a", "b", "b"])
    >>> ae.metrics.knn_accuracy(code, labels, test_code=code + 0.04, test_labels=labels, n_neighbors=1)
    1.0
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier

    code, labels, test_code, test_labels = _pairs(code, labels, test_code, test_labels)
    model = KNeighborsClassifier(min(n_neighbors, len(code)), weights="distance").fit(code, labels)
    return float(balanced_accuracy_score(test_labels, model.predict(test_code)))


@checked
def linear_probe(code: np.ndarray, labels: np.ndarray, *, test_code: np.ndarray, test_labels: np.ndarray) -> float:
    """Balanced accuracy of the labels of held-out samples, from a logistic regression on the standardized embedding.

    Parameters
    ----------
    code, labels, test_code, test_labels
        As in `aeverse.metrics.knn_accuracy`.

    Returns
    -------
    Mean over the labels of the share that is recognized, between 0 and 1.

    Raises
    ------
    ValueError
        Lengths do not fit, or fewer than two labels are known.

    Examples
    --------
    >>> import numpy as np, aeverse as ae
    >>> code = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> labels = np.array(["a", "a", "b", "b"])
    >>> ae.metrics.linear_probe(code, labels, test_code=code + 0.04, test_labels=labels)
    1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    code, labels, test_code, test_labels = _pairs(code, labels, test_code, test_labels)
    if len(set(labels)) < 2:
        raise ValueError(f"all training samples have the label {labels[0]!r}; two are needed.")
    mean, sd = code.mean(0), code.std(0) + 1e-9
    model = LogisticRegression(C=PROBE_PENALTY, max_iter=300, class_weight="balanced")
    model.fit((code - mean) / sd, labels)
    return float(balanced_accuracy_score(test_labels, model.predict((test_code - mean) / sd)))


@checked
def cluster_agreement(
    code: np.ndarray, labels: np.ndarray, *, n_clusters: int | None = None, random_state: int = 0
) -> dict[str, float]:
    """Agreement of k-means clusters of an embedding with labels.

    Parameters
    ----------
    code, labels
        Of the same samples. Those whose label is unknown are clustered and not judged.
    n_clusters
        Number of clusters; None: as many as there are labels.
    random_state
        Seed.

    Returns
    -------
    ``ari``, the adjusted Rand index, and ``nmi``, the normalized mutual information: both 1 for the same partition, and
    about 0 for unrelated ones (`nmi` above it where there are many clusters).

    Raises
    ------
    ValueError
        Lengths do not fit, or no label is known.

    Examples
    --------
    >>> import numpy as np, aeverse as ae
    >>> code = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> ae.metrics.cluster_agreement(code, ["a", "a", "b", "b"])
    {'ari': 1.0, 'nmi': 1.0}
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    code = as_code(code)
    labels = as_labels(labels, len(code))
    labeled = is_known(labels)
    if not labeled.any():
        raise ValueError("no label is known.")
    n_clusters = min(n_clusters or len(set(labels[labeled])), len(np.unique(code, axis=0)))
    clusters = KMeans(n_clusters, n_init=RESTARTS, random_state=random_state).fit(code).labels_[labeled]
    truth = labels[labeled].astype(str)
    return {
        "ari": float(adjusted_rand_score(truth, clusters)),
        "nmi": float(normalized_mutual_info_score(truth, clusters)),
    }


def _pairs(code, labels, test_code, test_labels) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Both halves, without the samples whose label is unknown."""
    parts = []
    for name, values, code_labels in (("code", code, labels), ("test_code", test_code, test_labels)):
        values = as_code(values, name)
        code_labels = as_labels(code_labels, len(values), name.replace("code", "labels"))
        labeled = is_known(code_labels)
        if not labeled.any():
            raise ValueError(f"no label of {name} is known.")
        parts += [values[labeled], code_labels[labeled].astype(str)]
    if parts[0].shape[1] != parts[2].shape[1]:
        raise ValueError(f"code has {parts[0].shape[1]} dimensions, test_code has {parts[2].shape[1]}.")
    return tuple(parts)  # type: ignore[return-value]
