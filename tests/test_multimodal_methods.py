"""Other people's methods for MuData: what they find, new samples, missing modalities, and the maths by hand."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score

import aeverse as ae
from aeverse import _slots, methods, models

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore:Cannot join columns:UserWarning")

INDUCTIVE = ["concat_pca", "kernel_pca", "mfa", "mofa"]


def cohort(n=90, *, lacking=0, seed=0) -> md.MuData:
    """Three types of patients that expression and mutations tell together; some lack expression."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    centers = 2.5 * np.random.default_rng(99).normal(size=(3, 4))
    loadings = np.random.default_rng(98).normal(size=(4, 60))
    rna = (centers[kind] + rng.normal(size=(n, 4))) @ loadings + 2 * rng.normal(size=(n, 60))
    rates = np.random.default_rng(97).choice([0.05, 0.7], size=(3, 25))
    mut = (rng.random((n, 25)) < rates[kind]).astype(np.float32)
    names = [f"patient {i}" for i in range(n)]
    rna = ad.AnnData(rna.astype(np.float32), pd.DataFrame(index=names))
    rna.var_names = [f"gene {i}" for i in range(60)]
    mut = ad.AnnData(sp.csr_matrix(mut), pd.DataFrame(index=names))
    mut.var_names = [f"mutated {i}" for i in range(25)]
    mdata = md.MuData({"rna": rna[lacking:].copy(), "mut": mut})
    mdata.obs["kind"] = pd.Series(kind.astype(str), names).reindex(mdata.obs_names)
    return mdata


def fit(method: str, mdata: md.MuData, **arguments) -> methods.Fitted:
    data = _slots.read_modalities(mdata)
    given = {"batches": None, "n_latent": None, "random_state": 0, "progress": False, **arguments}
    return methods.MULTIMODAL[method](data, models.kinds_of(data, "auto"), n_obs=mdata.n_obs, **given)


@pytest.mark.parametrize("method", [*INDUCTIVE, "snf"])
def test_finds_the_types_also_where_a_modality_is_missing(method, random_states):
    if method == "mofa":
        pytest.importorskip("mofapy2")
    cohorts = [cohort(lacking=lacking) for lacking in (0, 15)]  # MuData itself draws names at random
    before = random_states()
    for mdata in cohorts:
        ae.tl.multimodal_embed(mdata, method=method)
        code = mdata.obsm["X_ae"]
        assert code.dtype == np.float32
        assert np.isfinite(code).all()
        found = KMeans(3, n_init=10, random_state=0).fit(code).labels_
        assert adjusted_rand_score(mdata.obs["kind"], found) > (0.6 if method == "concat_pca" else 0.8)
    assert mdata.uns["ae"]["X_ae"]["params"]["method"] == method
    assert random_states() == before


@pytest.mark.parametrize("method", INDUCTIVE)
def test_new_samples_have_codes_like_those_of_training(method):
    if method == "mofa":
        pytest.importorskip("mofapy2")
    train, test = cohort(lacking=10), cohort(60, seed=1)
    fitted = fit(method, train)
    again = fitted.encode(_slots.read_modalities(train), train.n_obs)
    if method == "mofa":  # a posterior mean given point weights is not quite the variational one
        assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(again.T, fitted.code.T, strict=True)) > 0.97
    else:
        np.testing.assert_allclose(again, fitted.code, atol=1e-4)
    classifier = LogisticRegression(max_iter=500).fit(fitted.code, train.obs["kind"])
    new = fitted.encode(_slots.read_modalities(test), test.n_obs)
    assert new.dtype == np.float32
    assert classifier.score(new, test.obs["kind"]) > 0.9
    for m in ("rna", "mut"):
        part = fitted.encode(_slots.read_modalities(test, [m]), test.n_obs)
        assert part.shape == new.shape
        assert classifier.score(part, test.obs["kind"]) > 0.6


