import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from aeverse import nn
from aeverse.nn import _count_loss
from aeverse.nn._random import linear

shapes = st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 4))
seeds = st.integers(0, 10**6)


def _problem(shape, seed, *, dtype=torch.float64, counted_library=True):
    """Hidden, weight, bias, counts, library and dispersion; some cells and genes are empty."""
    n, g, d = shape
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(0.5, 4.0, (n, g))) * (rng.random((n, g)) < 0.7)
    library = x.sum(1, keepdims=True) if counted_library else rng.uniform(0.5, 50, (n, 1))
    tensors = [rng.normal(size=s) for s in ((n, d), (g, d), (g,))]
    hidden, weight, bias = (torch.tensor(t, dtype=dtype, requires_grad=True) for t in tensors)
    counts = nn.SparseRows.from_scipy(sp.csr_matrix(x), dtype=dtype)
    theta = torch.tensor(rng.uniform(0.1, 50, g), dtype=dtype)
    return (hidden, weight, bias), counts, torch.tensor(library, dtype=dtype), theta


def _reference(parameters, counts, library, theta):
    """Dense, by autograd, with the distributions of torch; cells without library are certain to be empty."""
    hidden, weight, bias = parameters
    mu = library * torch.softmax(hidden @ weight.T + bias, 1)
    x, occupied = counts.to_dense(), (library > 0).squeeze(1)
    mu, x = mu[occupied], x[occupied]
    if theta is None:
        return -torch.distributions.Poisson(mu).log_prob(x).sum()
    return -torch.distributions.NegativeBinomial(theta.expand_as(mu), logits=torch.log(mu / theta)).log_prob(x).sum()


# ---- the count likelihoods -------------------------------------------------------------------------------------
@pytest.mark.parametrize("likelihood", ["poisson", "nb"])
@given(shape=shapes, seed=seeds, counted_library=st.booleans())
def test_count_loss_and_its_gradients_equal_autograd(likelihood, shape, seed, counted_library):
    parameters, counts, library, theta = _problem(shape, seed, counted_library=counted_library)
    theta = theta if likelihood == "nb" else None
    ours = nn.count_loss(*parameters, counts, library, theta)
    theirs = _reference(parameters, counts, library, theta)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    gradients = (torch.autograd.grad(3 * loss, parameters, allow_unused=True) for loss in (ours, theirs))
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, torch.zeros_like(own) if other is None else other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("likelihood", ["poisson", "nb"])
def test_count_loss_in_blocks_equals_the_whole(likelihood, monkeypatch):
    parameters, counts, library, theta = _problem((45, 20, 3), 0)
    theta = theta if likelihood == "nb" else None
    results = []
    for entries in (10**6, 1):
        monkeypatch.setattr(_count_loss, "BLOCK_ENTRIES", entries)
        assert entries > 1 or _count_loss.block_rows(20) < 45
        loss = nn.count_loss(*parameters, counts, library, theta)
        results.append((loss, *torch.autograd.grad(loss, parameters)))
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(whole, blocks, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("likelihood", ["poisson", "nb"])
def test_count_loss_in_float32_is_close_to_float64(likelihood):
    values = []
    for dtype in (torch.float32, torch.float64):
        parameters, counts, library, theta = _problem((30, 50, 4), 1, dtype=dtype)
        loss = nn.count_loss(*parameters, counts, library, theta if likelihood == "nb" else None)
        values.append([t.double() for t in (loss, *torch.autograd.grad(loss, parameters))])
    for single, double in zip(*values, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4 * double.abs().max().item())


def test_count_losses_equal_scvi():
    from scvi.distributions import NegativeBinomial, Poisson

    parameters, counts, library, theta = _problem((20, 15, 3), 2)
    library = library.clamp_min(1.0)
    mu, x = nn.softmax_means(*parameters, library).detach(), counts.to_dense()
    for dispersion, theirs in ((theta, NegativeBinomial(mu=mu, theta=theta)), (None, Poisson(rate=mu))):
        ours = nn.count_loss(*parameters, counts, library, dispersion)
        torch.testing.assert_close(
            ours, -theirs.log_prob(x).sum(), rtol=1e-5, atol=1e-3
        )  # scvi adds 1e-8 here and there


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_count_loss_is_finite_at_extremes(scale):
    (hidden, weight, bias), _, _, theta = _problem((4, 6, 3), 3, dtype=torch.float32)
    counts = nn.SparseRows.from_scipy(
        sp.csr_matrix(np.array([[2.0**24, 1, 0, 0, 0, 0], [0] * 6, [1] * 6, [0, 0, 0, 0, 0, 9]]))
    )
    parameters = [(p * s).detach().requires_grad_() for p, s in ((hidden, scale), (weight, scale), (bias, 1))]
    for dispersion in (theta, None, torch.full_like(theta, 1e-2), torch.full_like(theta, 300.0)):
        loss = nn.count_loss(*parameters, counts, counts.row_sums(), dispersion)
        assert torch.isfinite(loss)
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, parameters))


