import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aeverse as ae
from aeverse.models import Autoencoder, Config, load


@pytest.fixture(scope="module")
def batched(pbmc):
    adata = pbmc[:100, :60].copy()
    adata.obs["batch"] = ["a", "b"] * 50
    return Autoencoder(n_models=1, n_latent=3, max_epochs=2).fit(adata, batch_key="batch"), adata


# ---- configuration ---------------------------------------------------------------------------------------------
def test_the_configuration_is_frozen_and_checked():
    config = Config(n_hidden=[16, 8], random_state=np.int64(3))
    assert config.n_hidden == (16, 8)
    assert type(config.random_state) is int
    with pytest.raises(AttributeError):
        config.n_latent = 3
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_layers'"):
        Autoencoder(n_layers=3)
    for wrong in (
        {"n_models": 0},
        {"batch_size": 1.5},
        {"max_epochs": 0},
        {"random_state": -1},
        {"share_heldout": 1.0},
    ):
        with pytest.raises((TypeError, ValueError), match=f"models.Autoencoder, argument {next(iter(wrong))}: found"):
            Autoencoder(**wrong)


def test_what_is_not_fitted_says_so(small, tmp_path):
    model = Autoencoder()
    for call in (
        lambda: model.encode(small),
        lambda: model.decode(np.ones((2, 96))),
        lambda: model.save(tmp_path / "m"),
    ):
        with pytest.raises(RuntimeError, match="not fitted"):
            call()


def test_a_fit_that_was_interrupted_is_no_fit(small, monkeypatch, tmp_path):
    import torch

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    model = Autoencoder(n_models=1, n_latent=3, max_epochs=1).fit(small)
    monkeypatch.setattr(torch.Tensor, "backward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(small)
    with pytest.raises(RuntimeError, match="its last fit did not end"):
        model.encode(small)


def test_fit_changes_neither_the_data_nor_global_random_states(small, fingerprint, random_states):
    before, state = fingerprint(small), random_states()
    model = Autoencoder(n_models=1, n_latent=3, max_epochs=1)
    assert model.fit(small) is model
    assert (fingerprint(small), random_states()) == (before, state)


# ---- encode and decode -----------------------------------------------------------------------------------------
def test_order_of_genes_does_not_matter(small, model):
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_allclose(model.encode(small[:, order]), model.encode(small), rtol=1e-4, atol=1e-5)


def test_further_genes_are_ignored(small, pbmc, model):
    np.testing.assert_allclose(model.encode(pbmc[:100, :300]), model.encode(small), rtol=1e-4, atol=1e-5)


def test_missing_genes_are_counted(small, model):
    read = len(model.inputs)
    found = int((model.inputs < 60).sum())
    with pytest.warns(UserWarning, match=f"{found} of the {read} features that the encoder reads were found"):
        code = model.encode(small[:, :60])
    x = small.X.toarray()
    x[:, 60:] = 0
    small.X = x
    np.testing.assert_allclose(code, model.encode(small), rtol=1e-4, atol=1e-5)


def test_data_without_the_genes_are_refused(pbmc, small, model):
    with pytest.raises(
        ValueError, match=f"0 of the {len(model.inputs)} features that the encoder reads were found; do the names"
    ):
        model.encode(pbmc[:, 200:])
    small.var_names = ["double"] * 100
    with pytest.raises(ValueError, match="feature names are not unique and differ"):
        model.encode(small)


def test_no_cells_give_no_codes(small, model):
    assert model.encode(small[:0]).shape == (0, 8)
    assert model.denoise(small[:0]).shape == (0, 100)
    assert model.decode(np.zeros((0, 8))).shape == (0, 100)


def test_means_add_up_to_the_library(small, model):
    code = model.encode(small)
    np.testing.assert_allclose(model.decode(code).sum(1), 1e4, rtol=1e-5)
    library = np.arange(100)
    means = model.decode(code, library=library)
    np.testing.assert_allclose(means.sum(1), library, rtol=1e-5)
    names = list(small.var_names[[7, 3]])
    np.testing.assert_allclose(model.decode(code, genes=names, library=library), means[:, [7, 3]])
    np.testing.assert_allclose(model.decode(code, genes=names[0], library=library), means[:, [7]])


def test_wrong_codes_libraries_and_genes_are_named(small, model):
    code = model.encode(small)
    for call, error, message in (
        (
            lambda: model.decode(code[:, :3]),
            ValueError,
            r"code has shape \(100, 3\); this model's codes have 8 columns",
        ),
        (lambda: model.decode(code, library=np.ones(7)), ValueError, "one for each of the 100 codes"),
        (lambda: model.decode(code, library=-1), ValueError, "argument library: found -1; pass a number of at least 0"),
        (lambda: model.decode(code, genes=["NOPE"]), KeyError, "genes not found"),
        (lambda: model.decode(code, batch="a"), KeyError, "batch='a' is not known to this model; batches are: none"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_batches_are_told_to_encoder_and_decoder(batched):
    model, adata = batched
    code = model.encode(adata)
    a, b, average = (model.decode(code, batch=name) for name in ("a", "b", None))
    assert not np.allclose(a, b)
    assert ((average >= np.minimum(a, b) * 0.99) & (average <= np.maximum(a, b) * 1.01)).mean() > 0.9
    with pytest.raises(KeyError, match=r"batch='c' is not known to this model; batches are: \['a', 'b'\]"):
        model.decode(code, batch="c")


def test_new_batches_are_averaged_with_a_warning_and_missing_ones_refused(batched):
    model, adata = batched
    adata = adata.copy()
    adata.obs["batch"] = "new"
    with pytest.warns(UserWarning, match=r"batches \['new'\] are not known to the model"):
        assert np.isfinite(model.encode(adata)).all()
    del adata.obs["batch"]
    with pytest.raises(KeyError, match=r"'batch' is not a column of obs"):
        model.encode(adata)


def test_the_posterior_lies_between_the_count_and_the_mean(small, model):
    x, library = small.X.toarray(), np.asarray(small.X.sum(1)).ravel()
    prior, posterior = model.decode(model.encode(small), library=library), model.denoise(small)
    between = (posterior >= np.minimum(x, prior) * 0.8 - 0.05) & (posterior <= np.maximum(x, prior) * 1.25 + 0.05)
    assert between.mean() > 0.98  # up to the scaling to the library size


def test_heldout_deviance_is_reported_by_gene_and_in_all(model):
    assert model.deviance_explained.shape == (100,)
    assert np.isfinite(model.heldout_deviance_explained)
    assert len(model.history["heldout"]) == len(model.history["loss"])


# ---- files -----------------------------------------------------------------------------------------------------
def test_save_and_load_keep_everything(small, model, batched, tmp_path):
    for fitted, data in ((model, small), batched):
        fitted.save(tmp_path / "m.ae")
        again = load(str(tmp_path / "m.ae"))
        assert again.config == fitted.config
        assert again.history == fitted.history
        assert (again.batch_key, again.batches) == (fitted.batch_key, fitted.batches)
        assert again.heldout_deviance_explained == fitted.heldout_deviance_explained
        np.testing.assert_array_equal(again.deviance_explained, fitted.deviance_explained)
        np.testing.assert_array_equal(again.encode(data), fitted.encode(data))
        np.testing.assert_array_equal(again.denoise(data), fitted.denoise(data))
        again.save(tmp_path / "again.ae")
        assert (tmp_path / "again.ae").read_bytes() == (tmp_path / "m.ae").read_bytes()


def test_a_new_process_gives_the_same_bits(small, model, tmp_path):
    model.save(tmp_path / "m.ae")
    small.write_h5ad(tmp_path / "a.h5ad")
    code = (
        "import sys, anndata, numpy, aeverse as ae, torch; torch.set_num_threads(int(sys.argv[2]));"
        "m, a = ae.models.load(sys.argv[1] + '/m.ae'), anndata.read_h5ad(sys.argv[1] + '/a.h5ad');"
        "z = m.encode(a); numpy.savez(sys.argv[1] + '/out.npz', z=z, mu=m.decode(z), x=m.denoise(a))"
    )
    import torch

    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(torch.get_num_threads())], check=True)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["z"], model.encode(small))
        np.testing.assert_array_equal(out["mu"], model.decode(out["z"]))
        np.testing.assert_array_equal(out["x"], model.denoise(small))


