"""The parts that models are made of, each by itself: settings, features, batches, networks, trees."""

from __future__ import annotations

import dataclasses
import inspect

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

import aeverse as ae
from aeverse.models import Autoencoder, Config
from aeverse.models._matrix import _settings
from aeverse.models._matrix._build import build
from aeverse.models._matrix._learn import learn
from aeverse.models._matrix._read import read
from aeverse.models._matrix._regularizers import penalties
from aeverse.models._matrix._settings import Settings, inherit, resolve
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._features import Features
from aeverse.train import Deviances


# ---- settings ----------------------------------------------------------------------------------------------------
def test_the_signature_shows_all_that_the_configuration_takes():
    parameters = list(inspect.signature(Autoencoder).parameters.values())
    assert {p.name: p.default for p in parameters} == {f.name: f.default for f in dataclasses.fields(Config)}
    assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("likelihood", "n_models", "rate", "precision", "corruption"),
    [("nb", 3, 6e-3, 300.0, "thinning"), ("gaussian", 1, 4e-3, 1.0, "masking"), ("bernoulli", 1, 4e-3, 1.0, "masking")],
)
def test_what_is_left_open_is_decided_by_the_kind_of_data(likelihood, n_models, rate, precision, corruption):
    settings = resolve(Config(), likelihood, 1000)
    assert (settings.n_latent, settings.n_models) == (32, n_models)
    assert (settings.learning_rate, settings.prior_precision) == (rate, precision)
    assert settings.corruption == corruption
    assert settings.learns_precision == (likelihood == "nb")
    left_open = {f.name for f in dataclasses.fields(Settings) if getattr(settings, f.name) is None}
    assert left_open == {"gene_sets", "max_epochs", "max_steps", "target_activity"}  # where None means something


def test_what_was_asked_for_is_done():
    asked = Config(
        n_latent=5, n_models=2, learning_rate=0.1, prior_precision=7.0, corruption="gaussian", regularizer=None
    )
    settings = resolve(asked, "gaussian", 1000)
    for name in ("n_latent", "n_models", "learning_rate", "prior_precision", "corruption", "regularizer"):
        assert getattr(settings, name) == getattr(asked, name)
    assert not resolve(Config(prior_precision=7.0), "nb", 1000).learns_precision
    with pytest.raises(ValueError, match="corruption='gaussian' does not go with 'nb'"):
        resolve(asked, "nb", 1000)


def test_batches_of_few_cells_are_small():
    sizes = [resolve(Config(), "nb", n).batch_size for n in (10, 200, 700, 5000)]
    assert sizes == [32, 32, 87, 128]
    assert resolve(Config(), "gaussian", 200).batch_size == 128
    assert resolve(Config(batch_size=50), "nb", 200).batch_size == 50


def test_auto_is_denoising_for_all_kinds_of_data():
    auto = Config(regularizer="auto")
    assert resolve(auto, "nb", 1000).regularizers == ("denoising",)
    assert resolve(auto, "gaussian", 1000).regularizers == ("denoising",)
    named = resolve(Config(regularizer="auto", gene_sets={"a": ["x"], "b": ["y"]}), "nb", 1000)
    assert (named.regularizers, named.n_latent, named.n_models) == (("denoising",), 2, 1)
    assert named.dimensions_mean_something
    assert not named.may_rotate


def test_a_third_at_least_of_the_code_is_not_guided():
    for n in range(2, 60):
        for likelihood, most, share in (("nb", 20, 2 / 3), ("gaussian", 6, 1 / 2)):
            n_guided = resolve(Config(regularizer="graph", n_latent=n), likelihood, 1000).n_guided
            assert 0 < n_guided == min(most, int(n * share + 1e-9))
    assert resolve(Config(), "nb", 1000).n_guided == 0


