"""Layers that are decoded when they are asked for."""

import pickle
import sys

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

import aeverse as ae

pytest.importorskip("dask.array", reason="dask is not installed")


@pytest.fixture(scope="module")
def pair(pbmc):
    """The same cells with a dense and a lazy layer (and standard deviations), each of several blocks; not to be changed."""
    from aeverse.models._matrix import _network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_network, "BLOCK_ENTRIES", 1000)  # 10 cells; 40 in a block of the dask array
        small = pbmc[:100, :100].copy()
        model = ae.models.Autoencoder(n_models=2, n_latent=4, max_epochs=3).fit(small)
        options = {"model": model, "uncertainty": True, "copy": True}
        yield ae.tl.denoise(small, lazy=False, **options), ae.tl.denoise(small, lazy=True, **options)


def test_a_lazy_layer_is_the_dense_one_to_the_bit(pair):
    dense, lazy = pair
    for name in ("denoised", "denoised_sd"):
        assert type(lazy.layers[name]).__module__.startswith("dask")
        assert lazy.layers[name].numblocks == (3, 1)
        np.testing.assert_array_equal(lazy.layers[name].compute(), dense.layers[name])


@pytest.mark.parametrize(
    "key", [np.s_[3], np.s_[3, 5], np.s_[:, [3, 1]], np.s_[[70, 2, 5]], np.s_[20:90:3, 4:6], np.s_[0:0]]
)
def test_a_lazy_layer_is_sliced_like_an_array(pair, key):
    dense, lazy = (adata.layers["denoised"] for adata in pair)
    np.testing.assert_allclose(lazy[key].compute(), dense[key], rtol=1e-5)


def test_only_the_cells_that_are_asked_for_are_decoded(pair):
    from aeverse.models._matrix._counts import CountNetwork

    decoded = []

    class Counting(CountNetwork):
        def denoise(self, samples, *args, **kwargs):
            decoded.append(len(samples))
            return super().denoise(samples, *args, **kwargs)

    _, lazy = pair
    [values] = [v for v in lazy.layers["denoised"].dask.values() if hasattr(v, "network")]
    try:
        values.network.__class__ = Counting
        lazy[:30, :2].layers["denoised"].compute()
    finally:
        values.network.__class__ = CountNetwork
    assert sum(decoded) <= 40


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_scanpy_and_files_take_a_lazy_layer(pair, tmp_path):
    dense, lazy = pair
    for kind in ("h5ad", "zarr"):
        getattr(lazy, f"write_{kind}")(tmp_path / kind)
        again = getattr(ad, f"read_{kind}")(tmp_path / kind)
        np.testing.assert_array_equal(again.layers["denoised"], dense.layers["denoised"])
    results = []
    for adata in pair:
        own = ad.AnnData(adata.layers["denoised"].copy(), obs=adata.obs, var=adata.var)
        sc.pp.calculate_qc_metrics(own, inplace=True, percent_top=None, log1p=False)
        sc.pp.normalize_total(own)
        sc.pp.log1p(own)
        sc.pp.highly_variable_genes(own, n_top_genes=20)
        results.append((own.obs["total_counts"], own.var["means"], own.var["dispersions"], np.asarray(own.X)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-6)


def test_changing_the_counts_later_does_not_change_a_lazy_layer(pair):
    dense, lazy = pair[0], pair[1].copy()
    sc.pp.normalize_total(lazy)
    sc.pp.log1p(lazy)
    np.testing.assert_array_equal(lazy.layers["denoised"].compute(), dense.layers["denoised"])


def test_some_genes_make_a_sparse_lazy_layer(small, quick, few_steps):
    dense, lazy = (
        ae.tl.denoise(small, genes=list(small.var_names[[7, 3]]), lazy=x, copy=True, **quick) for x in (False, True)
    )
    block = lazy.layers["denoised"].compute()
    assert sp.issparse(block)
    assert (block != dense.layers["denoised"]).nnz == 0


def test_a_lazy_layer_goes_to_another_process(pair):
    dense, lazy = pair
    again = pickle.loads(pickle.dumps(lazy.layers["denoised"]))
    np.testing.assert_array_equal(again[:40].compute(), dense.layers["denoised"][:40])


def test_too_large_a_layer_becomes_lazy_and_says_so(small, quick, few_steps, monkeypatch):
    from aeverse import _runtime

    monkeypatch.setattr(_runtime, "available_memory", lambda: 50_000.0)  # the layer takes 40,000 bytes
    with pytest.warns(UserWarning, match=r"would take 0\.0 GB.*decoded block by block"):
        ae.tl.denoise(small, **quick)
    assert hasattr(small.layers["denoised"], "dask")
    ae.tl.denoise(small, lazy=False, **quick)
    assert isinstance(small.layers["denoised"], np.ndarray)
    monkeypatch.setattr(_runtime, "available_memory", lambda: 100_000.0)
    ae.tl.denoise(small, **quick)
    assert isinstance(small.layers["denoised"], np.ndarray)


def test_without_dask_the_error_names_the_extra(small, quick, few_steps, monkeypatch, fingerprint):
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.array", None)
    before = fingerprint(small)
    with pytest.raises(ImportError, match=r'pip install "aeverse\[scale\]"'):
        ae.tl.denoise(small, lazy=True, **quick)
    assert fingerprint(small) == before


def test_available_memory_is_that_of_the_machine():
    from aeverse._runtime import available_memory

    assert 1e7 < available_memory() < 1e14
