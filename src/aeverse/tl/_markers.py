"""`tl.markers`: marker genes of clusters, tested on molecules that the clusters have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from aeverse import _runtime, _slots
from aeverse._arguments import checked
from aeverse.tl._embed import embed
from aeverse.tl._marker_tests import combined, dispersions, group_scores, matched, split_counts
from aeverse.tl._multiple_testing import benjamini_hochberg

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData

RESOLUTIONS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the clusters of a split, for groups of any size
LEVEL = 0.05  # of the adjusted p-values, for the number of markers in the record


@checked
def markers(
    adata: AnnData,
    *,
    groupby: str | None = None,
    layer: str | None = None,
    method: Literal["pca", "ae"] = "pca",
    n_splits: int = 5,
    key_added: str = "markers",
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Find marker genes that hold although the clusters were found in the same data.

    A test for markers asks whether a gene differs between two groups. If the groups are clusters of the same counts, they
    differ because clustering made them differ, and the p-values are too small. Here the molecules of each cell are split in
    two halves. The first half is embedded and clustered, the second half is tested, and this is repeated over several splits.

    Halves of a count are independent if the count is negative binomial and the split knows its dispersion (count
    splitting [Neufeld2023]_, [NeufeldDharamshi2024]_). The dispersion of a gene is estimated within the clusters of all molecules.
    A cluster of a split takes the name of the group that holds clearly more than half of its cells. A group that has no
    such cluster in a split has p-values of 1 there. The test compares the mean Pearson residual [Lause2021]_ of a cluster's cells with that
    of as many cells drawn at random. The p-value of a gene is twice the median over the splits [Meinshausen2009]_, which is valid
    however the splits depend on each other, corrected over the genes by Benjamini and Hochberg. So a group has markers only
    if more than half of the splits find it. :doc:`/markers` shows that this holds, and what it costs.

    Parameters
    ----------
    adata
        Cells x genes with raw counts of molecules (UMI).
    groupby
        Column of ``adata.obs`` with clusters or cell types that were found in these counts. None: the clusters of scanpy's
        default call on the embedding of all molecules.
    layer
        Layer with the counts; None is ``adata.X``. ``adata.raw`` is never used.
    method
        How `aeverse.tl.embed` embeds each half: ``"pca"`` takes seconds, ``"ae"`` trains an autoencoder for each split.
    n_splits
        How often the molecules are split, at least twice.
    key_added
        Key of the results in ``adata.uns``.
    random_state
        Seed of the splits and of the clusters.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    `None`, or the copy. Written are

    ``uns[key_added]``
        For each group all genes, the largest score first, as `scanpy.tl.rank_genes_groups` writes them: ``names``,
        ``scores`` (median z score over the splits; positive: more in the group), ``logfoldchanges`` (base 2, of the tested
        molecules per depth, against all other cells; NaN where no split found the group), ``pvals``, ``pvals_adj``. Read it
        with `scanpy.get.rank_genes_groups_df` and ``scanpy.pl.rank_genes_groups``, with ``key="markers"``.
    ``obs[key_added + "_clusters"]``
        Without `groupby`: the clusters.
    ``uns["ae"][key_added]``
        Parameters, versions, and a table ``groups``: cells, the share of splits that found the group, and the number of
        genes with an adjusted p-value below 0.05 and a positive score.

    Raises
    ------
    KeyError, TypeError, ValueError
        Something named does not exist, the matrix does not hold counts, or a result would overwrite what aeverse did not
        write. `adata` is then as it was.

    See Also
    --------
    aeverse.pp.thin_counts : split molecules yourself.
    aeverse.metrics.cluster_deviance : judge a clustering on held-out molecules.

    Notes
    -----
    Ctrl-C and worker processes: as in `aeverse.tl.denoise`.

    Examples
    --------
    >>> import aeverse as ae, scanpy as sc
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.markers(adata, groupby="bulk_labels", n_splits=3)
    >>> "CD79A" in sc.get.rank_genes_groups_df(adata, "CD19+ B", key="markers")["names"][:10].tolist()
    True
    """
    params = _slots.parameters(locals())
    adata = _slots.writable_adata(adata, copy)
    column = f"{key_added}_clusters"
    keys = [("uns", key_added)] + ([("obs", column)] if groupby is None else [])
    _slots.check_keys(adata, keys, key_added)
    groups = _groups(adata, groupby)
    counts = _slots.read_counts(adata, layer)
    if not counts.nnz:
        raise ValueError(f"{_slots.matrix_name(layer)} holds no molecules.")
    if groups is None:
        [clusters] = _clusterings(counts, method, [1.0], random_state)
        groups = pd.Categorical.from_codes(clusters, [str(i) for i in range(clusters.max() + 1)])
    tests = _tests_on_splits(counts, groups, method, n_splits, random_state)
    tables = {name: _table(tests, i, adata.var_names) for i, name in enumerate(groups.categories)}
    described = {"params": params, "versions": _slots.versions(), "groups": _summary(groups, tests["found"], tables)}
    ranked = _as_scanpy(tables, {"groupby": column if groupby is None else groupby, "layer": layer})
    obs = {column: groups} if groupby is None else {}
    _slots.write(adata, _slots.Results(name=key_added, record=described, uns={key_added: ranked}, obs=obs))
    return adata if copy else None