# ---- the gamma posterior ---------------------------------------------------------------------------------------
@given(shape=shapes, seed=seeds)
def test_posterior_mean_is_that_of_the_gamma_poisson_model(shape, seed):
    parameters, counts, library, theta = _problem(shape, seed)
    mu, x = nn.softmax_means(*parameters, library).detach(), counts.to_dense()
    expected = torch.where(
        mu > 0, (theta + x) / (theta / mu.clamp_min(1e-300) + 1), 0
    )  # gamma(theta + x, theta / mu + 1)
    found = nn.Expression(mu, counts, theta.expand_as(mu).contiguous()).mean()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def _gamma_poisson(theta, n_cells=2000, seed=0):
    """Counts whose gene-wise dispersions are known, with means that differ between cells."""
    rng = np.random.default_rng(seed)
    mu = rng.lognormal(0, 0.5, (n_cells, 1)) * np.full(len(theta), 3.0)
    rate = rng.gamma(theta, mu / theta)
    counts = nn.SparseRows.from_scipy(sp.csr_matrix(rng.poisson(rate)))
    return counts, torch.tensor(mu, dtype=torch.float32), torch.tensor(rate, dtype=torch.float32)


def test_dispersions_are_recovered():
    truth = np.repeat([0.3, 1.0, 5.0, 20.0], 10)
    counts, mu, _ = _gamma_poisson(truth)
    posterior = nn.GammaPosterior(40)
    posterior.fit(lambda: iter([(counts, mu)]))
    ratio = (posterior.constant_theta.numpy() / truth).reshape(4, 10)
    assert ((ratio > 0.4) & (ratio < 2.5)).all()
    assert np.median(ratio, 1) == pytest.approx(1, abs=0.3)


def test_fitted_posterior_is_nearer_to_the_truth_than_prior_and_counts():
    counts, mu, rate = _gamma_poisson(np.repeat([0.3, 5.0], 20))
    posterior = nn.GammaPosterior(40)
    posterior.fit(lambda: iter((counts.rows(a, a + 250), mu[a : a + 250]) for a in range(0, 2000, 250)))
    error = {
        name: (value - rate).square().mean().item()
        for name, value in (
            ("posterior", posterior.given(mu, counts).mean()),
            ("prior", mu),
            ("counts", counts.to_dense()),
        )
    }
    assert error["posterior"] < 0.8 * min(error["prior"], error["counts"])


@pytest.mark.parametrize("scale", [1.0, 1e7])
def test_posterior_is_finite_with_empty_cells_and_genes(scale):
    x = np.random.default_rng(0).poisson(3.0, (41, 6)) * scale
    x[::4], x[:, 2] = 0, 0
    counts = nn.SparseRows.from_scipy(sp.csr_matrix(x))
    mu = torch.tensor(x.sum(1, keepdims=True) * x.sum(0) / x.sum(), dtype=torch.float32)
    posterior = nn.GammaPosterior(6)
    posterior.fit(lambda: iter([(counts, mu)]))
    mean = posterior.given(mu, counts).mean()
    assert torch.isfinite(posterior.constant_theta).all()
    assert torch.isfinite(mean).all()
    assert (mean[::4] == 0).all()
    assert (mean[:, 2] == 0).all()


# ---- sparse rows -----------------------------------------------------------------------------------------------
@given(shape=shapes, seed=seeds)
def test_rows_equal_their_dense_matrix(shape, seed):
    n, g, d = shape
    rng = np.random.default_rng(seed)
    x = rng.poisson(1.0, (n, g)).astype(np.float32)
    rows, dense = nn.SparseRows.from_scipy(sp.csr_matrix(x)), torch.tensor(x)
    right = torch.tensor(rng.normal(size=(g, d)), dtype=torch.float32)
    start, stop = sorted(rng.integers(0, n + 1, 2))
    assert rows.shape == x.shape
    assert torch.equal(rows.to_dense(), dense)
    assert torch.equal(rows.transposed().to_dense(), dense.T)
    assert torch.equal(rows.row_sums(), dense.sum(1, keepdim=True))
    assert torch.equal(rows.rows(int(start), int(stop)).to_dense(), dense[start:stop])
    torch.testing.assert_close(rows.matmul(right), dense @ right)


