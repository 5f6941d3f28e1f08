"""How well an embedding mixes batches."""

from __future__ import annotations

import numpy as np

from aeverse._arguments import checked
from aeverse.metrics._codes import as_code, as_labels, inverse_simpson, is_known, neighbors

FEWEST = 10  # cells of a label that is judged
N_NEIGHBORS, KBET_NEIGHBORS, LISI_NEIGHBORS = 15, 50, 90
ALPHA = 0.05  # of kBET


@checked
def batch_score(
    code: np.ndarray, batches: np.ndarray, *, labels: np.ndarray | None = None, parts: bool = False
) -> float | dict[str, float]:
    """How well batches are mixed in an embedding, as scIB measures it [Luecken2022]_; 1 is mixed, 0 is apart.

    The mean of

    ``ilisi``
        Scaled median of the effective number of batches among 90 neighbors [Korsunsky2019]_.
    ``kbet``
        Share of cells whose 50 neighbors hold the batches in the proportions of all cells (chi-square test at 0.05)
        [Buettner2019]_; with `labels`, within each label, and the mean over the labels.
    ``silhouette``
        Only with `labels`: one less the absolute silhouette of the batches within a label, mean over the labels.
    ``connectivity``
        Only with `labels`: largest strongly connected part of the graph of 15 neighbors within a label, mean over the
        labels.

    `ilisi`, `silhouette`, `connectivity` and the test of `kbet` are those of the package scib-metrics. Perfect mixing
    is not always right: batches that hold different types of cells should not mix, which only `labels` can tell.

    Parameters
    ----------
    code, batches
        Of the same cells, (cells, dimensions) and (cells,).
    labels
        Types of the cells; those unknown are left out of what needs them.
    parts
        Return the parts.

    Returns
    -------
    The mean, or a dict of the parts.

    Raises
    ------
    ValueError
        Lengths do not fit, or there are fewer than two batches (in every label).

    Examples
    --------
    >>> import numpy as np, aeverse as ae
    >>> rng = np.random.default_rng(0)
    >>> code, batches = rng.normal(size=(200, 3)), np.repeat(["a", "b"], 100)
    >>> mixed = ae.metrics.batch_score(code, batches)
    >>> apart = ae.metrics.batch_score(code + 9 * (batches == "a")[:, None], batches)
    >>> mixed > 0.8 > 0.1 > apart
    True
    """
    code = as_code(code)
    batches = as_labels(batches, len(code), "batches")
    if not is_known(batches).all():
        raise ValueError(f"{int((~is_known(batches)).sum())} cells have no batch.")
    names, codes = np.unique(batches.astype(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"there is one batch only, {str(names[0])!r}: nothing to mix.")
    lisi = float(np.nanmedian(inverse_simpson(*neighbors(code, LISI_NEIGHBORS), codes)))
    scores = {"ilisi": (lisi - 1) / (len(names) - 1)}
    if labels is None:
        scores["kbet"] = _kbet(code, codes)
    else:
        scores |= _within_labels(code, codes, as_labels(labels, len(code)))
    return scores if parts else float(np.mean(list(scores.values())))


def _within_labels(code: np.ndarray, batches: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components
    from sklearn.metrics import silhouette_samples

    labeled = is_known(labels)
    code, batches, labels = code[labeled], batches[labeled], labels[labeled].astype(str)
    _, indices = neighbors(code, N_NEIGHBORS)
    rows = np.repeat(np.arange(len(code)), indices.shape[1])
    graph = csr_matrix((np.ones(indices.size), (rows, indices.ravel())), shape=(len(code), len(code)))
    kbet, silhouette, connectivity = [], [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < FEWEST:
            continue
        part = connected_components(graph[members][:, members], connection="strong")[1]
        connectivity.append(np.bincount(part).max() / len(members))
        n_batches = len(np.unique(batches[members]))
        if 1 < n_batches < len(members):
            silhouette.append(1 - np.abs(silhouette_samples(code[members], batches[members])).mean())
            kbet.append(_kbet(code[members], np.unique(batches[members], return_inverse=True)[1]))
    if not silhouette:
        raise ValueError(f"no label with {FEWEST} cells or more is in two batches: nothing to mix.")
    means = (float(np.mean(values)) for values in (kbet, silhouette, connectivity))
    return dict(zip(("kbet", "silhouette", "connectivity"), means, strict=True))


def _kbet(code: np.ndarray, batches: np.ndarray) -> float:
    """Share of cells around whom a chi-square test does not see a batch effect."""
    from scipy.stats import chi2

    _, indices = neighbors(code, KBET_NEIGHBORS)
    k, n_batches = indices.shape[1], int(batches.max()) + 1
    expected = np.bincount(batches) / len(batches) * k
    observed = np.stack([(batches[indices] == b).sum(1) for b in range(n_batches)], 1)
    p = chi2.sf(((observed - expected) ** 2 / expected).sum(1), n_batches - 1)
    return float((p >= ALPHA).mean())