@pytest.mark.parametrize("method", INDUCTIVE)
def test_new_features_may_stand_in_another_order_but_must_be_there(method):
    if method == "mofa":
        pytest.importorskip("mofapy2")
    train, test = cohort(), cohort(30, seed=1)
    fitted = fit(method, train)
    expected = fitted.encode(_slots.read_modalities(test), test.n_obs)
    turned = md.MuData({m: a[:, ::-1].copy() for m, a in test.mod.items()})
    np.testing.assert_allclose(fitted.encode(_slots.read_modalities(turned), 30), expected, atol=1e-4)
    fewer = md.MuData({m: a[:, 1:].copy() for m, a in test.mod.items()})
    with pytest.raises(ValueError, match="1 of 60 are missing: \\['gene 0'\\]"):
        fitted.encode(_slots.read_modalities(fewer), 30)


def test_snf_has_no_code_for_new_samples():
    assert fit("snf", cohort(30)).encode is None


def test_wnn_refuses_so_few_cells_that_muon_would_crash():
    with pytest.raises(ValueError, match="30 cells are too few, at least 50"):
        fit("wnn", cohort(30))


def test_mfa_is_that_of_the_book():
    """Blocks divided by their first singular values, then the singular value decomposition of all."""
    mdata = cohort(40)
    blocks = []
    for m in mdata.mod:
        x = np.asarray(mdata[m].X.todense() if sp.issparse(mdata[m].X) else mdata[m].X, np.float64)
        z = (x - x.mean(0)) / x.std(0)
        blocks.append(z / np.linalg.svd(z, compute_uv=False)[0])
    u, s, _ = np.linalg.svd(np.hstack(blocks), full_matrices=False)
    expected, found = (u * s)[:, :5], fit("mfa", mdata, n_latent=5).code
    ratio = np.linalg.norm(found) / np.linalg.norm(expected)
    np.testing.assert_allclose(np.abs(found), np.abs(expected) * ratio, atol=2e-3)


def test_kernel_pca_is_that_of_scikit_learn_for_one_modality():
    from sklearn.decomposition import KernelPCA

    mdata = md.MuData({"rna": cohort(50)["rna"]})
    x = np.asarray(mdata["rna"].X, np.float64)
    z = (x - x.mean(0)) / x.std(0)
    square = ((z[:, None] - z) ** 2).sum(2)
    expected = KernelPCA(6, kernel="rbf", gamma=1 / square.mean()).fit_transform(z)
    found = fit("kernel_pca", mdata, n_latent=6).code
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


def test_preparation_is_that_of_scanpy_and_muon():
    import scanpy as sc
    from muon import atac, prot

    from aeverse.methods._prepare import Preparation

    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(1.0, (40, 30)).astype(np.float32))
    for kind in ("counts", "protein", "peaks"):
        d = _slots.Modality(counts, np.arange(40), pd.Index([f"g{i}" for i in range(30)]), None)
        theirs = ad.AnnData(counts.toarray() if kind == "protein" else counts.copy())
        if kind == "counts":
            sc.pp.normalize_total(theirs)
            sc.pp.log1p(theirs)
        elif kind == "protein":
            prot.pp.clr(theirs)
        else:
            atac.pp.tfidf(theirs, scale_factor=1e4)
        theirs = theirs.X.toarray() if sp.issparse(theirs.X) else theirs.X
        np.testing.assert_allclose(Preparation(d, kind)(d).toarray(), theirs, rtol=1e-4, atol=1e-5)


def test_a_method_of_all_pairs_refuses_too_many(monkeypatch):
    from aeverse.methods import _snf

    monkeypatch.setattr(_snf, "MOST_SAMPLES", 20)
    mdata = cohort(30)
    with pytest.raises(ValueError, match="30 are too many, at most 20"):
        ae.tl.multimodal_embed(mdata, method="snf")
    assert "X_ae" not in mdata.obsm


@pytest.mark.parametrize("method", ["concat_pca", "kernel_pca", "mfa", "snf"])
def test_poor_data_still_have_codes(method):
    """Nothing varies in a layer, a feature is nowhere known, some entries are missing, names stand twice; 12 patients."""
    mdata = cohort(12)
    mdata["mut"].X = mdata["mut"].X * 0
    x = mdata["rna"].X.copy()
    x[:, 3], x[::5, 5] = np.nan, np.nan
    mdata["rna"].X = x
    names = list(mdata["rna"].var_names)
    mdata["rna"].var_names = [names[0], *names[:-1]]
    ae.tl.multimodal_embed(mdata, method=method)
    assert np.isfinite(mdata.obsm["X_ae"]).all()
    assert mdata.obsm["X_ae"].std() > 0
