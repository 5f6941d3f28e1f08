"""What a user of scanpy's defaults gets from an embedding, for all benchmarks."""

from __future__ import annotations

import functools

import numpy as np

import aeverse as ae

UNKNOWN = ("unknown", "nan", "NA")
N_NEIGHBORS = 15  # that vote on the purity


def default_scores(embedding: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Agreement of the default clusters with the labels, their number, and purity; cells of unknown type are not judged."""
    warm_up()
    clusters = ae.metrics.default_clusters(embedding, labels)
    return {**{key: clusters[key] for key in ("ari", "nmi", "n_clusters")}, "purity": purity(embedding, labels)}


@functools.cache
def warm_up() -> None:
    """The first neighbors of a process differ from those of all further calls: what is compiled sums in another order."""
    ae.metrics.default_clusters(np.random.default_rng(0).normal(size=(300, 20)))


def purity(embedding: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy of the labels of a cell's nearest cells, in five folds."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    known = ~np.isin(labels, UNKNOWN)
    predicted = cross_val_predict(KNeighborsClassifier(N_NEIGHBORS), embedding[known], labels[known], cv=5)
    return float(balanced_accuracy_score(labels[known], predicted))


def graph_scores(graph, labels: np.ndarray) -> dict[str, float]:
    """The same on a neighbor graph, an AnnData that holds one; purity by the vote of a cell's strongest edges."""
    import scanpy as sc
    from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score, normalized_mutual_info_score

    sc.tl.leiden(graph, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    clusters, known = graph.obs["leiden"].astype(str).to_numpy(), ~np.isin(labels, UNKNOWN)
    types, codes = np.unique(labels, return_inverse=True)
    edges, votes = graph.obsp["connectivities"].tocsr(), []
    for row in np.flatnonzero(known):
        near = edges.indices[edges.indptr[row] : edges.indptr[row + 1]]
        weight = np.where(known[near], edges.data[edges.indptr[row] : edges.indptr[row + 1]], -1)
        near = near[np.argsort(-weight)[: min(N_NEIGHBORS, (weight >= 0).sum())]]
        votes.append(types[np.bincount(codes[near], minlength=len(types)).argmax()] if len(near) else "none")
    return {
        "ari": float(adjusted_rand_score(labels[known], clusters[known])),
        "nmi": float(normalized_mutual_info_score(labels[known], clusters[known])),
        "n_clusters": len(set(clusters)),
        "purity": float(balanced_accuracy_score(labels[known], votes)),
    }