def test_training_takes_so_many_steps_or_so_many_epochs(monkeypatch):
    monkeypatch.setattr(_settings, "N_STEPS", 100)
    settings = resolve(Config(), "nb", 1000)
    assert [settings.n_steps(n) for n in (1, 10, 50)] == [100, 100, 400]
    assert resolve(Config(max_epochs=3), "nb", 1000).n_steps(50) == 150
    assert settings.n_steps(10_000) == 2000, "a million cells take no more steps than thirty thousand"
    assert settings.schedule(100, keep_start=False).judge_every == 25
    assert resolve(Config(regularizer="graph"), "nb", 1000).schedule(100, keep_start=False).judge_every == 100
    assert resolve(Config(regularizer="graph"), "nb", 1000).schedule(100, keep_start=True).judge_every == 25


def test_a_model_that_starts_from_another_is_the_same_net_and_learns_more_slowly():
    source = resolve(Config(n_latent=7, regularizer="graph"), "nb", 1000)
    settings = inherit(Config(n_latent=3, max_epochs=2, random_state=5), source, 1000)
    assert (settings.n_latent, settings.regularizers, settings.likelihood) == (7, ("graph",), "nb")
    assert (settings.max_epochs, settings.random_state) == (2, 5)
    assert settings.learning_rate < source.learning_rate / 2


def test_settings_survive_their_tree_and_damaged_ones_are_refused():
    settings = resolve(Config(n_hidden=(8, 4), regularizer=("sparse", "denoising")), "nb", 1000)
    header, _ = ae.io.pack(settings.tree())
    assert Settings.from_tree(header) == settings
    with pytest.raises(ValueError, match=r"models.Config, argument decoder: found 'cubic'; pass 'linear' or 'mlp'"):
        Settings.from_tree({**header, "decoder": "cubic"})


# ---- features and batches ------------------------------------------------------------------------------------------
FEATURES = Features(pd.Index(list("abcdefghijkl")), np.arange(2, 12))


def test_features_are_found_by_name_and_those_in_order_are_left_alone():
    assert FEATURES.positions_in(pd.Index(list("abcdefghijkl")), "-") is None
    names = pd.Index(["x", *"lkjihgfedcba"])
    positions = FEATURES.positions_in(names, "-")
    assert list(names[positions]) == list(FEATURES.names)


def test_missing_features_are_counted_among_those_that_the_encoder_reads():
    messages: list[str] = []
    positions = FEATURES.positions_in(pd.Index(list("abcdef")), "the others are zero", messages.append)
    assert positions.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1, -1, -1]
    assert messages == ["4 of the 10 features that the encoder reads were found; the others are zero."]
    positions = FEATURES.positions_in(pd.Index(list("cdefghijkl")), "-", messages.append)
    assert positions[:3].tolist() == [-1, -1, 0]
    assert len(messages) == 1  # nothing that is read is missing
    with pytest.raises(ValueError, match="0 of the 10 features that the encoder reads were found; do the names match"):
        FEATURES.positions_in(pd.Index(list("abxyz")), "-")
    with pytest.raises(ValueError, match="not unique"):
        FEATURES.positions_in(pd.Index(list("aab")), "-")


def _told(batch, age=None):
    columns = {"batch": batch} | ({} if age is None else {"age": age})
    index = [str(i) for i in range(len(batch))]
    return ad.AnnData(np.zeros((len(batch), 1), np.float32), obs=pd.DataFrame(columns, index=index))


def test_batches_are_known_by_name():
    known, table = Covariates.read(_told(["b", "a", "b"]), "batch", None)
    matrix = known.matrix(table)
    assert (known.batches, known.batch_codes(matrix).tolist()) == (["a", "b"], [1, 0, 1])
    assert matrix.tolist() == [[0, 1], [1, 0], [0, 1]]
    with pytest.warns(UserWarning, match=r"batches \['new'\] are not known to the model"):
        table = known.table(_told(["new", "b"]))
    assert known.matrix(table).tolist() == [[0.5, 0.5], [0, 1]]
    assert known.matrix(table, unknown=0.0).tolist() == [[0, 0], [0, 1]]
    assert (known.average(1, "b").tolist(), known.average(1).tolist()) == ([[0, 1]], [[0.5, 0.5]])
    assert Covariates.from_tree(ae.io.pack(known.tree())[0]) == known