def test_incomplete_models_are_refused(model, tmp_path):
    model.save(tmp_path / "m.ae")
    config, arrays, kind = ae.io.load_arrays(tmp_path / "m.ae")
    for name in arrays:
        ae.io.save_arrays(tmp_path / "less.ae", kind, config, {k: a for k, a in arrays.items() if k != name})
        with pytest.raises(ValueError, match="is not a complete Autoencoder"):
            load(tmp_path / "less.ae")
    paths = [(name,) for name in config] + [("fit", name) for name in config["fit"]]
    paths += [
        ("fit", part, name)
        for part in ("settings", "features", "covariates", "network", "reference")
        for name in config["fit"][part]
    ]
    for *above, name in paths:
        less = copy.deepcopy(config)
        node = less
        for key in above:
            node = node[key]
        del node[name]
        ae.io.save_arrays(tmp_path / "less.ae", kind, less, arrays)
        with pytest.raises(ValueError, match="is not a complete Autoencoder"):
            load(tmp_path / "less.ae")
    config["fit"]["settings"]["n_latent"] = 7
    ae.io.save_arrays(tmp_path / "more.ae", kind, config, arrays)
    with pytest.raises(ValueError, match="is not a complete Autoencoder"):
        load(tmp_path / "more.ae")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_damaged_models_load_or_are_refused_but_never_crash(model, tmp_path, data):
    model.save(tmp_path / "m.ae")
    content = bytearray((tmp_path / "m.ae").read_bytes())
    header = int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header + 8))] = data.draw(st.integers(0, 255))
    (tmp_path / "bad.ae").write_bytes(content)
    try:
        load(tmp_path / "bad.ae")
    except ValueError as error:
        assert "bad.ae" in str(error) or "must be" in str(error)  # noqa: PT017


def test_files_hold_data_only(model, tmp_path):
    model.save(tmp_path / "m.ae")
    with safetensors.safe_open(tmp_path / "m.ae", framework="np") as file:
        content = json.loads(file.metadata()["aeverse"])
    assert content["kind"] == "Autoencoder"
    assert content["config"]["config"]["n_models"] == 2


def test_training_ends_by_patience_by_steps_or_where_the_callback_says(small):
    def last_step(callback=None, **options):
        model = ae.models.Autoencoder(n_models=1, n_latent=4, **options)
        return model.fit(small, callback=callback, progress=False).history["step"][-1]

    assert last_step(max_steps=30) == 30
    assert last_step(max_steps=30, max_epochs=2) == 4
    assert last_step(max_steps=2000, patience=1) < 2000
    assert last_step(lambda history: True) == 88
