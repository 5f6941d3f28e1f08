"""What likelihoods say of means, deviances, draws and noise, against float64 references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from aeverse.nn import LIKELIHOODS, SparseRows

N, P, K = 4000, 5, 3
FEATURES = {"center": np.array([-3.0, 0, 1, 5, 40]), "scale": np.array([0.5, 1, 2, 3, 8])}


def tensor(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


def gaussian():
    return LIKELIHOODS["gaussian"](tensor(FEATURES["center"]), tensor(FEATURES["scale"]))


@pytest.fixture
def decoder():
    """Hidden values, loadings and a bias that is not zero."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, K)), rng.normal(size=(P, K)), rng.normal(size=P)


def test_gaussian_mean_is_the_decoder_in_the_units_of_the_data(decoder):
    hidden, weight, bias = decoder
    expected = (hidden @ weight.T + bias) * FEATURES["scale"] + FEATURES["center"]
    assert np.allclose(gaussian().mean(*map(tensor, decoder)), expected, rtol=1e-4)


def test_bernoulli_mean_is_the_logistic_of_the_decoder(decoder):
    hidden, weight, bias = decoder
    expected = 1 / (1 + np.exp(-(hidden @ weight.T + bias)))
    assert np.allclose(LIKELIHOODS["bernoulli"]().mean(*map(tensor, decoder)), expected, atol=1e-6)


def test_gaussian_noise_is_the_running_mean_square_of_observed_entries(decoder):
    likelihood, x = gaussian().train(), np.random.default_rng(1).normal(2, 3, (7, P))
    x[0, :3] = np.nan
    hidden, weight, bias = decoder
    error = hidden @ weight.T + bias - (x - FEATURES["center"]) / FEATURES["scale"]
    loss = likelihood.loss(*map(tensor, decoder), tensor(x))
    assert np.isclose(loss.item(), 0.5 * np.nansum(error**2), rtol=1e-4)
    assert np.isclose(likelihood.noise.item(), 0.95 + 0.05 * np.nanmean(error**2), rtol=1e-4)
    assert likelihood.noise.dtype == torch.float32


def test_gaussian_noise_stays_where_nothing_is_observed(decoder):
    likelihood = gaussian().train()
    likelihood.loss(*map(tensor, decoder), torch.full((7, P), torch.nan))
    assert np.isclose(likelihood.noise.item(), 0.95)


def test_bernoulli_deviance_is_that_of_scipy_also_at_certain_means():
    rng = np.random.default_rng(2)
    x, mean = rng.integers(0, 2, (50, P)).astype(float), rng.uniform(0.05, 0.95, (50, P))
    expected = -2 * stats.bernoulli.logpmf(x, mean).sum(0)
    assert np.allclose(LIKELIHOODS["bernoulli"]().deviance(tensor(x), tensor(mean)), expected, rtol=1e-4)
    certain = tensor([[0.0, 1.0, 0.0, 1.0]])
    deviance = LIKELIHOODS["bernoulli"]().deviance(tensor([[0.0, 1.0, 1.0, 0.0]]), certain)
    assert torch.isfinite(deviance).all()
    assert (deviance[:2] < 1e-4).all()
    assert (deviance[2:] > 20).all()


def test_poisson_deviance_of_dense_and_sparse_counts_is_the_reference():
    import scipy.sparse as sp

    rng = np.random.default_rng(3)
    mean = rng.gamma(1, 2, (60, P)) + 0.01
    x = rng.poisson(mean).astype(float)
    expected = 2 * (np.where(x > 0, x * np.log(np.maximum(x, 1) / mean), 0) - x + mean).sum(0)
    poisson = LIKELIHOODS["poisson"]
    assert np.allclose(poisson.deviance(tensor(x), tensor(mean)), expected, rtol=1e-4)
    sparse = SparseRows.from_scipy(sp.csr_matrix(x, dtype=np.float32))
    assert np.allclose(poisson.deviance_of_rows(sparse, tensor(mean)), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["poisson", "nb", "gaussian", "bernoulli"])
def test_draws_have_the_mean_and_the_variance_of_the_likelihood(name):
    mean = {"bernoulli": [0.02, 0.2, 0.5, 0.7, 0.99], "gaussian": [-4, 0, 1, 9, 30]}.get(name, [0.3, 0.8, 2, 6, 20])
    mean, theta, residual = np.asarray(mean, float), 3.0, np.array([0.2, 0.5, 1, 2, 3])
    if name == "gaussian":
        likelihood = gaussian()
        likelihood.residual.copy_(tensor(residual))
    else:
        likelihood = LIKELIHOODS["nb"](P, theta) if name == "nb" else LIKELIHOODS[name]()
    variance = {
        "poisson": mean,
        "nb": mean + mean**2 / theta,
        "bernoulli": mean * (1 - mean),
        "gaussian": (residual * FEATURES["scale"]) ** 2,
    }[name]
    drawn = likelihood.draw(tensor(mean).expand(N, -1), torch.Generator().manual_seed(0)).numpy()
    assert np.abs(drawn.mean(0) - mean).max() < 5 * np.sqrt(variance.max() / N)
    assert (np.abs(drawn.mean(0) - mean) < 5 * np.sqrt(variance / N)).all()
    assert np.allclose(drawn.var(0), variance, rtol=0.25)


def test_a_dispersion_for_each_feature_is_kept():
    likelihood = LIKELIHOODS["nb"](P, 4.0)
    assert likelihood.dispersion.shape == (P,)
    assert (likelihood.dispersion == 4).all()
    assert "dispersion" in likelihood.state_dict()
