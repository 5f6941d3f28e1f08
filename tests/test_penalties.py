"""The penalties of nn/_penalties.py, each against its definition in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aeverse import nn

seeds = st.integers(0, 10**6)


def _net(seed, n_hidden, n_latent=3, *, code_layer=None, skip=False, variational=False, n_inputs=6):
    torch.manual_seed(seed)
    unit = torch.zeros(n_inputs), torch.ones(n_inputs)
    encoder = nn.Encoder(
        nn.DenseInput(*unit), n_inputs, n_hidden, n_latent, code_layer=code_layer, skip=skip, variational=variational
    )
    net = nn.AutoencoderNet(encoder, nn.Decoder(n_latent, (), n_inputs), nn.Gaussian(*unit)).double()
    return net, torch.randn(4, n_inputs, dtype=torch.float64)


def _jacobian_norms(net, x):
    """Squared Frobenius norms by autograd's full Jacobian."""
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda row: net.encoder(row[None])[0], row).square().sum() for row in x]
    )


# ---- contractive -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layer", [torch.nn.Sigmoid, torch.nn.Tanh, torch.nn.Identity])
@given(seed=seeds)
def test_contraction_of_one_layer_is_exact(layer, seed):
    net, x = _net(seed, (), code_layer=layer())
    torch.testing.assert_close(nn.Contraction.norms(net, net.encoder.coded(x)), _jacobian_norms(net, x))


def test_contraction_of_one_sigmoid_layer_is_the_formula_of_the_paper():
    net, x = _net(0, (), code_layer=torch.nn.Sigmoid())
    h = torch.sigmoid(x @ net.encoder.first + net.encoder.first_bias)
    expected = ((h * (1 - h)) ** 2) @ net.encoder.first.square().sum(0)
    torch.testing.assert_close(nn.Contraction.norms(net, net.encoder.coded(x)), expected)


@pytest.mark.parametrize(("n_hidden", "skip"), [((5,), False), ((5, 4), True), ((), False)])
@given(seed=seeds)
def test_contraction_of_deeper_encoders_is_unbiased(n_hidden, skip, seed):
    net, x = _net(seed, n_hidden, skip=skip)  # LayerNorm on the code: no elementwise activation, so an estimate too
    x, truth, n = x[:1], _jacobian_norms(net, x[:1]), 4000
    draws = nn.Contraction.norms(net, net.encoder.coded(x.expand(n, -1))).detach()
    assert abs(draws.mean() - truth.item()) < 6 * draws.std() / math.sqrt(n) + 1e-9


def test_contraction_of_sparse_counts_is_that_by_their_standardized_values():
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (3, 6)).astype(float)
    mean, sd = (torch.tensor(rng.uniform(0.5, 1.5, 6)) for _ in range(2))
    torch.manual_seed(0)
    encoder = nn.Encoder(nn.CountInput(mean, sd, 10.0), 6, (), 3, code_layer=torch.nn.Sigmoid()).double()
    net = nn.AutoencoderNet(encoder, nn.Decoder(3, (), 6), nn.Poisson()).double()
    rows = nn.SparseRows.from_scipy(sp.csr_matrix(counts), dtype=torch.float64)
    code = encoder.coded(rows, rows.row_sums())
    read = encoder.input_layer(rows, rows.row_sums()).to_dense() - encoder.input_layer.shift

    def behind_the_input(x):
        return torch.sigmoid(x @ encoder.first + encoder.first_bias)

    torch.testing.assert_close(behind_the_input(read), code.mean)
    expected = [torch.autograd.functional.jacobian(behind_the_input, x).square().sum() for x in read]
    torch.testing.assert_close(nn.Contraction.norms(net, code), torch.stack(expected))


@given(seed=seeds)
def test_the_gradient_of_the_contraction_is_right(seed):
    net, x = _net(seed, (), code_layer=torch.nn.Sigmoid())
    weight = net.encoder.first
    (ours,) = torch.autograd.grad(nn.Contraction.norms(net, net.encoder.coded(x)).sum(), weight)
    step = torch.zeros_like(weight)
    step[2, 1] = 1e-6
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight += sign * step
            values.append(_jacobian_norms(net, x).sum())
            weight -= sign * step
    assert ours[2, 1].item() == pytest.approx(((values[0] - values[1]) / 2e-6).item(), rel=1e-4, abs=1e-6)


# ---- sparse ----------------------------------------------------------------------------------------------------
@given(seed=seeds, stretch=st.floats(0.1, 10))
def test_sparsity_is_l1_and_does_not_change_with_the_scale_of_a_unit(seed, stretch):
    net, x = _net(seed, (5,), code_layer=torch.nn.ReLU())
    code, penalty = net.encoder.coded(x), nn.Sparsity(2.0)
    plain = penalty(net, code, None)
    expected = 2 * sum((code.mean[:, k].abs() * net.decoder.loadings[:, k].norm()).mean() for k in range(3))
    torch.testing.assert_close(plain, expected)
    with torch.no_grad():
        net.decoder.loadings[:, 1] /= stretch
    scaled = code.mean * torch.tensor([1, stretch, 1])
    torch.testing.assert_close(penalty(net, nn.Code(scaled, None, code.hidden), None), plain)
    assert penalty(net, nn.Code(code.mean * 0, None, code.hidden), None) == 0


