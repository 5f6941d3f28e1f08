"""How well an embedding keeps known types of cells apart."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _runtime
from aeverse._arguments import checked
from aeverse.metrics._codes import as_code, as_labels, inverse_simpson, is_known, neighbors

RESOLUTIONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
FEWEST = 10  # cells of a type that is judged by distances
N_NEIGHBORS, LISI_NEIGHBORS = 15, 90


@checked
def biology_score(
    code: np.ndarray, labels: np.ndarray, *, parts: bool = False, random_state: int = 0
) -> float | dict[str, float]:
    """Agreement of an embedding with published labels, as scIB measures the conservation of biology [Luecken2022]_.

    The mean of five parts, each 1 at best:

    ``nmi``, ``ari``
        Normalized mutual information and adjusted Rand index of Leiden clusters, at the resolution (of 15 from 0.005 to
        2) with the largest NMI.
    ``silhouette``
        Mean silhouette of the labels, rescaled to 0 to 1.
    ``clisi``
        One less the scaled median of the effective number of labels among 90 neighbors [Korsunsky2019]_.
    ``isolated``
        Mean silhouette of the rarer half of the labels, rescaled to 0 to 1.

    `silhouette` and `clisi` are those of the package scib-metrics. Labels of fewer than 10 cells are not judged by
    distances; cells whose label is unknown (NaN, ``"NA"``, ``"unknown"``, …) are clustered and not judged.

    Parameters
    ----------
    code, labels
        Of the same cells, (cells, dimensions) and (cells,).
    parts
        Return the five parts.
    random_state
        Seed of the clustering.

    Returns
    -------
    The mean, or a dict of the parts.

    Raises
    ------
    ValueError
        Lengths do not fit, or fewer than two labels have 10 cells.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(120, 60, n_types=3)
    >>> ae.tl.embed(adata, n_latent=4)
    >>> 0 < ae.metrics.biology_score(adata.obsm["X_ae"], adata.obs["cell_type"]) <= 1
    True
    """
    from sklearn.metrics import silhouette_samples

    code = np.ascontiguousarray(as_code(code), np.float32)
    labels = as_labels(labels, len(code))
    labeled = is_known(labels)
    sizes = pd.Series(labels[labeled]).value_counts()
    judged = labeled & np.isin(labels.astype(str), sizes[sizes >= FEWEST].index)
    large = sizes[sizes >= FEWEST]
    if len(large) < 2:
        raise ValueError(f"{len(large)} of the labels have {FEWEST} cells or more; two are needed.")
    nmi, ari = _best_clusters(code, labels, labeled, random_state)
    z, y = code[judged], labels[judged].astype(str)
    types = pd.factorize(y)[0]
    silhouette = silhouette_samples(z, types)
    rare = large.index[large <= max(large.min(), large.median())]
    lisi = float(np.nanmedian(inverse_simpson(*neighbors(z, LISI_NEIGHBORS), types)))
    scores = {
        "nmi": nmi,
        "ari": ari,
        "silhouette": float(silhouette.mean() + 1) / 2,
        "clisi": (len(large) - lisi) / (len(large) - 1),
        "isolated": float(np.mean([silhouette[y == t].mean() for t in rare]) + 1) / 2,
    }
    return scores if parts else float(np.mean(list(scores.values())))


def _best_clusters(code: np.ndarray, labels: np.ndarray, labeled: np.ndarray, random_state: int) -> tuple[float, float]:
    """NMI and ARI of Leiden clusters at the best resolution."""
    import igraph as ig
    import scanpy as sc
    from anndata import AnnData
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    adata = AnnData(code)
    with _runtime.threads_kept():  # scanpy changes the number of torch's threads
        sc.pp.neighbors(adata, use_rep="X", n_neighbors=min(N_NEIGHBORS, len(code) - 1), random_state=random_state)
    graph = adata.obsp["connectivities"]
    edges = sp.triu(graph.maximum(graph.T), 1).tocoo()
    network = ig.Graph(len(code), list(zip(edges.row.tolist(), edges.col.tolist(), strict=True)))
    best, truth = (0.0, 0.0), labels[labeled].astype(str)
    generator = random.Random()
    ig.set_random_number_generator(generator)
    try:
        for resolution in RESOLUTIONS:
            generator.seed(random_state)
            partition = network.community_leiden(
                "modularity", weights=edges.data.tolist(), resolution=resolution, n_iterations=2
            ).membership
            partition = np.asarray(partition)[labeled]
            nmi, ari = normalized_mutual_info_score(truth, partition), adjusted_rand_score(truth, partition)
            best = max(best, (float(nmi), float(ari)))
    finally:
        ig.set_random_number_generator(random)  # igraph's own default
    return best
