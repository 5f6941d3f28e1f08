"""Batches in the code: matching samples meet, others do not, and nothing that is decoded changes."""

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

import aeverse as ae
from aeverse.models import Autoencoder, load
from aeverse.models._shared._alignment import alignment
from aeverse.nn import Alignment


@given(st.integers(0, 2**31 - 1))
def test_what_is_undone_is_as_before(seed):
    rng = np.random.default_rng(seed)
    places = torch.tensor(rng.normal(size=(3, 4, 2)))
    aligned = Alignment(places, torch.tensor(0.2 * rng.normal(size=(3, 4, 2))), 2.0).double()
    code = torch.tensor(rng.normal(size=(20, 2)))
    weights = torch.eye(3, dtype=torch.float64)[rng.integers(0, 3, 20)]
    weights[0] = 1 / 3  # of an unknown batch
    torch.testing.assert_close(aligned.inverse(aligned(code, weights), weights), code, atol=1e-6, rtol=0)
    each = torch.stack([aligned(code[:1], torch.eye(3, dtype=torch.float64)[[b]]) for b in range(3)])
    torch.testing.assert_close(aligned(code, weights)[:1], each.mean(0))


@pytest.fixture(scope="module")
def types():
    """Codes of types 0 and 1 in one batch, 0 and 2 in another that is off; batches; types."""
    rng = np.random.default_rng(0)
    centers = 2 * rng.normal(size=(3, 10))
    kind, batches = np.repeat([0, 1, 0, 2], 300), np.repeat([0, 1], 600)
    code = centers[kind] + 0.5 * rng.normal(size=(1200, 10)) + 0.7 * rng.normal(size=10) * batches[:, None]
    return code.astype(np.float32), batches, kind


def _aligned(code, batches):
    return alignment(code, batches, 2, 0)(torch.from_numpy(code), torch.eye(2)[torch.from_numpy(batches)]).numpy()


def _gap(code, one, other):
    return np.linalg.norm(code[one].mean(0) - code[other].mean(0))


def test_types_in_both_batches_meet_and_the_others_stay_apart(types):
    code, batches, kind = types
    found = _aligned(code, batches)
    shared = (batches == 0) & (kind == 0), (batches == 1) & (kind == 0)
    assert _gap(found, *shared) < 0.1 * _gap(code, *shared)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert _gap(found, kind == one, kind == other) > 0.95 * _gap(code, kind == one, kind == other)


def test_batches_that_do_not_differ_stay_where_they_are(types):
    code = types[0][:600]
    moved = _aligned(code, np.arange(600) % 2) - code
    assert np.sqrt((moved**2).sum(1).mean()) < 0.25 * np.sqrt(code.var(0).sum())


def test_one_batch_has_no_matches(types):
    assert alignment(types[0], np.zeros(1200, int), 2, 0) is None


@pytest.fixture(scope="module")
def cells():
    """Three types in two batches, of which the second has other levels of half of the genes."""
    rng = np.random.default_rng(0)
    kind, batch = np.arange(360) % 3, np.arange(360) // 180
    rate = np.exp(rng.normal(size=(3, 80)))[kind] * np.exp(
        1.2 * rng.normal(size=80) * (np.arange(80) < 40) * batch[:, None]
    )
    counts = rng.poisson(500 * rate / rate.sum(1, keepdims=True)).astype(np.float32)
    adata = ad.AnnData(sp.csr_matrix(counts))
    adata.obs["batch"], adata.obs["type"] = [f"b{b}" for b in batch], [f"t{k}" for k in kind]
    return adata


@pytest.fixture(scope="module")
def fitted(cells):
    return Autoencoder(n_latent=8, n_models=2, max_epochs=20).fit(cells, batch_key="batch")


def test_batches_mix_and_types_do_not(cells, fitted):
    kinds, batches = cells.obs["type"].to_numpy(), cells.obs["batch"].to_numpy()
    plain = Autoencoder(n_latent=8, n_models=2, max_epochs=20).fit(cells).encode(cells)
    code = fitted.encode(cells)
    scores = [ae.metrics.batch_score(z, batches, labels=kinds, parts=True)["ilisi"] for z in (plain, code)]
    assert scores[0] < 0.2 < 0.8 < scores[1]
    assert ae.metrics.knn_accuracy(code[::2], kinds[::2], test_code=code[1::2], test_labels=kinds[1::2]) > 0.95


def test_what_is_decoded_does_not_change(cells, fitted, tmp_path):
    fitted.save(tmp_path / "m.ae")
    raw = load(tmp_path / "m.ae")
    raw.net.correction = None
    assert not np.allclose(raw.encode(cells), fitted.encode(cells), atol=0.05)
    np.testing.assert_allclose(fitted.denoise(cells), raw.denoise(cells), rtol=1e-4, atol=1e-5)
    some = cells[cells.obs["batch"] == "b1"].copy()
    codes = fitted.encode(some), raw.encode(some)
    np.testing.assert_allclose(fitted.decode(codes[0], batch="b1"), raw.decode(codes[1], batch="b1"), rtol=1e-4)


def test_seeds_and_files_give_the_same_code(cells, fitted, tmp_path):
    again = Autoencoder(n_latent=8, n_models=2, max_epochs=20).fit(cells, batch_key="batch")
    np.testing.assert_array_equal(again.encode(cells), fitted.encode(cells))
    fitted.save(tmp_path / "m.ae")
    np.testing.assert_array_equal(load(tmp_path / "m.ae").encode(cells), fitted.encode(cells))


def test_the_decoder_in_the_object_decodes_the_code_beside_it(cells, fitted):
    adata = ae.tl.denoise(cells, model=fitted, copy=True)
    genes = list(cells.var_names[:3])
    np.testing.assert_allclose(
        ae.get.denoised(adata, genes).to_numpy(), adata[:, genes].layers["denoised"], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("options", [{"regularizer": "sparse"}, {"gene_sets": {"a": ["1", "2", "3"], "b": ["4", "5"]}}])
def test_dimensions_that_mean_something_are_not_shifted(cells, options):
    model = Autoencoder(max_epochs=1, likelihood="nb", **options).fit(cells, batch_key="batch")
    assert model.net.correction is None
