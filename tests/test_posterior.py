"""The gamma posterior against integrals and draws: mean, variance, and the chance of being seen at more depth."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from aeverse import nn
from aeverse.nn import _posterior

N_DRAWS = 400_000
priors = st.floats(-2, 3).map(lambda e: 10**e), st.floats(-1.5, 2.5).map(lambda e: 10**e)  # mu, theta


def _tensor(value) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _counts(x) -> nn.Rows:
    return nn.Rows.from_scipy(sp.csr_matrix([[float(x)]]), dtype=torch.float64)


def _integrals(mu, theta, x, depth):
    """Mean, variance and E[exp(-(depth - 1) rate)] of the rate given the count, by sums over a fine grid."""
    shape = theta + x
    u = np.linspace(np.log(shape * mu / (theta + mu)) - 40 / min(shape, 1), np.log(mu + x + 1) + 6, 400_001)
    rate = np.exp(u)
    log_density = (
        theta * u - theta / mu * rate + x * u - rate
    )  # prior, likelihood; the power of one more is d rate / du
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = weights @ rate
    return mean, weights @ (rate - mean) ** 2, weights @ np.exp(-(depth - 1) * rate)


@given(mu=priors[0], theta=priors[1], x=st.integers(0, 300), depth=st.floats(1.01, 100))
def test_closed_forms_are_the_integrals(mu, theta, x, depth):
    mean, variance, _ = _integrals(mu, theta, x, depth)
    found = nn.GammaPosterior(1).mean(_tensor(mu), _counts(x), _tensor(theta))
    assert found.item() == pytest.approx(mean, rel=1e-6)
    found = nn.GammaPosterior.variance(found, _tensor(mu), _tensor(theta))
    assert found.item() == pytest.approx(variance, rel=1e-6)
    missed = _integrals(mu, theta, 0, depth)[2]
    found = nn.GammaPosterior.seen_deeper(_tensor(mu), _tensor(theta), depth)
    assert found.item() == pytest.approx(1 - missed, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("mu", "theta"), [(0.2, 0.5), (1.5, 3.0), (3.0, 50.0)])
def test_closed_forms_are_what_is_drawn(mu, theta):
    rng = np.random.default_rng(0)
    rate = rng.gamma(theta, mu / theta, N_DRAWS)
    count = rng.poisson(rate)
    for x in (0, 1, 2):
        drawn = rate[count == x]
        mean = nn.GammaPosterior(1).mean(_tensor(mu), _counts(x), _tensor(theta))
        variance = nn.GammaPosterior.variance(mean, _tensor(mu), _tensor(theta)).item()
        assert mean.item() == pytest.approx(drawn.mean(), abs=5 * np.sqrt(variance / len(drawn)))
        assert variance == pytest.approx(drawn.var(), rel=0.1)
    for depth in (1.2, 2, 10):
        seen = rng.poisson((depth - 1) * rate[count == 0]) > 0
        error = 5 * seen.std() / np.sqrt(len(seen)) + 1e-4
        found = nn.GammaPosterior.seen_deeper(_tensor(mu), _tensor(theta), depth).item()
        assert found == pytest.approx(seen.mean(), abs=error)


@given(mu=priors[0], theta=priors[1], x=st.integers(0, 50), spread=st.floats(0, 1))
def test_spread_of_the_members_counts_by_how_far_the_posterior_follows(mu, theta, x, spread):
    prior = _tensor(mu).requires_grad_()
    (prior * (theta + x) / (theta + prior)).backward()  # the posterior mean, as in the concepts
    mean = nn.GammaPosterior(1).mean(_tensor(mu), _counts(x), _tensor(theta))
    variance = nn.GammaPosterior.variance
    own, both = (variance(mean, _tensor(mu), _tensor(theta), s).item() for s in (0.0, spread))
    assert both - own == pytest.approx(spread * prior.grad.item() ** 2, rel=1e-6, abs=1e-9 * own)


@given(mu=priors[0], theta=priors[1])
def test_chance_of_being_seen_has_its_limits(mu, theta):
    def seen(depth, mu=mu, theta=theta, dtype=torch.float32):
        return nn.GammaPosterior.seen_deeper(_tensor(mu).to(dtype), _tensor(theta).to(dtype), depth).item()

    assert seen(1.0) == 0
    assert seen(10.0, mu=0.0) == 0
    assert seen(1 + 1e-9, dtype=torch.float64) == pytest.approx(1e-9 * mu * theta / (mu + theta), rel=1e-5)
    assert seen(3.0, theta=1e9, dtype=torch.float64) == pytest.approx(-np.expm1(-2 * mu), rel=1e-4)  # Poisson
    chances = [seen(depth) for depth in (1, 1.5, 2, 5, 10, 100, 1e4)]
    assert chances == sorted(chances)
    assert 0 <= min(chances) <= max(chances) <= 1
    assert seen(1e300, dtype=torch.float64) == pytest.approx(1, abs=1e-6)


def test_genes_and_cells_without_counts_have_no_variance_and_no_chance():
    mu = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    shape = torch.full_like(mu, 0.5)
    mean = nn.GammaPosterior(2).mean(mu, nn.Rows.from_scipy(sp.csr_matrix([[0.0, 0.0], [3.0, 0.0]])), shape)
    for found in (
        nn.GammaPosterior.variance(mean, mu, shape, torch.zeros_like(mu)),
        nn.GammaPosterior.seen_deeper(mu, shape, 10),
    ):
        assert torch.isfinite(found).all()
        assert (found[mu == 0] == 0).all()
        assert found[1, 0] > 0


@given(seed=st.integers(0, 99), spread=st.floats(0.1, 4), factor=priors[1])
def test_sums_over_bins_are_the_sums_over_entries(seed, spread, factor):
    rng = np.random.default_rng(seed)
    values, weights = np.exp(spread * rng.normal(size=(3000, 7)) - 2), rng.gamma(1.0, size=(3000, 7))
    histogram = _posterior._Histogram(7, torch.device("cpu"))
    gene, one = torch.arange(7, dtype=torch.int32), rng.poisson(values) == 1
    for rows in (slice(0, 1000), slice(1000, 3000)):
        value, weight = (torch.tensor(part[rows], dtype=torch.float32) for part in (values, weights))
        histogram.add(value, gene, weight, torch.tensor(np.flatnonzero(one[rows])))
    for weights_of, entries, error in ((histogram.weights, weights, 2e-3), (histogram.single, one, 1e-2)):
        found = (torch.log1p(histogram.means() / factor) * weights_of).sum(1).double().numpy()
        np.testing.assert_allclose(found, (np.log1p(values / factor) * entries).sum(0), rtol=error)