@given(shape=shapes, seed=seeds)
def test_sparse_product_and_its_gradient_equal_the_dense_ones(shape, seed):
    n, g, d = shape
    rng = np.random.default_rng(seed)
    x = sp.csr_matrix(rng.poisson(1.0, (n, g)))
    rows = nn.SparseRows.from_scipy(x, dtype=torch.float64)
    weight = torch.tensor(rng.normal(size=(g, d)), requires_grad=True)
    upstream = torch.tensor(rng.normal(size=(n, d)))
    sparse, dense = nn.product(rows, weight), nn.product(rows.to_dense(), weight)
    torch.testing.assert_close(sparse, dense)
    (ours,), (theirs,) = (torch.autograd.grad((y * upstream).sum(), weight) for y in (sparse, dense))
    torch.testing.assert_close(ours, theirs)


@given(seed=seeds)
def test_encoder_of_sparse_counts_equals_the_standardized_dense_one(seed):
    rng = np.random.default_rng(seed)
    x = rng.poisson(2.0, (10, 7)).astype(np.float32)
    x[3] = 0
    library = np.maximum(x.sum(1, keepdims=True), 1)
    logged = np.log1p(x / library * 12.0)
    mean, sd = (torch.tensor(f(logged, 0)) for f in (np.mean, lambda a, i: a.std(i) + 0.1))
    torch.manual_seed(seed)  # the encoder's weights
    sparse = nn.Encoder(nn.CountInput(mean, sd, 12.0), 7, (5,), 3)
    dense = nn.Encoder(nn.DenseInput(mean, sd), 7, (5,), 3)
    dense.load_state_dict({k: v for k, v in sparse.state_dict().items() if "input" not in k}, strict=False)
    codes = sparse(nn.SparseRows.from_scipy(sp.csr_matrix(x)), torch.tensor(library)), dense(torch.tensor(logged))
    torch.testing.assert_close(*codes, rtol=1e-4, atol=1e-5)


# ---- corruption ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("keep", [0.2, 0.7, 1.0])
def test_thinning_keeps_expectations(keep):
    counts = nn.SparseRows.from_scipy(sp.csr_matrix(np.repeat([[1.0, 3, 20]], 20_000, 0)))
    thinned = nn.thin(counts, keep).to_dense()
    error = (torch.tensor([1.0, 3, 20]) * (1 - keep) / keep / 20_000).sqrt()
    assert ((thinned.mean(0) - torch.tensor([1.0, 3, 20])).abs() <= 5 * error + 1e-6).all()
    molecules = thinned * keep
    torch.testing.assert_close(molecules, molecules.round(), rtol=0, atol=1e-4)
    assert (molecules <= counts.to_dense() + 1e-4).all()


def test_masking_and_noise_change_what_they_should():
    x = torch.ones(400, 50)
    assert nn.mask(x, 0.3).mean().item() == pytest.approx(0.7, abs=0.02)
    rows = nn.mask(nn.SparseRows.from_scipy(sp.csr_matrix(np.ones((400, 50)))), 0.3)
    assert rows.to_dense().mean().item() == pytest.approx(0.7, abs=0.02)
    assert (nn.add_noise(x, 0.5) - x).std().item() == pytest.approx(0.5, abs=0.02)


# ---- the other likelihoods -------------------------------------------------------------------------------------
def _dense_problem(kind):
    rng = np.random.default_rng(0)
    hidden, weight, bias = (torch.tensor(rng.normal(size=s), requires_grad=True) for s in ((8, 3), (5, 3), (5,)))
    x = {
        "gaussian": rng.normal(3, 2, (8, 5)),
        "logit": rng.uniform(0.05, 0.95, (8, 5)),
        "binary": rng.integers(0, 2, (8, 5)),
    }
    x = torch.tensor(x[kind], dtype=torch.float64)
    center, scale = torch.tensor(rng.normal(size=5)), torch.tensor(rng.uniform(0.5, 2, 5))
    likelihood = {
        "gaussian": nn.Gaussian(center, scale),
        "logit": nn.LogitGaussian(center, scale),
        "binary": nn.Bernoulli(),
    }[kind]
    return likelihood, (hidden, weight, bias), x


