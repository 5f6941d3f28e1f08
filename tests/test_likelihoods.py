"""What likelihoods say of means, deviances, draws and noise, against float64 references."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
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


@pytest.mark.parametrize("name", ["poisson", "nb", "gaussian", "bernoulli"])
def test_draws_depend_on_the_generator_only(name):
    likelihood = gaussian() if name == "gaussian" else LIKELIHOODS["nb"](P) if name == "nb" else LIKELIHOODS[name]()
    mean = torch.full((40, P), 0.5 if name == "bernoulli" else 20.0)
    first, again, other = (likelihood.draw(mean, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_weights_are_single_precision_whatever_the_default_is():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert gaussian().noise.dtype == torch.float32
        assert LIKELIHOODS["nb"](P).dispersion.dtype == torch.float32
        assert [(b.dtype, b.numel()) for b in LIKELIHOODS["gaussian"].empty(P).buffers()] == [
            (torch.float32, n) for n in (P, P, P, 1)
        ]
        assert LIKELIHOODS["nb"].empty(P).dispersion.shape == (P,)
    finally:
        torch.set_default_dtype(before)


def test_one_observed_entry_is_a_mean(decoder):
    likelihood, x = gaussian().train(), np.full((7, P), np.nan)
    x[2, 3] = 0.0
    hidden, weight, bias = decoder
    error = (hidden @ weight.T + bias)[2, 3] + FEATURES["center"][3] / FEATURES["scale"][3]
    likelihood.loss(*map(tensor, decoder), tensor(x))
    assert np.isclose(likelihood.noise.item(), 0.95 + 0.05 * error**2, rtol=1e-4)


@pytest.mark.parametrize("name", ["poisson", "bernoulli", "gaussian"])
def test_information_is_the_curvature_of_the_expected_loss(name):
    """Second derivative of the expected negative log-likelihood by the code, at the mean; of counts by molecule."""
    rng = np.random.default_rng(4)
    loadings, mean = torch.tensor(rng.normal(size=(P, K))), torch.tensor(rng.dirichlet(np.ones(P)))

    def loss(code: torch.Tensor) -> torch.Tensor:
        eta = loadings @ code
        if name == "gaussian":
            return 0.5 * eta.square().sum()
        if name == "poisson":
            return -(mean * torch.log_softmax(mean.log() + eta, 0)).sum()
        return torch.nn.functional.binary_cross_entropy_with_logits(eta + mean.logit(), mean, reduction="sum")

    curvature = torch.autograd.functional.hessian(loss, torch.zeros(K, dtype=torch.float64))
    assert torch.allclose(LIKELIHOODS[name].information(loadings, mean), curvature, atol=1e-8)


def test_bernoulli_loss_is_the_likelihood_of_what_was_observed(decoder):
    x = np.random.default_rng(5).integers(0, 2, (7, P)).astype(float)
    hidden, weight, bias = decoder
    logs = stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-(hidden @ weight.T + bias))))
    x[0, 0], logs[0, 0] = np.nan, 0
    assert np.isclose(LIKELIHOODS["bernoulli"]().loss(*map(tensor, decoder), tensor(x)).item(), -logs.sum(), rtol=1e-4)


def test_start_is_at_the_moments_of_the_data():
    rng = np.random.default_rng(6)
    x = np.column_stack([rng.normal(3, 2, 50), np.full(50, 7.0)]).astype(np.float32)
    likelihood, bias = LIKELIHOODS["gaussian"].start(x)
    assert np.allclose(likelihood.center, x.mean(0), rtol=1e-4)
    assert np.allclose(likelihood.scale, [x[:, 0].std(), 1], rtol=1e-3)  # a constant feature is divided by one
    assert (bias == 0).all()
    assert np.allclose(likelihood.deviance(tensor(x), likelihood.center), [50, 0], rtol=1e-3)
    expected = ((x[:, 0] - 4) ** 2).sum() / x[:, 0].var()
    assert np.isclose(likelihood.deviance(tensor(x), tensor([4.0, 7.0]))[0], expected, rtol=1e-3)
    binary = np.column_stack([np.zeros(9), np.ones(9), np.repeat([0, 1, 1], 3)]).astype(np.float32)
    frequency = 1 / (1 + np.exp(-LIKELIHOODS["bernoulli"].start(binary)[1]))
    assert np.allclose(frequency, [0.05, 0.95, 2 / 3], atol=1e-6)  # half a sample keeps them from 0 and 1


def test_fractions_come_back_from_the_logit():
    x = np.random.default_rng(7).uniform(0.02, 0.98, (30, P)).astype(np.float32)
    likelihood, _ = LIKELIHOODS["fractions"].start(x)
    assert np.allclose(likelihood.restore(likelihood.standardize(tensor(x))), x, atol=1e-5)
    assert np.allclose(likelihood.center, np.log(x / (1 - x)).mean(0), atol=1e-3)
    sparse, _ = LIKELIHOODS["fractions"].start(sp.csr_matrix(x))
    assert torch.allclose(sparse.center, likelihood.center)


@pytest.mark.parametrize(("name", "values"), [("fractions", [0.2, 1.5]), ("bernoulli", [0.0, 0.5])])
def test_complaints_name_the_place_and_what_was_found(name, values):
    complaint = LIKELIHOODS[name].complaint(np.array(values), "layers['m']")
    assert "layers['m']" in complaint
    assert f"{values[1]:.4g}" in complaint
    assert LIKELIHOODS[name].complaint(np.array([0.0, 1.0]), "X") is None
    assert LIKELIHOODS[name].complaint(np.array([]), "X") is None


@pytest.mark.parametrize("name", ["poisson", "nb"])
def test_counts_have_the_mean_and_the_loss_of_the_distribution(decoder, name):
    """The loss up to what does not depend on the mean: differences between two decoders are those of scipy."""
    hidden, weight, bias = decoder
    rng, library, theta = np.random.default_rng(8), np.linspace(20, 80, 7)[:, None], 4.0
    likelihood = LIKELIHOODS["nb"](P, theta) if name == "nb" else LIKELIHOODS[name]()

    def expected(b):
        eta = hidden @ weight.T + b
        share = np.exp(eta - eta.max(1, keepdims=True))
        return library * share / share.sum(1, keepdims=True)

    def log_likelihood(x, mu):
        return (stats.nbinom(theta, theta / (theta + mu)) if name == "nb" else stats.poisson(mu)).logpmf(x).sum()

    assert np.allclose(likelihood.mean(*map(tensor, decoder), tensor(library)), expected(bias), rtol=1e-4)
    x, other = rng.poisson(expected(bias)), bias + rng.normal(size=P)
    counts = SparseRows.from_scipy(sp.csr_matrix(x, dtype=np.float32))
    losses = [
        likelihood.loss(tensor(hidden), tensor(weight), tensor(b), counts, tensor(library)).item()
        for b in (bias, other)
    ]
    difference = log_likelihood(x, expected(bias)) - log_likelihood(x, expected(other))
    assert np.isclose(losses[1] - losses[0], difference, rtol=1e-3)
