"""Markers hold on molecules that the clusters have not seen: none without types, those of types found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData, read_h5ad

import aeverse as ae
from aeverse.tl import _marker_tests


def negative_binomial(seed: int, n_cells: int = 300, n_genes: int = 200, dispersion: float = 0.5, fold=None) -> AnnData:
    """Counts of one profile with depths that differ tenfold; with `fold`, of two types whose last genes differ."""
    rng = np.random.default_rng(seed)
    profile = rng.lognormal(0, 1, n_genes)
    mean = rng.uniform(500, 5000, n_cells)[:, None] * profile / profile.sum()
    types = rng.integers(0, 2, n_cells)
    if fold is not None:
        mean[:, -40:] *= np.where(types, fold, 1)[:, None]
    counts = rng.poisson(rng.gamma(1 / dispersion, dispersion, mean.shape) * mean)
    obs = pd.DataFrame({"type": np.where(types, "b", "a")}, index=[f"c{i}" for i in range(n_cells)])
    return AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=obs)


def scanpy_markers(adata: AnnData, groupby: str) -> set[str]:
    normalized = adata.copy()
    sc.pp.normalize_total(normalized, target_sum=1e4)
    sc.pp.log1p(normalized)
    sc.tl.rank_genes_groups(normalized, groupby, method="wilcoxon")
    table = sc.get.rank_genes_groups_df(normalized, None)
    return set(table["names"][table["pvals_adj"] < 0.05])


def ours(adata: AnnData, group: str | None = None) -> pd.DataFrame:
    table = sc.get.rank_genes_groups_df(adata, group, key="markers")
    return table[table["pvals_adj"] < 0.05]


@pytest.fixture(scope="module")
def blood() -> AnnData:
    adata = ae.datasets.pbmc68k_counts()
    ae.tl.markers(adata, groupby="bulk_labels", n_splits=3)
    return adata


# ---- what is found -----------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
def test_without_types_there_are_no_markers():
    adata = negative_binomial(0)
    ae.tl.markers(adata, n_splits=3)
    assert adata.obs["markers_clusters"].nunique() > 2  # Leiden finds clusters all the same
    assert len(scanpy_markers(adata, "markers_clusters")) > 15  # and scanpy their markers
    assert len(ours(adata)) == 0


@pytest.mark.filterwarnings("ignore")
def test_of_two_types_the_genes_that_differ_are_found():
    adata = negative_binomial(1, fold=3)
    ae.tl.markers(adata, groupby="type", n_splits=3)
    found = ours(adata, "b")
    differing = set(adata.var_names[-40:])
    higher = set(found["names"][found["scores"] > 0])
    assert len(higher & differing) > 35
    assert len(higher - differing) <= 5
    assert (found.loc[found["names"].isin(differing), "logfoldchanges"] > 0.5).all()


def test_known_markers_of_blood(blood):
    assert {"CD79A", "CD79B"} <= set(ours(blood, "CD19+ B")["names"])
    assert {"NKG7", "GNLY"} <= set(ours(blood, "CD56+ NK")["names"][:20])


# ---- the statistics ----------------------------------------------------------------------------------------------
def test_halves_of_negative_binomial_counts_are_independent():
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(rng.gamma(2, 0.5, (2000, 50)) * 6), dtype=np.float32)
    for dispersion, dependent in ((0.5, False), (0.0, True)):
        first, second = _marker_tests.split_counts(counts, np.full(50, dispersion), rng)
        assert (first + second != counts).nnz == 0
        together = [np.corrcoef(first[:, [g]].toarray().T, second[:, [g]].toarray().T)[0, 1] for g in range(50)]
        assert (np.mean(together) > 0.3) == dependent
        assert abs(np.mean(together)) < 0.02 or dependent


def test_dispersions_within_clusters():
    adata = negative_binomial(2, n_cells=2000, fold=4)
    within = _marker_tests.dispersions(adata.X, (adata.obs["type"] == "b").to_numpy(np.int64))
    across = _marker_tests.dispersions(adata.X, np.zeros(adata.n_obs, np.int64))
    assert 0.45 < np.median(within) < 0.6
    assert np.median(across[-40:]) > 1.3 * np.median(within[-40:])


@pytest.mark.parametrize("by_depth", [False, True])
def test_p_values_are_uniform_at_most(by_depth):
    adata = negative_binomial(3, n_cells=600, n_genes=1000, dispersion=1.0)
    depth = np.asarray(adata.X.sum(1)).ravel()
    groups = np.digitize(depth, np.quantile(depth, [0.1, 0.5])) if by_depth else np.arange(600) % 12
    member = sp.csr_matrix(groups == np.arange(groups.max() + 1)[:, None], dtype=np.float32)
    scores, p = _marker_tests.group_scores(adata.X, member, np.ones(1000))
    for level in (0.5, 0.1, 0.01, 0.001):
        assert (p < level).mean() < 1.25 * level + 2 / p.size**0.5 * level**0.5
    assert (p < 0.1).mean() > 0.05
    assert abs(scores.mean()) < 0.05


def test_clusters_take_the_name_of_the_group_that_holds_most_of_them():
    reference = np.repeat([0, 1, 2], [40, 40, 20])
    coarse, fine = np.repeat([0, 1], [42, 58]), np.repeat([0, 1, 2, 3], [20, 20, 40, 20])
    np.testing.assert_array_equal(_marker_tests.matched([coarse, fine], reference, 3).toarray(), np.eye(3)[reference].T)
    rng = np.random.default_rng(0)
    for size in (
        4,
        6,
        10,
        50,
    ):  # groups that have nothing to do with the clusters are not found, however small these are
        by_chance = [rng.permutation(np.arange(400) // size) for _ in range(5)]
        assert _marker_tests.matched(by_chance, np.arange(400) % 2, 2).nnz == 0
    shuffled = rng.permutation(reference)
    assert _marker_tests.matched([shuffled], reference, 3).nnz == 0


# ---- the object --------------------------------------------------------------------------------------------------
def test_scanpy_reads_the_result_also_from_a_file(blood, tmp_path):
    blood.write_h5ad(tmp_path / "a.h5ad")
    again = read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        sc.get.rank_genes_groups_df(again, None, key="markers"), sc.get.rank_genes_groups_df(blood, None, key="markers")
    )
    sc.pl.rank_genes_groups(again, key="markers", n_genes=3, show=False)
    sc.pl.rank_genes_groups_dotplot(again, key="markers", n_genes=2, show=False, dendrogram=False)


def test_the_record_says_how_often_a_group_was_found(blood):
    table = blood.uns["ae"]["markers"]["groups"].set_index("group")
    assert list(table.index) == list(blood.obs["bulk_labels"].cat.categories)
    assert table["found"].between(0, 1).all()
    assert (table.loc[table["found"] < 0.5, "n_markers"] == 0).all()
    assert table.loc["CD19+ B", "found"] == 1
    assert "markers_clusters" not in blood.obs


@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_gives_the_same_result_and_states_are_left_alone(small, random_states, warm_neighbors):
    before = random_states()
    one, other = (ae.tl.markers(small, n_splits=2, copy=True) for _ in range(2))
    assert random_states() == before
    assert "markers" not in small.uns
    pd.testing.assert_frame_equal(
        sc.get.rank_genes_groups_df(one, None, key="markers"), sc.get.rank_genes_groups_df(other, None, key="markers")
    )


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"groupby": "nothing"}, KeyError, "not a column"),
        ({"method": "umap"}, ValueError, "pass 'pca' or 'ae'"),
        ({"n_splits": 0}, ValueError, "n_splits"),
        ({"key_added": "ae"}, ValueError, "pass another name"),
        ({"key_added": "theirs"}, ValueError, "not written by aeverse"),
        ({"layer": "logged"}, ValueError, "raw counts"),
        ({"layer": "empty"}, ValueError, "holds no molecules"),
    ],
)
def test_a_failed_call_changes_nothing(small, fingerprint, given, error, words):
    small.uns["theirs"] = {"a": 1}
    small.layers["logged"], small.layers["empty"] = np.log1p(small.X), 0 * small.X
    before = fingerprint(small)
    with pytest.raises(error, match=words):
        ae.tl.markers(small, **given)
    assert fingerprint(small) == before