@given(seed=seeds, target=st.floats(0.02, 0.9))
def test_target_activity_is_the_divergence_of_two_coins(seed, target):
    net, x = _net(seed, (5,), code_layer=torch.nn.Sigmoid())
    code = net.encoder.coded(x)
    cost = nn.TargetActivity(1.0, target)(net, code, None)
    coins = (torch.distributions.Bernoulli(p) for p in (torch.full((3,), target).double(), code.mean.mean(0)))
    torch.testing.assert_close(cost, torch.distributions.kl_divergence(*coins).sum(), rtol=1e-5, atol=1e-7)
    assert cost >= 0
    at_target = nn.Code(torch.full_like(code.mean, target), None, code.hidden)
    assert nn.TargetActivity(1.0, target)(net, at_target, None).item() == pytest.approx(0, abs=1e-12)


# ---- variational -----------------------------------------------------------------------------------------------
@given(seed=seeds)
def test_divergence_equals_torch_and_grows_over_the_warm_up(seed):
    net, x = _net(seed, (5,), code_layer=torch.nn.Identity(), variational=True)
    code = net.encoder.coded(x)
    posterior = torch.distributions.Normal(code.mean, (0.5 * code.log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros_like(code.mean), torch.ones_like(code.mean))
    expected = torch.distributions.kl_divergence(posterior, standard).sum(1).mean()
    penalty = nn.Divergence(3.0, warm_up=4)
    for share in (0.25, 0.5, 0.75, 1, 1):
        torch.testing.assert_close(penalty(net, code, None), 3 * share * expected)


def test_draws_of_a_code_have_its_mean_and_variance():
    torch.manual_seed(0)
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -3.0]])
    draws = nn.Code(mean.expand(20000, -1), log_variance.expand(20000, -1), mean).draw()
    torch.testing.assert_close(draws.mean(0), mean[0], rtol=0, atol=0.03)
    torch.testing.assert_close(draws.var(0), log_variance.exp()[0], rtol=0.05, atol=0)
    assert nn.Code(mean, None, mean).draw() is mean


# ---- graph -----------------------------------------------------------------------------------------------------
@given(seed=seeds)
def test_guidance_is_the_distance_of_the_leading_dimensions(seed):
    net, x = _net(seed, (5,))
    code, guide = net.encoder.coded(x), torch.randn(4, 2, dtype=torch.float64)
    cost = nn.GraphTarget(2.0)(net, code, nn.Batch(x, x, graph_target=guide))
    torch.testing.assert_close(cost, 2 * torch.nn.functional.mse_loss(code.mean[:, :2], guide))
    assert nn.GraphTarget(2.0)(net, code, nn.Batch(x, x, graph_target=code.mean[:, :2])) == 0


# ---- together --------------------------------------------------------------------------------------------------
def test_the_loss_is_the_sum_of_its_parts():
    net, x = _net(0, (5,))
    batch, code = nn.Batch(x, x, graph_target=torch.zeros(4, 2).double()), net.encoder.coded(x)
    plain = net.loss(batch)
    net.penalties = [nn.Sparsity(0.1), nn.GraphTarget(0.3)]
    torch.testing.assert_close(net.loss(batch), plain + sum(p(net, code, batch) for p in net.penalties))


def test_masking_hides_entries_and_the_input_makes_up_for_them():
    torch.manual_seed(0)
    x = torch.randn(500, 200) + 3
    batch = nn.Masking(0.4)(nn.Batch(x, x))
    assert torch.isnan(batch.x).float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert not torch.isnan(batch.target).any()
    read = nn.DenseInput(torch.full((200,), 3.0), torch.ones(200))
    assert read(batch.x).square().sum(1).mean().item() == pytest.approx(read(x).square().sum(1).mean().item(), rel=0.02)


@given(seed=seeds)
def test_turning_the_code_leaves_what_is_decoded(seed):
    net, x = _net(seed, (5,), code_layer=torch.nn.Identity())
    before, code = net.mean(net.encoder(x)).detach(), net.encoder(x).detach()
    net.rotate_to_information(torch.zeros(6).double(), 0.5, torch.cov(code.T))
    torch.testing.assert_close(net.mean(net.encoder(x)).detach(), before, rtol=1e-5, atol=1e-6)
    turned, decoded = net.encoder(x).detach(), net.decoder.loadings.detach()
    covariance = torch.cov(turned.T)
    spread = torch.linalg.svdvals((code - code.mean(0)) @ torch.linalg.lstsq(code, turned).solution @ decoded.T)
    torch.testing.assert_close(
        covariance, torch.diag(spread[:3] ** 2 / 3), rtol=1e-3, atol=1e-3 * covariance.max().item()
    )


def test_a_divergence_without_warm_up_has_its_full_weight():
    net, x = _net(0, (5,), variational=True, code_layer=torch.nn.Identity())
    code, batch = net.encoder.coded(x), nn.Batch(x, x)
    costs = [nn.Divergence(2.0, warm_up=n)(net, code, batch) for n in (0, 1)]
    assert costs[0] == costs[1] == 2 * nn.Divergence.by_unit(code).sum()
