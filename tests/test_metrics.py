import importlib.util
import os

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import aeverse as ae
from aeverse.metrics import _deviance


def _split(seed: int, n: int = 40, g: int = 15):
    rng = np.random.default_rng(seed)
    mean = rng.gamma(1.0, 3.0, (n, g)) * rng.lognormal(0, 0.5, (n, 1))
    return mean, sp.csr_matrix(rng.poisson(mean * 0.9)), sp.csr_matrix(rng.poisson(mean * 0.1))


def _reference(denoised, train, test, axis=None):
    """By the definition, in float64, with scipy's deviance terms."""
    from scipy.special import xlogy

    train, test = train.toarray().astype(float), test.toarray().astype(float)
    library = train.sum(1, keepdims=True) * test.sum() / train.sum()
    mean = np.maximum(denoised / denoised.sum(1, keepdims=True) * library, 1e-6)
    null = np.maximum(library * train.sum(0) / train.sum(), 1e-6)
    lost, total = (2 * (m - test + xlogy(test, test / m)) for m in (mean, null))
    return 1 - lost.sum(axis) / total.sum(axis)


@given(seed=st.integers(0, 10**6))
def test_deviance_explained_is_that_of_the_definition(seed):
    mean, train, test = _split(seed)
    assert ae.metrics.deviance_explained(mean, train, test) == pytest.approx(_reference(mean, train, test), abs=1e-9)
    by_gene = ae.metrics.deviance_explained(mean, train, test, per_gene=True)
    observed = np.asarray(test.sum(0)).ravel() > 0
    np.testing.assert_allclose(by_gene[observed], _reference(mean, train, test, 0)[observed], atol=1e-9)
    assert np.isnan(by_gene[~observed]).all()


@pytest.mark.skipif(
    "AEVERSE_SCORING" not in os.environ, reason="AEVERSE_SCORING does not name a reference scoring script"
)
def test_deviance_explained_equals_the_reference_script():
    spec = importlib.util.spec_from_file_location("scoring", os.environ["AEVERSE_SCORING"])
    scoring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scoring)
    mean, train, test = _split(0, 200, 100)
    ours, theirs = ae.metrics.deviance_explained(mean, train, test), scoring.deviance_explained(mean, train, test)
    assert ours == pytest.approx(theirs, abs=1e-5)  # the script works in float32


def test_scale_and_sparsity_do_not_matter_and_blocks_equal_the_whole(monkeypatch):
    mean, train, test = _split(1)
    whole = ae.metrics.deviance_explained(mean, train, test)
    assert ae.metrics.deviance_explained(mean * np.arange(1, 41)[:, None], train, test) == pytest.approx(
        whole, abs=1e-12
    )
    assert ae.metrics.deviance_explained(sp.csc_matrix(mean), train.toarray(), test.tocsc()) == pytest.approx(whole)
    monkeypatch.setattr(_deviance, "BLOCK_ENTRIES", 31)
    assert ae.metrics.deviance_explained(mean, train, test) == pytest.approx(whole, abs=1e-12)


def test_gene_means_explain_nothing_and_the_truth_something():
    mean, train, test = _split(2, 300, 50)
    flat = np.ones((300, 1)) * np.asarray(train.mean(0))
    assert ae.metrics.deviance_explained(flat, train, test) == pytest.approx(0, abs=1e-12)
    assert ae.metrics.deviance_explained(mean, train, test) > 0.2
    assert ae.metrics.deviance_explained(train, train, test) < ae.metrics.deviance_explained(mean, train, test)


def test_empty_cells_and_no_heldout_molecules_are_finite():
    mean, train, test = _split(3)
    train, test = train.tolil(), test.tolil()
    train[0], test[0], mean[0] = 0, 0, 0
    assert np.isfinite(ae.metrics.deviance_explained(mean, train, test))
    assert ae.metrics.deviance_explained(mean, train, test * 0) == 0
    assert ae.metrics.deviance_explained(mean, train * 0, test * 0) == 0


def test_shapes_that_differ_are_refused():
    mean, train, test = _split(4)
    with pytest.raises(ValueError, match=r"shapes differ: denoised \(40, 14\)"):
        ae.metrics.deviance_explained(mean[:, 1:], train, test)