def test_the_batch_comes_first_then_categories_then_standardized_numbers():
    adata = _told(["a", "b"], [1.0, 3.0])
    adata.obs["smoker"] = [True, False]
    known, table = Covariates.read(adata, "batch", ["age", "smoker"])
    assert (known.keys, known.others, known.n_columns) == (["batch", "smoker", "age"], ["smoker", "age"], 5)
    assert known.matrix(table).tolist() == [[1, 0, 0, 1, -1], [0, 1, 1, 0, 1]]
    assert known.average(1, "a").tolist() == [[1, 0, 0.5, 0.5, 0]]
    assert Covariates.from_tree(ae.io.pack(known.tree())[0]) == known


def test_columns_may_be_missing_only_where_that_is_said():
    known, _ = Covariates.read(_told(["a", "b"], [1.0, 3.0]), "batch", "age")
    nothing = ad.AnnData(np.zeros((2, 1), np.float32))
    with pytest.raises(KeyError, match="'batch' is not a column"):
        known.table(nothing)
    with pytest.warns(UserWarning, match="'(batch|age)' is not a column of obs"):
        table = known.table(nothing, may_lack_columns=True)
    assert known.matrix(table).tolist() == [[0.5, 0.5, 0]] * 2


def test_without_a_key_there_are_no_covariates():
    known, table = Covariates.read(_told(["a", "b"]), None, None)
    assert (known, table, known.batches, known.matrix(None)) == (Covariates(), None, None, None)
    assert (known.table(_told(["a"])), known.average(2)) == (None, None)
    with pytest.raises(KeyError, match="batches are: none"):
        known.average(1, "a")


# ---- the verdict -----------------------------------------------------------------------------------------------------
def test_deviances_say_what_is_explained_and_where_nothing_can_be_said():
    deviances = Deviances(np.array([1.0, 3.0, 2.0, 0.0]), np.array([4.0, 4.0, 2.0, 0.0]), np.array([5, 0, 1, 0]))
    assert deviances.explained == pytest.approx(0.4)
    np.testing.assert_allclose(deviances.explained_by_feature, [0.75, np.nan, 0.0, np.nan])
    assert Deviances(np.zeros(2), np.zeros(2), np.zeros(2)).explained == 0.0


# ---- networks ----------------------------------------------------------------------------------------------------------
def _network(adata, **config):
    """A network before training, its samples, and what was held out of them."""
    data = read(adata, None, config.pop("likelihood", "auto"))
    settings = resolve(Config(n_latent=3, n_models=2, **config), data.likelihood, 1000)
    seen, heldout = data.hold_out(0.1, np.random.default_rng(0))
    features = Features(pd.Index(adata.var_names), np.arange(adata.n_vars))
    samples = seen.samples(features.inputs, None, torch.device("cpu"))
    parts = data.net_parts(settings, samples, data)
    generator = torch.Generator().manual_seed(0)
    return build(settings, features, Covariates(), parts, generator, n_samples=len(samples)), samples, heldout