@pytest.mark.parametrize("kind", ["gaussian", "logit", "binary"])
def test_dense_losses_equal_torch_distributions(kind):
    likelihood, parameters, x = _dense_problem(kind)
    hidden, weight, bias = parameters
    eta = hidden @ weight.T + bias
    if kind == "binary":
        expected = -torch.distributions.Bernoulli(logits=eta).log_prob(x).sum()
    else:
        values = torch.logit(x) if kind == "logit" else x
        unit = torch.distributions.Normal(0.0, 1.0)
        standard = (values - likelihood.center) / likelihood.scale
        expected = (unit.log_prob(torch.zeros_like(x)) - unit.log_prob(eta - standard)).sum()
    torch.testing.assert_close(likelihood.loss(*parameters, x), expected)


@pytest.mark.parametrize("kind", ["gaussian", "logit", "binary"])
def test_missing_entries_do_not_count(kind):
    likelihood, parameters, x = _dense_problem(kind)

    missing = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    holed = x.masked_fill(missing, float("nan"))
    loss = likelihood.loss(*parameters, holed)
    gradients = torch.autograd.grad(loss, parameters)
    assert all(torch.isfinite(g).all() for g in gradients)
    changed = likelihood.loss(*parameters, torch.where(missing, holed, x))
    torch.testing.assert_close(loss, changed)
    assert loss < likelihood.loss(*parameters, x)
    mean = likelihood.mean(*parameters)
    assert torch.isfinite(likelihood.deviance(holed, mean)).all()
    assert (likelihood.deviance(holed, mean) <= likelihood.deviance(x, mean) + 1e-9).all()


@pytest.mark.parametrize("kind", ["gaussian", "logit", "binary"])
def test_deviance_is_least_for_the_data_themselves(kind):
    likelihood, parameters, x = _dense_problem(kind)
    torch.testing.assert_close(likelihood.deviance(x, x), torch.zeros(5).double(), rtol=0, atol=1e-4)
    assert (likelihood.deviance(x, likelihood.mean(*parameters)) > 0.01).all()


def test_poisson_deviance_equals_scikit_learn():
    from sklearn.metrics import mean_poisson_deviance

    rng = np.random.default_rng(0)
    x, mean = rng.poisson(1.0, (50, 4)), rng.gamma(1.0, 1.0, (50, 4)) + 0.01
    ours = nn.Poisson.deviance(torch.tensor(x, dtype=torch.float64), torch.tensor(mean))
    theirs = [mean_poisson_deviance(x[:, j], mean[:, j]) * 50 for j in range(4)]
    np.testing.assert_allclose(ours, theirs)


def test_masked_decoder_reaches_only_its_features():
    programs = torch.tensor([[1.0, 0], [0, -2], [1, 1]])
    decoder = nn.Decoder(2, (), 3, mask=programs)
    assert ((decoder.weight != 0) == (programs != 0)).all()
    with pytest.raises(ValueError, match="must be linear"):
        nn.Decoder(2, (4,), 3, mask=programs)


def test_a_cell_unlike_all_that_were_fitted_has_a_posterior():
    rng = np.random.default_rng(0)
    mu = torch.full((300, 40), 50.0)
    posterior = nn.GammaPosterior(40)
    usual = nn.SparseRows.from_scipy(sp.csr_matrix(rng.poisson(mu)))
    posterior.fit(lambda: iter([(usual, mu)]))
    odd = nn.SparseRows.from_scipy(sp.csr_matrix(np.repeat([[0.0, 10_000.0]], 20, 0).reshape(1, 40)))
    assert torch.isfinite(posterior.given(torch.full((1, 40), 5000.0), odd).mean()).all()


def test_precisions_settle_where_they_explain_the_loadings():
    decoder = nn.Decoder(4, (), 3, prior_precision=300.0)
    decoder.data_precision = torch.tensor([[1000.0], [1000.0], [10.0]])
    decoder.loadings.data.copy_(torch.tensor([[0.5], [0.01], [0.1]]).expand(3, 4))
    for _ in range(3000):
        decoder.learn_precision()
    p, square = decoder.prior_precision.double(), decoder.loadings.double().square().mean(1, keepdim=True)
    assert torch.allclose(1 / p, square + 1 / (decoder.data_precision + p), rtol=1e-3)
    assert p[0] < 5 < 1000 < p[1]  # a gene with large loadings keeps them, one with small ones loses them


