"""`Autoencoder.fit(init=)`: starting from a model of other data."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from aeverse.models import Autoencoder, load


def _cells(n, seed, genes=range(80)):
    """Cells of one world: 80 genes, five programs."""
    world = np.random.default_rng(0)
    loadings = world.normal(size=(5, 80))
    rng = np.random.default_rng(seed)
    rate = np.exp(0.7 * rng.normal(size=(n, 5)) @ loadings)
    x = rng.poisson(300 * rate / rate.sum(1, keepdims=True)).astype(np.float32)
    adata = ad.AnnData(sp.csr_matrix(x), var=pd.DataFrame(index=[f"g{i}" for i in range(80)]))
    return adata[:, [f"g{i}" for i in genes]].copy()


@pytest.fixture(scope="module")
def source():
    return Autoencoder(likelihood="nb", n_latent=8, n_models=1, max_epochs=30).fit(_cells(600, 1))


def test_without_steps_the_net_is_that_of_the_source(source):
    cells = _cells(40, 2)
    fitted = Autoencoder(max_epochs=1).fit(cells, init=source)
    assert fitted.settings.n_latent == 8
    assert fitted.config.n_latent is None  # what was asked for
    means = [m.decode(m.encode(cells), library=300) for m in (source, fitted)]
    assert np.corrcoef(*(np.log(m).ravel() for m in means))[0, 1] > 0.98


def test_a_guided_model_keeps_its_own_graph():
    guided = Autoencoder(regularizer=("denoising", "graph"), likelihood="nb", n_latent=6, n_models=1, max_epochs=2)
    guided.fit(_cells(200, 1))
    cells = _cells(40, 2)
    fitted = Autoencoder(max_epochs=1, learning_rate=1e-9).fit(cells, init=guided)
    ours, theirs = (m.encode(cells)[:, : guided.n_guided] for m in (fitted, guided))
    np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())


def test_few_cells_gain_from_a_model_of_many(source):
    few, new = _cells(40, 3), _cells(300, 4)
    truth = new.X.toarray()

    def loss(model):
        mean = model.decode(model.encode(new), library=truth.sum(1))
        return (mean - truth * np.log(mean)).sum()

    scratch = Autoencoder(likelihood="nb", n_latent=8, n_models=1, max_epochs=80).fit(few)
    started = Autoencoder(max_epochs=20).fit(few, init=source)
    assert loss(started) < loss(scratch)


def test_genes_are_matched_by_name(source, tmp_path):
    order = [*range(79, 20, -1)]
    some = _cells(40, 5, order)
    some = ad.concat([some, ad.AnnData(some.X[:, :5], obs=some.obs, var=pd.DataFrame(index=list("abcde")))], axis=1)
    fitted = Autoencoder(max_epochs=1).fit(some, init=source)
    assert set(fitted.var_names[fitted.inputs]) <= {f"g{i}" for i in order}
    ours, theirs = (m.loadings() for m in (fitted, source))
    shared = [f"g{i}" for i in order]
    axes = np.linalg.lstsq(theirs.loc[shared, :].to_numpy()[:, :8], ours.loc[shared, :].to_numpy()[:, :8], rcond=None)[
        0
    ]
    near = theirs.loc[shared].to_numpy()[:, :8] @ axes
    assert np.corrcoef(near.ravel(), ours.loc[shared].to_numpy()[:, :8].ravel())[0, 1] > 0.95
    fitted.save(tmp_path / "m.ae")
    np.testing.assert_array_equal(load(tmp_path / "m.ae").encode(some), fitted.encode(some))
    strange = ad.AnnData(some.X, var=pd.DataFrame(index=[f"x{i}" for i in range(some.n_vars)]))
    with pytest.raises(ValueError, match=r"0 of the \d+ features that the encoder reads were found"):
        Autoencoder().fit(strange, init=source)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "fractions"])
@pytest.mark.parametrize("decoder", ["linear", "mlp"])
def test_other_likelihoods_start_from_a_model_too(likelihood, decoder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 12))
    x = {"gaussian": x, "bernoulli": (x > 0) * 1.0, "fractions": 1 / (1 + np.exp(-x))}[likelihood]
    adata = ad.AnnData(x.astype(np.float32))
    adata.obs["batch"] = ["a", "b"] * 40
    init = Autoencoder(likelihood=likelihood, decoder=decoder, n_latent=4, max_epochs=40).fit(adata, batch_key="batch")
    fitted = Autoencoder(max_epochs=1, learning_rate=1e-9).fit(adata[:30], init=init)
    code = fitted.encode(adata)
    expected = init.decode(init.encode(adata))
    assert np.corrcoef(fitted.decode(code).ravel(), expected.ravel())[0, 1] > 0.9