def _groups(adata, groupby: str | None) -> pd.Categorical | None:
    """Groups in the order that the column has them."""
    groups = _slots.read_categories(adata, groupby)
    if groups is None:
        return None
    order = adata.obs[groupby].astype("category").cat.remove_unused_categories().cat.categories
    return groups.set_categories(order.astype(str))


def _clusterings(
    counts: sp.csr_matrix, method: Literal["pca", "ae"], resolutions: Sequence[float], random_state: int
) -> list[np.ndarray]:
    """Clusters of scanpy's default call on an embedding of the counts, at each resolution; integers from 0, (cells,)."""
    import scanpy as sc
    from anndata import AnnData

    expressed = np.asarray(counts.sum(0)).ravel() > 0
    cells = AnnData(counts[:, expressed])
    n_models = 1 if method == "ae" else None  # one member is enough for clusters
    embed(cells, method=method, likelihood="nb", n_models=n_models, random_state=random_state)
    sc.pp.neighbors(cells, use_rep="X_ae", random_state=random_state)
    leiden = {"flavor": "igraph", "n_iterations": 2, "directed": False, "random_state": random_state}
    for i, resolution in enumerate(resolutions):
        sc.tl.leiden(cells, resolution=resolution, key_added=str(i), **leiden)
    return [cells.obs[str(i)].cat.codes.to_numpy(np.int64) for i in range(len(resolutions))]


def _tests_on_splits(
    counts: sp.csr_matrix,
    groups: pd.Categorical,
    method: Literal["pca", "ae"],
    n_splits: int,
    random_state: int,
) -> dict[str, np.ndarray]:
    """Scores, p-values and log fold changes of each group and gene over all splits, and how often a group was found."""
    reference, n_groups = np.asarray(groups.codes, np.int64), len(groups.categories)
    dispersion = dispersions(counts, reference)
    scores, p_values = [], []
    n_recovered = np.zeros(n_groups)
    molecules, depths = np.zeros((n_groups, counts.shape[1])), np.zeros(n_groups)
    molecules_outside, depths_outside = np.zeros_like(molecules), np.zeros(n_groups)
    for split in range(n_splits):
        first, second = split_counts(counts, dispersion, np.random.default_rng([random_state, split]))
        member = matched(_clusterings(first, method, RESOLUTIONS, random_state + split), reference, n_groups)
        z, p = group_scores(second, member, 2 * dispersion)  # a half has half the size, so twice the dispersion
        scores.append(z)
        p_values.append(p)
        nonempty = np.asarray(member.sum(1)).ravel() > 0
        n_recovered += nonempty / n_splits
        inside, depth = (member @ second).toarray(), member @ np.asarray(second.sum(1)).ravel()
        molecules, depths = molecules + inside, depths + depth
        molecules_outside += np.where(nonempty[:, None], np.asarray(second.sum(0)) - inside, 0)
        depths_outside += np.where(nonempty, second.sum() - depth, 0)
        _runtime.log(f"split {split + 1} of {n_splits}: {int(nonempty.sum())} of {n_groups} groups found")
    with np.errstate(divide="ignore", invalid="ignore"):  # a group that no split found has no molecules: NaN
        rates = (molecules + 0.5) / depths[:, None], (molecules_outside + 0.5) / depths_outside[:, None]
        change = np.where(n_recovered[:, None] > 0, np.log2(rates[0] / rates[1]), np.nan)
    return {
        "score": np.median(scores, axis=0),
        "p": combined(np.stack(p_values)),
        "change": change,
        "found": n_recovered,
    }


def _table(tests: dict[str, np.ndarray], group: int, genes: pd.Index) -> pd.DataFrame:
    """All genes of a group, the largest score first."""
    columns = {
        "names": genes.astype(str).to_numpy(object),
        "scores": tests["score"][group],
        "logfoldchanges": tests["change"][group],
        "pvals": tests["p"][group],
        "pvals_adj": benjamini_hochberg(tests["p"][group]),
    }
    return pd.DataFrame(columns).sort_values("scores", ascending=False, kind="stable")


def _summary(groups: pd.Categorical, recovery: np.ndarray, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Cells, share of the splits that found the group, number of markers."""
    n_markers = [int(((t["pvals_adj"] < LEVEL) & (t["scores"] > 0)).sum()) for t in tables.values()]
    n_cells = np.bincount(groups.codes, minlength=len(tables))
    if unstable := [name for name, share in zip(tables, recovery, strict=True) if share <= 0.5]:
        _runtime.log(f"groups {unstable} were found in half of the splits at most, and have no markers")
    return _slots.numbered(
        pd.DataFrame({"group": list(tables), "n_cells": n_cells, "found": recovery, "n_markers": n_markers})
    )


def _as_scanpy(tables: dict[str, pd.DataFrame], params: dict[str, Any]) -> dict[str, Any]:
    """As `scanpy.tl.rank_genes_groups` lays its results out: for each column a record array with a field for each group."""
    types = {"names": "O", "scores": "float32", "logfoldchanges": "float32", "pvals": "float64", "pvals_adj": "float64"}
    fixed = {"reference": "rest", "method": "count splitting", "use_raw": False, "corr_method": "benjamini-hochberg"}
    result: dict[str, Any] = {"params": {**{k: v for k, v in params.items() if v is not None}, **fixed}}
    for column, dtype in types.items():
        values = pd.DataFrame({name: table[column].to_numpy() for name, table in tables.items()})
        result[column] = values.to_records(index=False, column_dtypes=dict.fromkeys(tables, dtype))
    return result
