"""A new kind of modality is one entry, and so is a new likelihood."""

from __future__ import annotations

import inspect
from typing import get_args
from unittest import mock

import anndata as ad
import mudata as md
import numpy as np
import pytest
import torch

import aeverse as ae
from aeverse.models import KINDS, Kind
from aeverse.models._matrix import _choices
from aeverse.nn import LIKELIHOODS, Gaussian, fraction_logit


class Percent(Kind):
    """Between 0 and 100: the logit of the hundredth."""

    name = "percent"

    @staticmethod
    def recognized(values):
        return not values.is_whole and values.low == 0 and 1 < values.high <= 100

    def prepare(self, x, columns=slice(None)):
        return fraction_logit(torch.as_tensor(x / 100)).numpy()


class Laplace(Gaussian):
    """Absolute instead of squared errors."""

    name, kind = "gaussian", "continuous"  # in its place: what else a call may pass is in the annotations

    def loss(self, hidden, weight, bias, target, library=None):
        return torch.nan_to_num(hidden @ weight.T + bias - self.standardize(target)).abs().sum()

    def deviance(self, x, mean):
        return 2 * torch.nan_to_num(self.standardize(x) - self.standardize(mean)).abs().sum(0)


def _fractions(n=60, p=30):
    rng = np.random.default_rng(0)
    x = 1 / (1 + np.exp(-rng.normal(size=(n, 2)) @ rng.normal(size=(2, p)) - 0.3 * rng.normal(size=(n, p))))
    return ad.AnnData(x.astype(np.float32))


def test_a_new_kind_is_recognized_and_prepared_as_its_entry_says():
    fractions, percent = _fractions(), _fractions()
    percent.X *= 100
    model = ae.models.MultimodalAutoencoder(n_steps=10, recipe="samples")
    plain = model.fit(md.MuData({"methylation": fractions})).encode(md.MuData({"methylation": fractions}))
    with mock.patch.dict(KINDS, {"percent": Percent, **KINDS}, clear=True):
        mdata = md.MuData({"methylation": percent})
        assert model.fit(mdata).kinds == {"methylation": "percent"}
        np.testing.assert_allclose(model.encode(mdata), plain, atol=1e-3)
    assert ae.models.kind_of(percent.X, percent.var_names) == "continuous"


def test_a_new_likelihood_is_fitted_scored_saved_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(LIKELIHOODS, "gaussian", Laplace)
    adata = _fractions()
    adata.X[::7, ::5] = 20  # what absolute errors are for
    model = ae.models.Autoencoder(likelihood="gaussian", n_latent=3, share_calibration=0).fit(adata)
    assert isinstance(model.net.members[0].likelihood, Laplace)
    assert model.heldout_deviance_explained > 0.2
    model.save(tmp_path / "model.ae")
    loaded = ae.models.load(tmp_path / "model.ae")
    assert isinstance(loaded.net.members[0].likelihood, Laplace)
    np.testing.assert_array_equal(loaded.decode(loaded.encode(adata)), model.decode(model.encode(adata)))


def test_a_likelihood_that_nobody_knows_is_refused_by_name():
    for call in (ae.models.Autoencoder, lambda likelihood: ae.tl.embed(_fractions(), likelihood=likelihood)):
        with pytest.raises(ValueError, match=r"argument likelihood: found 'laplace'; pass .*'fractions'"):
            call(likelihood="laplace")


def test_editors_are_shown_the_likelihoods_that_there_are():
    assert get_args(_choices.Likelihood) == tuple(LIKELIHOODS)
    annotation = inspect.signature(ae.tl.embed).parameters["likelihood"].annotation
    assert all(f'"{name}"' in annotation.replace("'", '"') for name in ("auto", *LIKELIHOODS))


def test_missing_entries_stay_missing_in_every_kind():
    x = _fractions().X.copy()
    x[0, 0] = np.nan
    for kind in KINDS.values():
        entry = kind()
        entry.fit(x)
        assert np.isnan(np.asarray(entry.prepare(x))).sum() == 1
        assert np.isnan(np.asarray(entry.natural_scale(x))).sum() == 1
