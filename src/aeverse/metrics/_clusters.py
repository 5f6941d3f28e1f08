"""What scanpy's default call makes of an embedding, and how well the clusters of a partition predict held-out molecules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _runtime
from aeverse._arguments import checked
from aeverse.metrics._codes import as_code, as_counts, as_labels, is_known

PRIOR_MOLECULES = 2000.0  # of the mean profile, added to the profile of each cluster
SMALLEST_MEAN = 1e-6


@checked
def default_clusters(
    code: np.ndarray, labels: np.ndarray | None = None, *, resolution: float = 1.0, random_state: int = 0
) -> dict[str, Any]:
    """Clusters that scanpy's default call finds in an embedding.

    The call is ``sc.pp.neighbors(adata, use_rep=...)``, then ``sc.tl.leiden(adata, flavor="igraph", n_iterations=2,
    directed=False)`` [Traag2019]_. No resolution is searched for: this is what a user sees who knows no labels.
    :doc:`/clusters` explains what the resolution does.

    Parameters
    ----------
    code
        Embedding, (cells, dimensions).
    labels
        Known types, (cells,); None: only the clusters. Cells whose label is unknown (NaN, ``"NA"``, ``"unknown"``, …) are
        clustered and not judged.
    resolution
        Of Leiden; 1 is scanpy's default.
    random_state
        Seed of the neighbor graph and of Leiden.

    Returns
    -------
    A dict with ``clusters``, an integer for each cell, and ``n_clusters``; with labels also ``ari``, the adjusted Rand
    index, and ``nmi``, the normalized mutual information.

    Raises
    ------
    ValueError
        Lengths do not fit, no label is known, or there are fewer than 3 cells.

    Examples
    --------
    >>> import aeverse as ae, numpy as np
    >>> code = np.random.default_rng(0).normal(size=(90, 5)) + 20 * np.repeat([0, 1, 2], 30)[:, None]
    >>> ae.metrics.default_clusters(code)["n_clusters"]
    3
    """
    import scanpy as sc
    from anndata import AnnData

    code = np.ascontiguousarray(as_code(code), np.float32)
    if len(code) < 3:
        raise ValueError(f"{len(code)} cells are too few for a neighbor graph; 3 are needed.")
    adata = AnnData(sp.csr_matrix((len(code), 1), dtype=np.float32), obsm={"code": code})
    with _runtime.threads_kept():  # scanpy changes the number of torch's threads
        sc.pp.neighbors(adata, use_rep="code", random_state=random_state)
    sc.tl.leiden(
        adata, resolution=resolution, random_state=random_state, flavor="igraph", n_iterations=2, directed=False
    )
    clusters = adata.obs["leiden"].cat.codes.to_numpy().astype(int)
    result: dict[str, Any] = {"clusters": clusters, "n_clusters": len(np.unique(clusters))}
    return result if labels is None else result | _agreement(clusters, labels)


def _agreement(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Of the clusters with the labels that are known."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    labels = as_labels(labels, len(clusters))
    judged = is_known(labels)
    if not judged.any():
        raise ValueError("no label is known.")
    truth = labels[judged].astype(str)
    return {
        "ari": float(adjusted_rand_score(truth, clusters[judged])),
        "nmi": float(normalized_mutual_info_score(truth, clusters[judged])),
    }


@checked
def cluster_deviance(clusters: np.ndarray, train: np.ndarray | sp.spmatrix, test: np.ndarray | sp.spmatrix) -> float:
    """Share of the Poisson deviance of held-out molecules that clusters explain: a judge of clusters without labels.

    Split the molecules of every cell in two halves, cluster the cells with the first half alone, and give each cluster the
    mean expression profile of its cells in that half. How much better than the mean profile of all cells do these profiles
    predict the second half [Batson2019]_? A real population that is split off explains more. Clusters that are not there
    explain less: their profiles are those of fewer cells, and follow noise that the second half does not share. So a
    partition that is too coarse and one that is too fine both lose.

    2,000 molecules of the mean profile are added to the profile of each cluster, so that small clusters can be judged.
    Genes without a molecule in `train` are left out. Compare partitions on the same split only.

    Parameters
    ----------
    clusters
        Cluster of each cell, (cells,), found with `train` alone; of any type, as from ``adata.obs["leiden"]``.
    train, test
        The two halves of the counts, as from `aeverse.pp.thin_counts`; (cells, genes).

    Returns
    -------
    ``1 - deviance(test, library size x cluster profile) / deviance(test, library size x mean profile)``: 0 for one cluster,
    below 0 for clusters that predict worse. 1 cannot be reached, since counts are noise also within a population.

    Raises
    ------
    ValueError
        The shapes differ, or a cell has no cluster.

    Examples
    --------
    >>> import aeverse as ae, numpy as np
    >>> adata = ae.datasets.simulate_counts(300, 100, n_types=3)
    >>> ae.pp.thin_counts(adata, 0.5)
    >>> halves = adata.layers["thinned"], adata.layers["thinned_rest"]
    >>> types = ae.metrics.cluster_deviance(adata.obs["cell_type"], *halves)
    >>> shuffled = ae.metrics.cluster_deviance(np.random.permutation(adata.obs["cell_type"]), *halves)
    >>> bool(types > 0.1 > shuffled)
    True
    """
    train, test = as_counts(train, "train"), as_counts(test, "test")
    clusters = np.asarray(clusters)
    if clusters.ndim != 1:
        raise ValueError(f"clusters must be one for each cell, found an array of shape {clusters.shape}.")
    clusters, names = pd.factorize(clusters)
    if train.shape != test.shape or len(clusters) != train.shape[0]:
        raise ValueError(f"shapes differ: {len(clusters)} clusters, train {train.shape}, test {test.shape}.")
    if (clusters < 0).any():
        raise ValueError(f"{(clusters < 0).sum()} cells have no cluster.")
    total = np.asarray(train.sum(0)).ravel()
    if not total.sum() or not test.sum():
        return 0.0
    mean = total / total.sum()
    library = np.asarray(train.sum(1)).ravel() * (test.sum() / train.sum())
    test = test[:, total > 0]
    train, mean = train[:, total > 0], mean[total > 0]
    deviance = null = 0.0
    for cluster in range(len(names)):
        cells = np.flatnonzero(clusters == cluster)
        profile = np.asarray(train[cells].sum(0)).ravel() + PRIOR_MOLECULES * mean
        deviance += _deviance(test[cells], library[cells], profile / profile.sum())
        null += _deviance(test[cells], library[cells], mean)
    return 1 - deviance / null


def _deviance(counts: sp.csr_matrix, library: np.ndarray, profile: np.ndarray) -> float:
    """Poisson deviance from ``library x profile``, whose sum is that of the library; only stored entries have logarithms."""
    counts = counts.tocoo()
    counts.eliminate_zeros()
    expected = np.maximum(library[counts.row] * profile[counts.col], SMALLEST_MEAN)
    return float(2 * (library.sum() - counts.data.sum() + (counts.data * np.log(counts.data / expected)).sum()))
