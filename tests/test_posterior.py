"""The gamma posterior against integrals and draws: mean, variance, and the chance of being seen at more depth."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from aeverse import nn
from aeverse.nn import _posterior, _special

N_DRAWS = 400_000
OUTLIERS = ((0.05, 0.1), (1.0, 0.6), (10.0, 0.3))
priors = st.floats(-2, 3).map(lambda e: 10**e), st.floats(-1.5, 2.5).map(lambda e: 10**e)  # mu, theta


def _tensor(value) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _counts(x) -> nn.SparseRows:
    return nn.SparseRows.from_scipy(sp.csr_matrix([[float(x)]]), dtype=torch.float64)


def _expression(mu, x, theta, scales=((1.0, 1.0),), dtype=torch.float64) -> nn.Expression:
    return nn.Expression(_tensor(mu).to(dtype), _counts(x), _tensor(theta).to(dtype), scales)


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
    found = _expression(mu, x, theta)
    assert found.mean().item() == pytest.approx(mean, rel=1e-6)
    assert found.variance().item() == pytest.approx(variance, rel=1e-6)
    missed = _integrals(mu, theta, 0, depth)[2]
    found = _expression(mu, 0, theta).detection_probability(depth)
    assert found.item() == pytest.approx(1 - missed, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("mu", "theta"), [(0.2, 0.5), (1.5, 3.0), (3.0, 50.0)])
def test_closed_forms_are_what_is_drawn(mu, theta):
    rng = np.random.default_rng(0)
    rate = rng.gamma(theta, mu / theta, N_DRAWS)
    count = rng.poisson(rate)
    for x in (0, 1, 2):
        drawn = rate[count == x]
        found = _expression(mu, x, theta)
        variance = found.variance().item()
        assert found.mean().item() == pytest.approx(drawn.mean(), abs=5 * np.sqrt(variance / len(drawn)))
        assert variance == pytest.approx(drawn.var(), rel=0.1)
    for depth in (1.2, 2, 10):
        seen = rng.poisson((depth - 1) * rate[count == 0]) > 0
        error = 5 * seen.std() / np.sqrt(len(seen)) + 1e-4
        found = _expression(mu, 0, theta).detection_probability(depth).item()
        assert found == pytest.approx(seen.mean(), abs=error)


@given(mu=priors[0], theta=priors[1], x=st.integers(0, 50), spread=st.floats(0, 1))
def test_spread_of_the_members_counts_by_how_far_the_posterior_follows(mu, theta, x, spread):
    prior = _tensor(mu).requires_grad_()
    (prior * (theta + x) / (theta + prior)).backward()  # the posterior mean, as in the concepts
    own, both = (_expression(mu, x, theta).variance(_tensor(s)).item() for s in (0.0, spread))
    assert both - own == pytest.approx(spread * prior.grad.item() ** 2, rel=1e-6, abs=1e-9 * own)


def _mixed(mu, theta, x, depth):
    """Mean, variance and chance of being missed of a mixture, from those of its parts and what each says of the count."""
    likelihood = [p * scipy.stats.nbinom.pmf(x, s * theta, s * theta / (s * theta + mu)) for s, p in OUTLIERS]
    weights = np.array(likelihood) / np.sum(likelihood)
    mean, variance, missed = np.array([_integrals(mu, s * theta, x, depth) for s, _ in OUTLIERS]).T
    return weights @ mean, weights @ (variance + mean**2) - (weights @ mean) ** 2, weights @ missed


@given(mu=st.floats(0.01, 30), theta=st.floats(0.5, 30), x=st.integers(0, 100), depth=st.floats(1.01, 100))
def test_mixtures_of_shapes_are_the_integrals(mu, theta, x, depth):
    mean, variance, missed = _mixed(mu, theta, x, depth)
    found = _expression(mu, x, theta, OUTLIERS)
    assert found.mean().item() == pytest.approx(mean, rel=1e-5)
    assert found.variance().item() == pytest.approx(variance, rel=1e-4)
    if x == 0:
        assert found.detection_probability(depth).item() == pytest.approx(1 - missed, rel=1e-5, abs=1e-9)


@given(mu=st.floats(0.01, 30), theta=st.floats(0.5, 30), x=st.integers(0, 100))
def test_spread_of_a_mixture_follows_the_derivative_of_its_mean(mu, theta, x):
    step = 1e-5 * mu
    above, below = (_expression(mu + d, x, theta, OUTLIERS).mean().item() for d in (step, -step))
    found = _expression(mu, x, theta, OUTLIERS)
    gained = (found.variance(_tensor(1.0)) - found.variance()).item()
    assert gained == pytest.approx(((above - below) / (2 * step)) ** 2, rel=1e-3, abs=1e-6 * found.variance().item())


def test_counts_far_from_their_mean_are_believed_where_others_are_near():
    rng = np.random.default_rng(0)
    mu = torch.tensor(rng.lognormal(1.6, 0.3, (500, 40)), dtype=torch.float32)
    odd = rng.random(mu.shape) < 0.05
    rate = np.where(odd, rng.gamma(0.2, mu / 0.2), rng.gamma(50.0, mu / 50))
    counts = nn.SparseRows.from_scipy(sp.csr_matrix(rng.poisson(rate)))
    error = {}
    for quick in (True, False):
        posterior = nn.GammaPosterior(40)
        posterior.fit(lambda: iter((counts.rows(a, a + 100), mu[a : a + 100]) for a in range(0, 500, 100)), quick=quick)
        error[quick] = (posterior.given(mu, counts).mean() - torch.tensor(rate)).square().mean().item()
    assert error[False] < 0.8 * error[True]
    assert 0.01 < posterior.scale_prior[:, 0].mean() < 0.2
    assert posterior.scale_prior.sum(1).numpy() == pytest.approx(1)


def test_scales_are_left_alone_where_counts_are_negative_binomial():
    rng = np.random.default_rng(0)
    mu = torch.tensor(rng.lognormal(0, 1, (1000, 40)), dtype=torch.float32)
    counts = nn.SparseRows.from_scipy(sp.csr_matrix(rng.poisson(rng.gamma(2.0, mu / 2.0))))
    posterior = nn.GammaPosterior(40)
    posterior.fit(lambda: iter([(counts, mu)]))
    assert posterior.scale_prior[:, 1].mean() > 0.9


# ---- calibration by held-out molecules -------------------------------------------------------------------------
def _calibrated(truth_of, n=400, seed=0):
    """A calibration fitted on counts whose expression is `truth_of` what is expected, and the parts to judge it by."""
    rng = np.random.default_rng(seed)
    frequency = rng.lognormal(0, 1.5, 200)
    calibration = nn.Calibration(200)
    calibration.frequency.copy_(torch.tensor(frequency / frequency.sum()))
    library = torch.tensor(rng.lognormal(4.5, 0.5, (n, 1)), dtype=torch.float32)
    ratio = torch.tensor(np.exp(rng.uniform(np.log(0.02), np.log(3), (n, 200))), dtype=torch.float32)
    expected = ratio * library * calibration.frequency
    x = rng.poisson(0.7, expected.shape)
    truth = truth_of(ratio.numpy(), x) * expected.numpy()
    counts, heldout = (nn.SparseRows.from_scipy(sp.csr_matrix(a.astype(np.float32))) for a in (x, rng.poisson(truth)))
    for start in range(0, n, 100):
        part = slice(start, start + 100)
        calibration.add(expected[part], library[part], *(c.rows(start, start + 100) for c in (counts, heldout)))
    calibration.fit()
    return calibration(expected, library, counts), ratio, expected, counts.to_dense(), truth


def test_genes_that_are_expected_where_they_are_off_are_put_right():
    factor, ratio, expected, x, truth = _calibrated(lambda r, x: np.where((x > 1) | (r > 0.3), 1.0, 0.2), n=2000)
    off = (x <= 1) & (ratio < 0.1)  # straight lines between nodes, so that there is a way between off and on
    assert (factor * expected)[off].sum() == pytest.approx(0.2 * expected[off].sum().item(), rel=0.1)
    assert (factor[(x > 1) | (ratio > 0.6)] - 1).abs().mean() < 0.05
    assert np.square((factor * expected).numpy() - truth).mean() < 0.3 * np.square(expected.numpy() - truth).mean()


def test_counts_that_are_expected_too_high_are_put_right():
    factor, _, expected, _, truth = _calibrated(lambda r, x: np.where(x == 1, 1.3, 0.8), n=2000)
    assert np.square((factor * expected).numpy() - truth).mean() < 0.1 * np.square(expected.numpy() - truth).mean()


@given(seed=st.integers(0, 99))
def test_what_is_expected_rightly_stays(seed):
    factor, _, expected, *_ = _calibrated(lambda r, x: 1.0, seed=seed)
    assert (factor - 1).abs().max() < 0.6
    assert ((factor - 1) * expected).sum().abs() < 0.02 * expected.sum()


def test_expectations_too_small_for_a_sum_in_floats_are_counted():
    calibration, n = nn.Calibration(1), 1000
    expected, library = torch.full((n, 1), 1e-3), torch.full((n, 1), 1e-3)
    nothing, found = (
        nn.SparseRows.from_scipy(sp.csr_matrix((n, 1))),
        nn.SparseRows.from_scipy(sp.identity(n, format="csr")[:, :1]),
    )
    calibration.expected.fill_(1e9)  # what billions of entries before have added
    calibration.add(expected, library, nothing, found)
    assert (calibration.expected - 1e9).sum().item() == pytest.approx(1, rel=1e-3)
    assert calibration.found.sum() == 1


def test_calibration_of_nothing_expected_is_finite():
    calibration, nothing = nn.Calibration(2), nn.SparseRows.from_scipy(sp.csr_matrix((3, 2)))
    calibration.frequency.copy_(torch.tensor([0.0, 1.0]))
    expected, library = torch.tensor([[0.0, 1e-30], [1e30, 1.0], [3e-5, 2e4]]), torch.tensor([[0.0], [1.0], [1e9]])
    assert (calibration(expected, library, nothing) == 1).all()
    calibration.add(expected, library, nothing, nothing)
    calibration.fit()
    assert torch.isfinite(calibration(expected, library, nothing)).all()
    assert (calibration(expected, library, nothing) > 0).all()


@given(mu=st.floats(0.01, 30), theta=st.floats(0.5, 30), x=st.integers(0, 20), depth=st.floats(1.01, 100))
def test_calibrated_expression_is_that_many_times_what_it_was(mu, theta, x, depth):
    plain = _expression(mu, x, theta, OUTLIERS)
    half = nn.Expression(_tensor(mu), _counts(x), _tensor(theta), OUTLIERS, lambda mean: 0.5 * mean / mean)
    assert half.mean().item() == pytest.approx(0.5 * plain.mean().item(), rel=1e-9)
    for spread in (None, _tensor(0.3)):
        assert half.variance(spread).item() == pytest.approx(0.25 * plain.variance(spread).item(), rel=1e-9)
    if x == 0:
        assert half.detection_probability(1 + 2 * (depth - 1)).item() == pytest.approx(
            plain.detection_probability(depth).item(), rel=1e-9
        )


@given(mu=priors[0], theta=priors[1])
def test_chance_of_being_seen_has_its_limits(mu, theta):
    def seen(depth, mu=mu, theta=theta, dtype=torch.float32):
        return _expression(mu, 0, theta, dtype=dtype).detection_probability(depth).item()

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
    counts = nn.SparseRows.from_scipy(sp.csr_matrix([[0.0, 0.0], [3.0, 0.0]]))
    one, several = (nn.Expression(mu, counts, shape, scales) for scales in (((1.0, 1.0),), OUTLIERS))
    for found in (
        *(one.variance(torch.zeros_like(mu)), one.detection_probability(10)),
        *(several.variance(torch.zeros_like(mu)), several.detection_probability(10)),
    ):
        assert torch.isfinite(found).all()
        assert (found[mu == 0] == 0).all()
        assert found[1, 0] > 0


@given(seed=st.integers(0, 99), spread=st.floats(0.1, 4), factor=priors[1])
def test_sums_over_bins_are_the_sums_over_entries(seed, spread, factor):
    rng = np.random.default_rng(seed)
    values = np.exp(spread * rng.normal(size=(12_000, 7)) - 2).clip(2.0**-24, 2.0**16 - 1)  # what the bins reach over
    weights = rng.gamma(1.0, size=values.shape)
    histogram = _posterior._Histogram(7, torch.device("cpu"))
    gene, one = torch.arange(7, dtype=torch.int32), rng.poisson(values) == 1
    for rows in (slice(0, 1000), slice(1000, 12_000)):
        value, weight = (torch.tensor(part[rows], dtype=torch.float32) for part in (values, weights))
        histogram.add(value, gene, weight, torch.tensor(np.flatnonzero(one[rows])))
    for weights_of, entries, error in ((histogram.weights, weights, 2e-3), (histogram.single, one, 1e-2)):
        found = (torch.log1p(histogram.means() / factor) * weights_of).sum(1).double().numpy()
        np.testing.assert_allclose(found, (np.log1p(values / factor) * entries).sum(0), rtol=error)


# ---- compiled loops ----------------------------------------------------------------------------------------------
def _block(n_cells=40, n_genes=300):
    """Counts, means and shapes of any size: absent genes, an empty cell, counts far beyond their means."""
    rng = np.random.default_rng(0)
    mu = rng.lognormal(-3, 3, (n_cells, n_genes))
    shape = rng.lognormal(0, 2, (n_cells, n_genes))
    x = rng.poisson(rng.gamma(shape, mu / shape))
    x[0], x[1, :5], mu[:, 7] = 0, 1000, 0
    return sp.csr_matrix(x.astype(np.float32)), *(torch.tensor(v, dtype=torch.float32) for v in (mu, shape))


def _rows(x, dtype=torch.float32):
    return nn.SparseRows.from_scipy(x, dtype=dtype)


@pytest.mark.parametrize("scales", [OUTLIERS, ((1.0, 1.0),)])
def test_compiled_means_are_those_in_double_precision(scales):
    x, mu, shape = _block()
    compiled = nn.Expression(mu, _rows(x), shape, scales).mean()
    exact = nn.Expression(mu.double(), _rows(x, torch.float64), shape.double(), scales).mean()
    torch.testing.assert_close(compiled, exact.float(), rtol=2e-4, atol=1e-9)  # logarithms of thousands are rounded
    near = (compiled / exact - 1).abs()[exact > 0]
    assert near.median() < 1e-6


def test_compiled_calibration_is_that_in_double_precision():
    x, mu, _ = _block()
    calibration, rng = nn.Calibration(mu.shape[1]), np.random.default_rng(1)
    calibration.frequency.copy_((mu.sum(0) / mu.sum()).clamp_min(1e-9))
    calibration.add(mu, mu.sum(1, keepdim=True), _rows(x), _rows(sp.csr_matrix(rng.poisson(0.3 * mu + 0.1))), 0.3)
    calibration.fit()
    compiled = calibration(mu, mu.sum(1, keepdim=True), _rows(x))
    exact = copy.deepcopy(calibration).double()(mu.double(), mu.double().sum(1, keepdim=True), _rows(x, torch.float64))
    assert 0.2 < float((compiled > 1.5).float().mean()) < 1
    torch.testing.assert_close(compiled, exact.float(), rtol=1e-4, atol=1e-6)


def test_compiled_sums_are_those_in_double_precision():
    rng, grid = np.random.default_rng(2), torch.tensor([0.03, 1.0, 300.0])
    x, linear, constant = (torch.tensor(rng.lognormal(-6, 5, (11, 160)), dtype=torch.float32) for _ in range(3))
    linear[:, 20:60] = constant[:, 10:60] = 0
    parts = (x, linear, constant, grid)
    exact = _special.sums_of_log1p(*(part.double() for part in parts))
    torch.testing.assert_close(_special.sums_of_log1p(*parts), exact.float(), rtol=1e-5, atol=0)
    x, t, mu = (torch.tensor(v, dtype=torch.float32) for v in (rng.integers(1, 40, 99), *rng.lognormal(0, 3, (2, 99))))
    exact = _special.beyond_zero(t.double(), x.double(), mu.double())
    torch.testing.assert_close(_special.beyond_zero(t, x, mu), exact.float(), rtol=1e-5, atol=1e-6)
    likelihood = torch.tensor(rng.lognormal(0, 1, (50, 9)), dtype=torch.float32).log()
    exact = _posterior.npmle(likelihood.double())
    torch.testing.assert_close(_posterior.npmle(likelihood), exact.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("by", ["cell", "gene"])
def test_compiled_histograms_are_those_of_torch(by, monkeypatch):
    x, mu, weights = _block()
    row = torch.arange(len(mu), dtype=torch.int32)[:, None] if by == "cell" else torch.arange(300, dtype=torch.int32)
    histograms = []
    for _ in range(2):
        histogram = _posterior._Histogram(300, mu.device)
        entry, one, _ = _posterior._entries(_rows(x))
        histogram.add(mu, row, weights, entry[one])
        histograms.append(histogram)
        monkeypatch.setattr(_posterior, "runs_compiled", lambda x: False)
    for name in ("weights", "totals", "single"):
        torch.testing.assert_close(*(getattr(h, name) for h in histograms))
    assert histograms[0].single.sum() > 100
