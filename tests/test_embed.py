import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import aeverse as ae
from aeverse import _slots

KINDS = {"gaussian": 0, "bernoulli": 1, "fractions": 2, "nb": 3, "poisson": 3}
REGULARIZERS = [None, "sparse", "contractive", "denoising", "variational", "graph", ("denoising", "graph", "sparse")]


@pytest.fixture(autouse=True)
def _few_steps(few_steps):
    pass


@pytest.fixture(scope="module")
def values():
    """60 samples of four programs in 20 features, as continuous values, 0 and 1, fractions, counts."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 20)) + 0.3 * rng.normal(size=(60, 20))
    found = [3 * x + 7, (x > 0.3) * 1.0, 1 / (1 + np.exp(-x)), rng.poisson(np.exp(x / 2 + 1))]
    return [ad.AnnData(v.astype(np.float32)) for v in found]


# ---- what is written -------------------------------------------------------------------------------------------
def test_only_what_is_documented_is_written(small):
    slots = {s: list(getattr(small, s)) for s in ("layers", "obs", "var", "obsp")}
    assert ae.tl.embed(small, n_latent=5, n_models=2) is None
    assert (list(small.obsm), list(small.varm), list(small.uns["ae"])) == (["X_ae"], ["ae_loadings"], ["X_ae"])
    assert small.obsm["X_ae"].shape == small.varm["ae_loadings"].shape == (100, 10)
    assert np.isfinite(small.obsm["X_ae"]).all()
    assert {s: list(getattr(small, s)) for s in slots} == slots
    ae.tl.embed(small, n_latent=5, decoder="mlp")
    assert not small.varm


def test_the_code_is_that_of_the_model_behind(small):
    ae.tl.embed(small, n_latent=5, random_state=2, batch_key="batch", key_added="X_code")
    options = {"n_latent": 5, "random_state": 2, "share_calibration": 0.0}
    fitted = ae.models.Autoencoder(regularizer="auto", **options).fit(small, batch_key="batch")
    assert fitted.settings.regularizer == "denoising"
    np.testing.assert_array_equal(small.obsm["X_code"], fitted.encode(small))
    assert small.uns["ae"]["X_code"]["params"]["batch_key"] == "batch"
    assert small.uns["ae"]["X_code"]["deviance_explained"] == fitted.heldout_deviance_explained


def test_a_fitted_model_or_its_file_is_used(small, model, tmp_path):
    model.save(tmp_path / "m.ae")
    for given in (model, tmp_path / "m.ae"):
        other = ae.tl.embed(small, model=given, copy=True)
        np.testing.assert_array_equal(other.obsm["X_ae"], model.encode(small))
    assert not small.obsm


def test_loadings_follow_the_features_of_the_object(small, model):
    some = small[:, ::-1][:, :70].copy()
    with pytest.warns(UserWarning, match="features that the encoder reads were found"):
        ae.tl.embed(some, model=model)
    expected = model.loadings().loc[some.var_names]
    np.testing.assert_array_equal(some.varm["ae_loadings"], expected.to_numpy())


def test_a_second_call_replaces_its_own_code_only(small):
    ae.tl.embed(small, n_latent=3, n_models=1)
    ae.tl.embed(small, n_latent=4, n_models=1)
    assert small.obsm["X_ae"].shape == (100, 4)
    small.obsm["X_pca"] = np.ones((100, 2))
    with pytest.raises(ValueError, match=r"obsm\['X_pca'\] exists and was not written by aeverse"):
        ae.tl.embed(small, key_added="X_pca")
    assert (small.obsm["X_pca"] == 1).all()


def test_cells_without_counts_have_a_code(small):
    x = small.X.toarray()
    x[3] = 0
    small.X = x
    ae.tl.embed(small, n_latent=3)
    assert np.isfinite(small.obsm["X_ae"]).all()


def test_more_dimensions_than_genes_and_two_cells(small):
    two = small[:2].copy()
    ae.tl.embed(two, n_latent=300, n_models=1)
    assert two.obsm["X_ae"].shape == (2, 300)
    assert np.isfinite(two.obsm["X_ae"]).all()


# ---- every likelihood with every regularizer -------------------------------------------------------------------
@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=str)
@pytest.mark.parametrize("likelihood", KINDS)
def test_each_likelihood_goes_with_each_regularizer(values, likelihood, regularizer, tmp_path):
    adata = values[KINDS[likelihood]]
    model = ae.models.Autoencoder(likelihood=likelihood, regularizer=regularizer, n_latent=8, n_models=1).fit(adata)
    code = model.encode(adata)
    assert code.shape == (60, 8)
    assert np.isfinite(code).all()
    np.testing.assert_allclose(model.encode(adata[:7]), code[:7], rtol=1e-4, atol=1e-5)  # nothing is drawn
    assert np.isfinite(model.decode(code)).all()
    model.save(tmp_path / "m.ae")
    again = ae.models.load(tmp_path / "m.ae")
    assert (again.config, again.settings) == (model.config, model.settings)
    np.testing.assert_array_equal(again.encode(adata), code)
    np.testing.assert_array_equal(again.decode(code), model.decode(code))


@pytest.mark.parametrize(("likelihood", "kind"), [("gaussian", 0), ("bernoulli", 1), ("fractions", 2), ("nb", 3)])
def test_auto_tells_the_likelihood_and_says_so(values, likelihood, kind, caplog):
    adata = values[kind].copy()
    if likelihood == "nb":
        adata.X = sp.csr_matrix(adata.X)  # a small panel: dense integers could be anything
    with caplog.at_level(logging.INFO, "aeverse"):
        ae.tl.embed(adata, n_latent=8)
    assert adata.uns["ae"]["X_ae"]["params"]["likelihood"] == likelihood
    assert f"likelihood='{likelihood}'" in caplog.text
    assert "regularizer=" in caplog.text


def test_wrong_values_are_named(values):
    for likelihood, kind, message in (
        ("bernoulli", 0, "needs 0 and 1"),
        ("fractions", 0, "between 0 and 1"),
        ("nb", 0, "holds values that are not integers|holds negative values"),
    ):
        with pytest.raises(ValueError, match=message):
            ae.tl.embed(values[kind], likelihood=likelihood)
    odd = values[0].copy()
    odd.X[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinite values; set what is missing to NaN"):
        ae.tl.embed(odd)
    for wrong, message in (
        ({"likelihood": "normal"}, "argument likelihood: found 'normal'; pass 'auto'"),
        ({"regularizer": "smooth"}, "argument regularizer: found 'smooth'; pass 'sparse'"),
        ({"regularizer": ("sparse", "x")}, r"argument regularizer: found \('sparse', 'x'\)"),
        ({"decoder": "deep"}, "argument decoder: found 'deep'; pass 'linear'"),
        ({"method": "umap"}, "argument method: found 'umap'; pass 'ae'"),
    ):
        with pytest.raises(ValueError, match=message):
            ae.tl.embed(values[0], **wrong)


def test_missing_entries_are_left_out_and_sparse_equals_dense(values):
    for kind in (0, 1):
        adata = values[kind]
        sparse = adata.copy()
        sparse.X = sp.csr_matrix(adata.X)
        options = {"likelihood": ("gaussian", "bernoulli")[kind], "regularizer": None, "n_latent": 4}
        model = ae.models.Autoencoder(**options).fit(adata)
        np.testing.assert_allclose(model.encode(sparse), model.encode(adata), rtol=1e-4, atol=1e-4)
        assert np.isfinite(ae.models.Autoencoder(**options).fit(sparse).heldout_deviance_explained)
        holed = adata.copy()
        holed.X = np.where(np.random.default_rng(0).random(adata.shape) < 0.2, np.nan, adata.X)
        holed.X[:, 3], holed.X[5] = np.nan, np.nan  # a feature and a sample without any value
        fitted = ae.models.Autoencoder(**options).fit(holed)
        assert np.isfinite(fitted.encode(holed)).all()
        assert np.isnan(fitted.deviance_explained[3])
        with pytest.warns(UserWarning, match="taken to be at their means"):
            assert np.isfinite(fitted.encode(adata[:, :12])).all()


def test_models_of_values_know_no_counts(values):
    model = ae.models.Autoencoder(n_latent=3).fit(values[0])
    for call in (model.denoise, model.dropouts):
        with pytest.raises(ValueError, match="needs a model of counts, with likelihood 'nb' or 'poisson'"):
            call(values[0])
    with pytest.raises(ValueError, match="needs a model of counts"):
        ae.tl.denoise(values[3].copy(), model=model)


# ---- what the regularizers do ----------------------------------------------------------------------------------
@pytest.mark.full_training
def test_a_linear_net_finds_the_subspace_of_pca():
    from scipy.linalg import subspace_angles

    rng = np.random.default_rng(0)
    factors = rng.normal(size=(200, 3)) * [4, 3, 2]
    adata = ad.AnnData((factors @ rng.normal(size=(3, 30)) + 0.3 * rng.normal(size=(200, 30))).astype(np.float32))
    model = ae.models.Autoencoder(
        regularizer=None,
        n_hidden=(),
        n_latent=3,
        share_heldout=1e-4,
        prior_precision=1e-3,
        max_epochs=600,
        batch_size=200,
    ).fit(adata)
    standardized = (adata.X - adata.X.mean(0)) / adata.X.std(0)
    axes = np.linalg.svd(standardized, full_matrices=False)[2][:3]
    assert np.degrees(subspace_angles(axes.T, model.loadings().to_numpy())).max() < 1


def _code(adata, **options):
    model = ae.models.Autoencoder(n_models=1, **options).fit(adata)
    return model, model.encode(adata)


@pytest.mark.full_training
def test_sparse_codes_have_few_active_units(values):
    share = {}
    for strength in (0.1, 3.0):
        model, code = _code(values[0], regularizer="sparse", n_latent=12, strength=strength)
        share[strength] = model.active_share(code).mean()
    assert share[3.0] < 0.6 * share[0.1]
    model, code = _code(values[0], regularizer="sparse", n_latent=12, target_activity=0.2, strength=10)
    assert code.mean() == pytest.approx(0.2, abs=0.06)
    model, code = _code(values[3], likelihood="nb", regularizer="sparse", n_latent=12, max_epochs=100)
    assert 0.05 < model.active_share(code).mean() < 0.95
    adata = values[0].copy()
    ae.tl.embed(adata, regularizer="sparse", n_latent=12)
    assert ((adata.obs["ae_active"] >= 0) & (adata.obs["ae_active"] <= 1)).all()


def test_corruption_is_of_a_kind_that_suits_the_values(values):
    seen = {}
    for corruption in (None, "masking", "gaussian"):
        model = ae.models.Autoencoder(likelihood="gaussian", corruption=corruption, n_latent=4).fit(values[0])
        seen[corruption] = model.encode(values[0])
        assert model.settings.corruption == (corruption or "masking")
    np.testing.assert_array_equal(seen[None], seen["masking"])
    assert not np.allclose(seen["gaussian"], seen["masking"])
    for kind, wrong in (("nb", "masking"), ("bernoulli", "gaussian"), ("gaussian", "thinning")):
        with pytest.raises(ValueError, match=f"corruption='{wrong}' does not go with '{kind}'"):
            ae.models.Autoencoder(likelihood=kind, corruption=wrong).fit(values[KINDS[kind]])


def test_gaussian_corruption_is_in_standard_deviations(values):
    import torch

    from aeverse.nn import Batch

    model = ae.models.Autoencoder(likelihood="gaussian", corruption="gaussian", n_latent=4).fit(values[0])
    x = torch.tensor(values[0].X).repeat(200, 1)
    noise = model.net.members[0].corrupt(Batch(x, x)).x - x
    np.testing.assert_allclose(noise.std(0).numpy() / values[0].X.std(0), 0.5, rtol=0.1)


@pytest.mark.full_training
def test_contraction_shrinks_the_jacobian(values):
    import torch

    from aeverse.nn import Contraction

    norms = {}
    for strength in (0.0, 30.0):
        model, _ = _code(values[0], regularizer="contractive", n_latent=4, strength=strength, n_hidden=())
        member = model.net.members[0]
        norms[strength] = Contraction.norms(member, member.encoder.coded(torch.tensor(values[0].X))).mean().item()
    assert norms[30.0] < 0.6 * norms[0.0]


@pytest.mark.full_training
def test_variational_codes_are_in_use_and_can_be_sampled(values):
    adata = values[0].copy()
    ae.tl.embed(adata, regularizer="variational", n_latent=8)
    assert 3 <= adata.uns["ae"]["X_ae"]["active_units"] <= 8
    model, _ = _code(values[0], regularizer="variational", n_latent=8)
    drawn = model.sample(2000)
    np.testing.assert_array_equal(drawn, model.sample(2000))
    real = np.corrcoef(values[0].X.T)[np.triu_indices(20, 1)]
    assert np.corrcoef(real, np.corrcoef(drawn.T)[np.triu_indices(20, 1)])[0, 1] > 0.8
    np.testing.assert_allclose(drawn.mean(0), values[0].X.mean(0), atol=2.5)
    np.testing.assert_allclose(drawn.std(0), values[0].X.std(0), rtol=0.3)
    with pytest.raises(ValueError, match="only a model with regularizer='variational' can be sampled from"):
        ae.models.Autoencoder(n_latent=3, max_epochs=1).fit(values[0]).sample(3)


@pytest.mark.full_training
def test_graph_codes_foretell_the_place_of_new_samples():
    from aeverse.models._shared._graph_targets import diffusion_target

    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    x = np.tanh(2 * circle @ rng.normal(size=(2, 40))) + 0.1 * rng.normal(size=(400, 40))
    adata = ad.AnnData(x.astype(np.float32))
    model = ae.models.Autoencoder(regularizer="graph", n_latent=8).fit(adata[:300])
    member = model.net.members[0]
    truth = diffusion_target(model.fitted.samples(adata, None), member.encoder.input_layer, 2, None)[300:]
    design = np.c_[model.encode(adata[300:])[:, : model.n_guided], np.ones(100)]
    error = truth - design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    assert (error**2).sum() < 0.1 * ((truth - truth.mean(0)) ** 2).sum()


@pytest.mark.full_training
def test_graph_codes_of_counts_foretell_smoothed_components():
    from aeverse.models._shared._graph_targets import smoothed_target

    adata = ae.datasets.simulate_counts(300, 100, n_types=3)
    model = ae.models.Autoencoder(regularizer=("denoising", "graph"), n_latent=6, n_models=1).fit(adata[:220])
    guided, rest = np.split(model.encode(adata), [model.n_guided], 1)
    np.testing.assert_allclose(rest[:220].var(0).sum() / guided[:220].var(0).sum(), 0.01, rtol=0.2)
    truth = smoothed_target(adata.X, adata.var_names, 2, None, None)[220:]
    design = np.c_[guided[220:], np.ones(80)]
    error = truth - design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    assert (error**2).sum() < 0.1 * ((truth - truth.mean(0)) ** 2).sum()


# ---- readable codes --------------------------------------------------------------------------------------------
@pytest.mark.full_training
def test_gene_sets_name_the_dimensions_and_limit_their_reach():
    rng = np.random.default_rng(0)
    activity, sets = rng.gamma(2.0, 1.0, (300, 3)), {}
    profile = np.full((300, 60), 1.0)
    for i, name in enumerate(("stress", "cycle", "interferon/alpha")):
        genes = np.arange(15) + 15 * i
        profile[:, genes] *= np.exp(0.5 * activity[:, [i]])
        sets[name] = [f"gene{g}" for g in genes] + ["unknown"]
    counts = rng.poisson(20 * 60 * profile / profile.sum(1, keepdims=True))
    adata = ad.AnnData(
        sp.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=[f"gene{g}" for g in range(60)])
    )
    table = pd.DataFrame([(s, g) for s, genes in sets.items() for g in genes], columns=["source", "target"])
    assert ae.models.Config(gene_sets=table).gene_sets == ae.models.Config(gene_sets=sets).gene_sets
    ae.tl.embed(adata, gene_sets=sets, likelihood="nb")
    assert list(adata.uns["ae"]["X_ae"]["code_names"]) == list(sets)
    loadings, code = adata.varm["ae_loadings"], adata.obsm["X_ae"]
    for i, name in enumerate(sets):
        assert set(adata.var_names[loadings[:, i] != 0]) == set(sets[name]) - {"unknown"}
        assert loadings[:, i].sum() > 0  # more of the code is more of the pathway
        found = [abs(np.corrcoef(code[:, i], activity[:, j])[0, 1]) for j in range(3)]
        assert np.argmax(found) == i
        assert found[i] > 0.7


def test_gene_sets_that_make_no_sense_are_refused(values):
    names = list(values[0].var_names)
    for wrong, error, message in (
        ({"gene_sets": {"a": ["nothing"]}}, KeyError, "none of the 1 genes of 'a'"),
        ({"gene_sets": {}}, ValueError, "gene_sets is empty"),
        ({"gene_sets": {"a": names[:3]}, "decoder": "mlp"}, ValueError, "need decoder='linear'"),
        ({"gene_sets": {"a": names[:3]}, "n_latent": 5}, ValueError, "leave n_latent out"),
        ({"gene_sets": pd.DataFrame({"set": ["a"]})}, KeyError, "lacks the columns"),
    ):
        with pytest.raises(error, match=message):
            ae.tl.embed(values[0], **wrong)


# ---- other methods ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("method", ["pca", "kernel_pca"])
def test_other_methods_write_their_code_only(values, method, kind, fingerprint):
    adata = values[kind].copy()
    ae.tl.embed(adata, method=method, n_latent=5)
    assert adata.obsm["X_ae"].shape == (60, 5)
    assert not adata.varm
    del adata.obsm["X_ae"], adata.uns["ae"]
    assert fingerprint(adata) == fingerprint(values[kind])


@pytest.mark.parametrize("method", ["pca", "kernel_pca"])
def test_other_methods_encode_new_samples(values, method):
    from aeverse.methods import MATRIX

    for kind, name in enumerate(("continuous", "binary", "fractions", "counts")):
        data, new = ({"X": _slots.as_modality(a, None, "auto")} for a in (values[kind], values[kind][:7]))
        fitted = MATRIX[method](data, {"X": name}, n_obs=60, n_latent=5, random_state=0)
        np.testing.assert_allclose(fitted.encode(new, 7), fitted.code[:7], rtol=1e-3, atol=1e-4)


def test_kernel_pca_equals_scikit_learn_and_nystroem_comes_near(values, monkeypatch):
    from sklearn.decomposition import KernelPCA

    from aeverse.methods import _kernel_pca

    x, data = values[0].X, {"X": _slots.as_modality(values[0], None, "auto")}
    options = {"n_obs": len(x), "n_latent": 4, "random_state": 0}
    found = _kernel_pca.kernel_pca(data, {"X": "continuous"}, **options)
    standardized = (x - x.mean(0)) / x.std(0)
    width = ((standardized[:, None] - standardized) ** 2).sum(2).mean()
    theirs = KernelPCA(4, kernel="rbf", gamma=1 / width).fit_transform(standardized)
    np.testing.assert_allclose(np.abs(found.code), np.abs(theirs), rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(_kernel_pca, "EXACT_UP_TO", 50)
    monkeypatch.setattr(_kernel_pca, "N_LANDMARKS", 45)
    near = _kernel_pca.kernel_pca(data, {"X": "continuous"}, **options)
    similar = [np.linalg.svd(np.linalg.qr(c - c.mean(0))[0].T @ np.linalg.qr(theirs)[0])[1].min() for c in [near.code]]
    assert similar[0] > 0.8


def test_scvi_codes_counts_and_takes_batches(values, monkeypatch, random_states):
    import scvi

    train = scvi.model.SCVI.train  # two epochs tell whether it runs
    monkeypatch.setattr(scvi.model.SCVI, "train", lambda self, **more: train(self, max_epochs=2, **more))
    adata = values[3].copy()
    adata.obs["batch"] = np.where(np.arange(60) % 2, "a", "b")
    state = random_states()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scvi-tools' and lightning's own
        ae.tl.embed(adata, method="scvi", batch_key="batch", n_latent=4, progress=False)
    assert adata.obsm["X_ae"].shape == (60, 4)
    assert np.isfinite(adata.obsm["X_ae"]).all()
    assert adata.uns["ae"]["X_ae"]["params"]["batch_key"] == "batch"
    assert random_states() == state


def test_scvi_needs_counts(values):
    with pytest.raises(ValueError, match="method='scvi' needs raw counts; these data look continuous"):
        ae.tl.embed(values[0], method="scvi")


@pytest.mark.full_training
def test_the_code_tells_cell_types_apart():
    from sklearn.metrics import silhouette_score

    adata = ae.datasets.simulate_counts(400, 150, n_types=3)
    ae.tl.embed(adata, n_latent=8, n_models=1)
    assert silhouette_score(adata.obsm["X_ae"], adata.obs["cell_type"]) > 0.15


def test_a_target_that_does_not_vary_does_not_outweigh_the_others():
    from aeverse.models._shared._neighbors import target_weights

    target = np.random.default_rng(0).normal(size=(100, 5)) * [4.0, 2.0, 1.0, 0.3, 0.0]
    weights = target_weights(target, 0.5).numpy()
    assert weights.argmax() == 4  # it is still held where it is
    assert weights[4] < 4 * weights[3]


# ---- what was inferred is said -----------------------------------------------------------------------------------
def test_counts_beside_a_logarithm_are_pointed_to():
    adata = ae.datasets.simulate_counts(60, 30)
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    with pytest.warns(UserWarning, match=r"likelihood is 'gaussian', but layers\['counts'\] exists"):
        ae.models.Autoencoder(n_models=1, n_latent=2, max_epochs=1).fit(adata, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({"layer": "counts"}, {}):
            likelihood = "auto" if options else "gaussian"
            model = ae.models.Autoencoder(n_models=1, n_latent=2, max_epochs=1, likelihood=likelihood)
            model.fit(adata, progress=False, **options)


def test_what_was_inferred_goes_to_scanpys_log(monkeypatch):
    import scanpy as sc

    said = []
    monkeypatch.setattr(sc.logging, "info", said.append)
    model = ae.models.Autoencoder(n_models=1, n_latent=2, max_epochs=1)
    model.fit(ae.datasets.simulate_counts(60, 30), progress=False)
    assert said == ["aeverse: inferred from the data: likelihood='nb'"]


# ---- next to nothing to learn from -------------------------------------------------------------------------------
@pytest.mark.parametrize("likelihood", ["nb", "gaussian"])
@pytest.mark.parametrize("shape", [(2, 13), (14, 1), (14, 2)])
def test_a_graph_of_samples_that_are_all_alike(shape, likelihood):
    adata = ae.datasets.simulate_counts(*shape, n_types=1)
    adata.X[:, 1:2] = 0  # of two genes, one is expressed: the profiles of all cells are the same
    ae.tl.embed(adata, likelihood=likelihood, regularizer="graph", n_models=1, n_latent=4, progress=False)
    assert np.isfinite(adata.obsm["X_ae"]).all()


@pytest.mark.parametrize("likelihood", ["nb", "gaussian"])
def test_one_sample_has_no_graph(likelihood):
    adata = ae.datasets.simulate_counts(1, 13, n_types=1)
    with pytest.raises(ValueError, match="holds one"):
        ae.tl.embed(adata, likelihood=likelihood, regularizer="graph", progress=False)