def test_precisions_that_were_asked_for_stay():
    decoder = nn.Decoder(4, (), 3, prior_precision=50.0)
    decoder.learn_precision()
    assert (decoder.prior_precision == 50).all()


# ---- random numbers ----------------------------------------------------------------------------------------------
def _dense_net(generator, **options):
    unit = torch.zeros(6, dtype=torch.float32), torch.ones(6, dtype=torch.float32)
    encoder = nn.Encoder(
        nn.DenseInput(*unit), 6, (5,), 3, n_covariates=2, code_layer=torch.nn.Identity(), generator=generator, **options
    )
    decoder = nn.Decoder(3, (4,), 6, generator=generator)
    return nn.AutoencoderNet(encoder, decoder, nn.Gaussian(*unit), penalties=[nn.Contraction(0.1)])


def _all_noise(generator, corrupt):
    """Start and loss of nets that draw everything that there is to draw."""
    net = _dense_net(generator, variational=True)
    net.corrupt = corrupt
    x = torch.linspace(-1, 1, 24).reshape(4, 6)
    batch = nn.Batch(x, x, covariate=torch.eye(2).repeat(2, 1), generator=generator)
    rows = nn.SparseRows.from_scipy(sp.csr_matrix(np.arange(24.0).reshape(4, 6)))
    counts = nn.Thinning()(nn.Batch(rows, rows, generator=generator)).x.to_dense()
    fusion = nn.FusionNet({"a": 3, "b": 2}, 4, n_members=2, generator=generator)
    own = nn.FusionBatch(
        {"a": torch.ones(2, 5, 3), "b": torch.ones(2, 5, 2)}, torch.ones(2, 5, 2), torch.zeros(2, 5, 4), None, generator
    )
    mean = torch.full((3, 2), 2.0)
    likelihoods = (nn.Poisson(), nn.NegativeBinomial(2), nn.Gaussian(torch.zeros(2), torch.ones(2)))
    drawn = [likelihood.draw(mean, generator) for likelihood in likelihoods]
    masked = [nn.mask(x, 0.5, generator), nn.add_noise(x, 0.5, generator), nn.Bernoulli().draw(mean / 4, generator)]
    return [*net.parameters(), net.loss(batch), counts, *fusion.parameters(), fusion.loss(own), *drawn, *masked]


@pytest.mark.parametrize("corrupt", [None, nn.Masking(), nn.Noise(torch.ones(6))])
def test_everything_is_drawn_from_the_generator_and_nothing_else(corrupt, random_states):
    before = random_states()
    one, same, other = (_all_noise(torch.Generator().manual_seed(seed), corrupt) for seed in (1, 1, 2))
    assert random_states() == before
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert sum(not torch.equal(a, b) for a, b in zip(one, other, strict=True)) > len(one) // 2


def test_the_stream_of_a_generator_is_that_of_the_global_one():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        usual = _all_noise(None, nn.Masking())
        torch.manual_seed(3)
        theirs = torch.nn.Linear(7, 5)
    own = _all_noise(torch.Generator().manual_seed(3), nn.Masking())
    assert all(torch.equal(a, b) for a, b in zip(usual, own, strict=True))
    ours = linear(7, 5, torch.Generator().manual_seed(3))
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


def test_weights_are_single_precision_whatever_the_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        modules = [
            _dense_net(None, variational=True).encoder,
            nn.Decoder(3, (4,), 6, n_covariates=2),
            nn.FusionNet({"a": 3}, 2),
            nn.GammaPosterior(3),
            nn.NegativeBinomial(3),
            nn.CountInput(torch.ones(3).float(), torch.ones(3).float(), 1.0),
            nn.Alignment(torch.ones(1, 1, 3).float(), torch.ones(1, 1, 3).float()),
        ]
    finally:
        torch.set_default_dtype(before)
    kinds = {name: v.dtype for module in modules for name, v in module.state_dict().items()}
    assert set(kinds.values()) == {torch.float32}, kinds


