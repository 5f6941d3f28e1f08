"""The sampling noise of a cell's place: what drawing its molecules anew does."""

from __future__ import annotations

import numpy as np
import pytest

import aeverse as ae


@pytest.fixture(scope="module")
def halves():
    """Simulated cells whose depths differ tenfold, in two independent halves of their molecules, and a model of them."""
    rng = np.random.default_rng(0)
    adata = ae.datasets.simulate_counts(400, 150, n_types=3)
    share = rng.uniform(0.1, 1, (adata.n_obs, 1))
    adata.X = rng.binomial(adata.X.toarray().astype(int), share).astype(np.float32)
    model = ae.models.Autoencoder(n_models=2, n_latent=4, max_epochs=5).fit(adata)
    ae.pp.thin_counts(adata, 0.5)
    return adata, model


def test_two_halves_differ_by_what_is_said(halves):
    adata, model = halves
    one, sd_one = model.encode(adata, layer="thinned", return_sd=True)
    other, sd_other = model.encode(adata, layer="thinned_rest", return_sd=True)
    scaled = (one - other) / np.hypot(sd_one, sd_other)
    depth = np.asarray(adata.X.sum(1)).ravel()
    for cells in np.array_split(np.argsort(depth), 3):
        assert 0.75 < np.sqrt((scaled[cells] ** 2).mean()) < 1.3
    assert 0.3 < np.sqrt((sd_one**2).mean()) < 4  # the unit is that of sampling noise


def test_deeper_cells_are_surer(halves):
    adata, model = halves
    code, sd = model.encode(adata, return_sd=True)
    np.testing.assert_array_equal(code, model.encode(adata))
    assert sd.shape == code.shape
    depth = np.asarray(adata.X.sum(1)).ravel()
    shallow, deep = (np.sqrt((sd[cells] ** 2).mean()) for cells in np.array_split(np.argsort(depth), 2))
    assert shallow > 1.15 * deep


def test_it_is_written_on_request(small, few_steps):
    small.X = small.X.multiply((np.arange(100) != 3)[:, None]).tocsr()
    ae.tl.embed(small, n_models=1, n_latent=4, uncertainty=True, key_added="X_mine")
    assert small.obsm["X_mine_sd"].shape == small.obsm["X_mine"].shape
    assert np.isnan(small.obsm["X_mine_sd"][3]).all()
    assert (np.delete(small.obsm["X_mine_sd"], 3, 0) > 0).all()
    ae.tl.denoise(small, n_models=1, n_latent=4, uncertainty=True)
    assert small.obsm["X_ae_sd"].shape == small.obsm["X_ae"].shape
    ae.tl.denoise(small, n_models=1, n_latent=4)
    assert "X_ae_sd" not in small.obsm


def test_only_counts_have_molecules(small, few_steps):
    values = small.copy()
    values.X = np.log1p(small.X.toarray())
    with pytest.raises(ValueError, match="needs a model of counts"):
        ae.tl.embed(values, n_models=1, n_latent=4, likelihood="gaussian", uncertainty=True)
    with pytest.raises(ValueError, match="cannot use uncertainty="):
        ae.tl.embed(small, method="pca", uncertainty=True)
    assert "X_ae" not in values.obsm