def _counts(n=80, p=30, seed=0):
    """Shallow counts of a world with three programs: a cell's own counts alone say little."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(size=(n, 3)) @ rng.normal(size=(3, p)))
    x = rng.poisson(60 * rate / rate.sum(1, keepdims=True))
    return ad.AnnData(sp.csr_matrix(x.astype(np.float32)))


def _values(n=80, p=12, seed=0):
    rng = np.random.default_rng(seed)
    return ad.AnnData(
        (rng.normal(size=(n, 3)) @ rng.normal(size=(3, p)) + 0.3 * rng.normal(size=(n, p))).astype(np.float32)
    )


@pytest.fixture(params=["nb", "poisson", "gaussian", "fractions", "bernoulli"])
def network(request):
    if request.param in ("nb", "poisson"):
        return _network(_counts(), likelihood=request.param)
    x = _values().X
    x = {"gaussian": x, "fractions": 1 / (1 + np.exp(-x)), "bernoulli": (x > 0.5) * np.float32(1)}[request.param]
    return _network(ad.AnnData(x), likelihood=request.param)


def test_a_verdict_changes_nothing(network):
    network, samples, heldout = network
    network.split_rare()
    network.refresh(samples)
    before = {k: v.copy() for k, v in ae.io.pack(network.tree())[1].items()}
    one, other = network.deviances(samples, heldout), network.deviances(samples, heldout)
    np.testing.assert_array_equal(one.model, other.model)
    after = ae.io.pack(network.tree())[1]
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_training_explains_more_of_what_was_held_out(network):
    network, samples, heldout = network
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    history = learn(
        network,
        samples,
        samples,
        heldout,
        rng,
        generator,
        keep_start=True,
        callback=None,
        checkpoint=None,
        progress=False,
    )
    # measured: counts, whose posterior needs no training, from 0.436 to 0.447 and 0.459; other values from 0
    gain = history["heldout"][-1] - history["heldout"][0]
    assert gain > (0.004 if network.settings.is_count else 0.1)
    assert network.deviances(samples, heldout).explained > history["heldout"][0]


def test_rotating_and_refreshing_change_nothing_that_is_decoded(network):
    network, samples, _ = network
    network.split_rare()
    for member in network.ensemble.members:
        torch.nn.init.normal_(member.decoder.loadings, std=0.3)
    before = [mean.clone() for *_, mean in network.means(samples)]
    code = network.encode(samples)
    network.rotate(samples)
    network.refresh(samples)
    assert not np.allclose(network.encode(samples), code, atol=1e-3)
    for one, other in zip(before, (mean for *_, mean in network.means(samples)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_means_of_given_codes_are_those_of_the_samples(network):
    network, samples, _ = network
    own = torch.cat([mean for *_, mean in network.means(samples)])
    given = torch.cat([mean for *_, mean in network.means(samples, network.encode(samples))])
    torch.testing.assert_close(own, given)


def test_only_count_networks_calibrate_and_what_they_report_is_from_before():
    network, samples, heldout = _network(ae.datasets.simulate_counts(200, 30))
    network.split_rare()
    network.refresh(samples)
    plain = network.deviances(samples, heldout)
    assert network.calibrate(samples, heldout).explained == plain.explained
    assert network.posterior.calibration.is_fitted
    assert network.deviances(samples, heldout).explained > plain.explained


def test_refreshing_fits_the_dispersions_that_training_goes_on_with():
    network, samples, _ = _network(ae.datasets.simulate_counts(80, 30))
    before = network.ensemble.members[0].likelihood.dispersion.clone()
    network.refresh(samples, quick=True)
    for member in network.ensemble.members:
        torch.testing.assert_close(member.likelihood.dispersion, network.posterior.constant_theta)
    assert not torch.equal(member.likelihood.dispersion, before)


def test_penalties_are_those_of_the_regularizers():
    for regularizer, names in (
        (None, []),
        ("denoising", []),
        ("sparse", ["Sparsity"]),
        (("contractive", "variational"), ["Contraction", "Divergence"]),
    ):
        costs = penalties(resolve(Config(regularizer=regularizer), "nb", 1000), 10.0, 100, None)
        assert [type(cost).__name__ for cost in costs] == names
    [cost] = penalties(resolve(Config(regularizer="sparse", target_activity=0.1), "nb", 1000), 10.0, 100, None)
    assert type(cost).__name__ == "TargetActivity"


# ---- trees -----------------------------------------------------------------------------------------------------------
LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5)
ARRAYS = st.builds(lambda n: np.arange(n, dtype=np.float32), st.integers(0, 3))
KEYS = st.text("ab./ $'", max_size=4)
TREES = st.recursive(LEAVES | ARRAYS, lambda node: st.lists(node, max_size=3) | st.dictionaries(KEYS, node, max_size=3))


def _same(one, other) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return [*one] == [*other] and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


@given(tree=st.dictionaries(KEYS, TREES, max_size=4))
def test_trees_survive_a_file(tree, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "tree.ae"
    ae.io.save_arrays(path, "Tree", *ae.io.pack(tree))
    header, arrays, _ = ae.io.load_arrays(path)
    assert _same(tree, ae.io.unpack(header, arrays))


def test_a_missing_array_is_an_error():
    header, arrays = ae.io.pack({"a": {"x": np.ones(2)}, "b": [np.zeros(1)]})
    assert sorted(arrays) == ["a.x", "b.0"]
    for name in arrays:
        with pytest.raises(KeyError):
            ae.io.unpack(header, {k: v for k, v in arrays.items() if k != name})


# ---- the estimator -----------------------------------------------------------------------------------------------------
def test_a_refit_that_fails_leaves_no_model(small):
    model = Autoencoder(n_models=1, n_latent=3, max_epochs=1).fit(small)
    with pytest.raises(KeyError):
        model.fit(small, batch_key="nowhere")
    for ask in (lambda: model.settings, lambda: model.history, lambda: model.encode(small), lambda: model.net):
        with pytest.raises(RuntimeError, match="its last fit did not end"):
            ask()


def test_models_say_what_they_are(model):
    assert repr(Autoencoder(n_latent=3)) == "Autoencoder(n_latent=3), not fitted"
    assert repr(model).startswith("Autoencoder(100 features -> 8 dimensions, 'nb', regularizer='denoising'")
    assert f"{model.heldout_deviance_explained:.1%}" in repr(model)


def test_models_move(model, small, tmp_path):
    model.save(tmp_path / "m.ae")
    loaded = ae.models.load(tmp_path / "m.ae")
    assert loaded.to("cpu") is loaded
    np.testing.assert_array_equal(loaded.encode(small), model.encode(small))
    loaded.fitted.to(torch.device("meta"))
    assert {p.device.type for p in loaded.net.parameters()} == {loaded.device.type} == {"meta"}
    assert loaded.fitted.network.posterior.theta.device.type == "meta"
    with pytest.raises(ValueError, match="is not a device"):
        model.to("nowhere")
    with pytest.raises(RuntimeError, match="not fitted"):
        Autoencoder().to("cpu")


def test_tools_move_the_model_that_they_are_given(small):
    model = Autoencoder(n_models=1, n_latent=3, max_epochs=1).fit(small)
    for tool in (ae.tl.denoise, ae.tl.embed, ae.tl.dropouts):
        with pytest.raises(ValueError, match="device='nowhere' is not a device"):
            tool(small, model=model, device="nowhere", copy=True)
    before = ae.tl.embed(small, model=model, copy=True).obsm["X_ae"]
    np.testing.assert_array_equal(ae.tl.embed(small, model=model, device="cpu", copy=True).obsm["X_ae"], before)


def test_the_score_is_that_of_new_samples(small):
    adata = _counts(400)
    model = Autoencoder(likelihood="nb", n_models=1, n_latent=4, max_epochs=40).fit(adata[:300])
    score = model.score(adata[300:])
    assert score == model.score(adata[300:]) != model.score(adata[300:], random_state=1)
    as_in_training = model.score(adata[300:], share_heldout=0.05)
    assert as_in_training == pytest.approx(model.heldout_deviance_explained, abs=0.1)  # of few molecules
    shuffled = ad.AnnData(sp.csr_matrix(np.random.default_rng(0).permuted(adata.X.toarray(), axis=0)), var=adata.var)
    assert model.score(shuffled) < score - 0.05
    values = _values(200)
    model = Autoencoder(n_latent=3, max_epochs=30).fit(values[:150])
    assert 0.2 < model.score(values[150:]) < 1  # measured: 0.33