# ---- compiled loops ----------------------------------------------------------------------------------------------
def _counts_and_logits(seed, n_genes=37):
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(0.3, 4.0, (9, n_genes))).astype(np.float32)
    x[0], x[1, 0] = 0, 5000  # an empty cell; a count far beyond the others
    logits = torch.tensor(rng.normal(0, 3, x.shape), dtype=torch.float32)
    logits[:, 1] = -1e4  # an absent gene
    x[:, 1] = 0
    theta = torch.tensor(rng.uniform(0.02, 200, n_genes), dtype=torch.float32)
    return nn.SparseRows.from_scipy(sp.csr_matrix(x)), logits, theta


@pytest.mark.parametrize("n_genes", [2, 37, 1000])
@pytest.mark.parametrize("kind", ["nb", "poisson"])
def test_compiled_count_loss_equals_that_in_double_precision(kind, n_genes):
    from aeverse.nn import _count_loss

    counts, logits, theta = _counts_and_logits(0, n_genes)
    dispersion, library = (theta if kind == "nb" else None), counts.row_sums()
    exact = logits.double().requires_grad_()
    mu, x = library.double() * torch.softmax(exact, 1), counts.to_dense().double()
    if kind == "nb":
        t = theta.double()
        log_p = torch.lgamma(x + t) - torch.lgamma(t) - torch.lgamma(x + 1) - t * torch.log1p(mu / t)
        log_p = log_p + torch.xlogy(x, mu.clamp_min(1e-30) / (t + mu))
    else:
        log_p = torch.xlogy(x, mu.clamp_min(1e-30)) - mu - torch.lgamma(x + 1)
    (-log_p.sum()).backward()
    value, gradient = _count_loss._compiled(logits.clone(), counts, dispersion, library)
    assert value == pytest.approx(-log_p.sum().item(), rel=1e-5)
    torch.testing.assert_close(gradient, exact.grad.float(), rtol=1e-5, atol=1e-6 * exact.grad.abs().max().item())
    other, by_operations = _count_loss._by_operations(logits.clone(), counts, dispersion, library)
    assert value == pytest.approx(float(other), rel=1e-3)  # differences of large sums in single precision
    torch.testing.assert_close(gradient, by_operations, rtol=1e-4, atol=1e-6 * exact.grad.abs().max().item())


def test_compiled_normalization_and_dense_matrix_equal_those_in_double_precision():
    counts, _, _ = _counts_and_logits(1)
    layer = nn.CountInput(torch.ones(37), torch.linspace(0.1, 3, 37), 50.0)
    exact = (
        torch.log1p(counts.to_scipy().toarray() / counts.row_sums().clamp_min(1) * 50.0).double() * layer.scale.double()
    )
    torch.testing.assert_close(layer(counts, counts.row_sums()).to_dense(), exact.float(), rtol=1e-5, atol=1e-7)
    double = nn.SparseRows(counts.pointers, counts.columns, counts.values.double(), 37)  # by torch's operations
    torch.testing.assert_close(double.to_dense().float(), counts.to_dense(), rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 500])
def test_thinned_counts_are_binomial_and_the_generator_decides(count):
    n, keep = 20_000, torch.tensor([0.3, 0.9])
    counts = nn.SparseRows.from_scipy(sp.csr_matrix(np.full((2, n), count, np.float32)))
    drawn = [nn.thin(counts, keep, torch.Generator().manual_seed(seed)).to_dense() for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    molecules = drawn[0] * keep[:, None]
    torch.testing.assert_close(molecules, molecules.round(), rtol=0, atol=1e-3)
    variance = count * keep * (1 - keep)
    assert ((molecules.mean(1) - count * keep).abs() < 5 * (variance / n).sqrt()).all()
    torch.testing.assert_close(molecules.var(1), variance, rtol=0.06, atol=0)
    assert torch.corrcoef(molecules)[0, 1].abs() < 5 / n**0.5
    assert torch.corrcoef(torch.stack([molecules[0, :-1], molecules[0, 1:]]))[0, 1].abs() < 5 / n**0.5


def test_weighted_squares_have_the_gradient_of_what_they_are():
    from aeverse.nn._decoder import _WeightedSquares

    rng = np.random.default_rng(0)
    x, weight = torch.tensor(rng.normal(size=(5, 3)), requires_grad=True), torch.tensor(rng.uniform(size=(5, 1)))
    assert _WeightedSquares.apply(x, weight).item() == pytest.approx(float((weight * x.square()).sum()))
    assert torch.autograd.gradcheck(lambda x: _WeightedSquares.apply(x, weight), x)
