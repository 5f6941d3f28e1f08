"""Clusters of the default call, and the judge of clusters that needs no labels."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy

import aeverse as ae


def halves(seed: int, n: int = 60, g: int = 30, n_types: int = 3):
    """Types, and two independent halves of their counts; one gene has no molecule in the first."""
    rng = np.random.default_rng(seed)
    types = rng.integers(n_types, size=n)
    mean = rng.gamma(0.5, 2.0, (n_types, g))[types] * rng.lognormal(0, 0.5, (n, 1))
    train, test = rng.poisson(mean), rng.poisson(mean)
    train[:, 0] = 0
    return types, sp.csr_matrix(train, dtype=np.float32), sp.csr_matrix(test, dtype=np.float32)


def reference(clusters, train, test) -> float:
    """By the definition, dense and in float64."""
    train, test = train.toarray().astype(float), test.toarray().astype(float)
    library = train.sum(1, keepdims=True) * test.sum() / train.sum()
    mean = train.sum(0) / train.sum()
    profiles = np.array([train[clusters == c].sum(0) + 2000 * mean for c in clusters])
    profiles /= profiles.sum(1, keepdims=True)
    genes = mean > 0
    lost, null = (
        2 * (m - test[:, genes] + xlogy(test[:, genes], test[:, genes] / np.maximum(m, 1e-6))).sum()
        for m in (library * profiles[:, genes], library * mean[genes])
    )
    return 1 - lost / null


# ---- cluster_deviance --------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 10**6))
def test_it_is_that_of_the_definition(seed):
    types, train, test = halves(seed)
    assert ae.metrics.cluster_deviance(types, train, test) == pytest.approx(reference(types, train, test), abs=1e-10)


def test_names_and_container_do_not_matter():
    types, train, test = halves(1)
    expected = ae.metrics.cluster_deviance(types, train, test)
    named = pd.Categorical(np.array(["b", "c", "a"])[types])
    assert ae.metrics.cluster_deviance(named, train.toarray(), test.tocsc()) == pytest.approx(expected, abs=1e-12)
    assert ae.metrics.cluster_deviance(pd.Series(named), train, test) == pytest.approx(expected, abs=1e-12)


def test_too_coarse_and_too_fine_both_lose():
    types, train, test = halves(2, 600, 80)
    split = types * 40 + np.random.default_rng(0).integers(40, size=600)
    right, merged, fine = (ae.metrics.cluster_deviance(c, train, test) for c in (types, types // 2, split))
    assert right > 0.3
    assert right > merged + 0.05
    assert right > fine + 0.005
    assert ae.metrics.cluster_deviance(np.zeros(600), train, test) == pytest.approx(0, abs=1e-12)


def test_nothing_is_made_dense_as_a_whole(monkeypatch):
    types, train, test = halves(3)
    expected = ae.metrics.cluster_deviance(types, train, test)
    monkeypatch.setattr(sp.csr_matrix, "toarray", None)
    monkeypatch.setattr(sp.csr_matrix, "todense", None)
    assert ae.metrics.cluster_deviance(types, train, test) == expected


def test_empty_cells_and_no_molecules_are_finite():
    types, train, test = halves(4)
    empty = train.tolil()
    empty[:2] = 0
    assert np.isfinite(ae.metrics.cluster_deviance(types, empty.tocsr(), test))
    assert ae.metrics.cluster_deviance(types, train, test * 0) == 0
    assert ae.metrics.cluster_deviance(types, train * 0, test) == 0


def test_what_does_not_fit_is_refused():
    types, train, test = halves(5)
    with pytest.raises(ValueError, match="shapes differ: 59 clusters"):
        ae.metrics.cluster_deviance(types[1:], train, test)
    with pytest.raises(ValueError, match=r"shapes differ: .*test \(60, 29\)"):
        ae.metrics.cluster_deviance(types, train, test[:, 1:])
    with pytest.raises(ValueError, match="3 cells have no cluster"):
        ae.metrics.cluster_deviance(np.where(np.arange(60) < 3, np.nan, types), train, test)


def test_both_agree_with_the_reference_of_the_benchmarks(data_dir, pbmc, warm_neighbors):
    path = data_dir.parent / "scoring.py"
    if not path.exists():
        pytest.skip("the reference figures are not there")
    spec = importlib.util.spec_from_file_location("scoring", path)
    scoring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scoring)
    train, test, _ = scoring.split_molecules(pbmc.X, 0, 0.5)
    labels = pbmc.obs["bulk_labels"].astype(str)
    code = np.log1p(train[:, :50].toarray())
    ours, theirs = ae.metrics.default_clusters(code, labels), scoring.default_clusters(code, labels)
    np.testing.assert_array_equal(ours.pop("clusters"), clusters := theirs.pop("clusters"))
    assert ours == pytest.approx(theirs)
    for partition in (labels, clusters):
        expected = scoring.cluster_deviance(train, test, partition)
        assert ae.metrics.cluster_deviance(partition, train, test) == pytest.approx(expected, abs=1e-4)


# ---- default_clusters --------------------------------------------------------------------------------------------
def blobs(n: int = 300):
    rng = np.random.default_rng(0)
    types = np.arange(n) % 3
    return 10 * rng.normal(size=(3, 4))[types] + rng.normal(size=(n, 4)), types


def test_default_clusters_are_those_of_scanpys_call(warm_neighbors):
    import scanpy as sc
    from anndata import AnnData

    code, types = blobs()
    adata = AnnData(code.astype(np.float32))
    sc.pp.neighbors(adata, use_rep="X")
    for resolution in (1.0, 0.25):
        sc.tl.leiden(adata, resolution=resolution, flavor="igraph", n_iterations=2, directed=False)
        result = ae.metrics.default_clusters(code, types, resolution=resolution)
        np.testing.assert_array_equal(result["clusters"], adata.obs["leiden"].astype(int))
        assert result["n_clusters"] == adata.obs["leiden"].nunique()
    assert ae.metrics.default_clusters(code, resolution=0.1).keys() == {"clusters", "n_clusters"}
    assert ae.metrics.default_clusters(code, types, resolution=0.1)["ari"] == 1


def test_unknown_labels_are_clustered_and_not_judged():
    code, types = blobs()
    labels = np.where(np.arange(300) < 30, "unknown", types.astype(str))
    result = ae.metrics.default_clusters(code, labels, resolution=0.1)
    assert len(result["clusters"]) == 300
    assert result["ari"] == result["nmi"] == 1


def test_default_clusters_refuse_what_does_not_fit():
    code, types = blobs()
    with pytest.raises(ValueError, match="299 labels for 300 samples"):
        ae.metrics.default_clusters(code, types[1:])
    with pytest.raises(ValueError, match="no label is known"):
        ae.metrics.default_clusters(code, np.full(300, "unknown"))
    with pytest.raises(ValueError, match="2 cells are too few"):
        ae.metrics.default_clusters(code[:2])


def test_default_clusters_leave_global_random_states(random_states):
    ae.metrics.default_clusters(blobs()[0])
    before = random_states()
    ae.metrics.default_clusters(blobs()[0])
    assert random_states() == before
