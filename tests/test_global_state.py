"""Fits draw from generators of their own: no global state is read or moved, and threads do not meet."""

import threading

import anndata as ad
import mudata as md
import numpy as np
import pytest
import torch

import aeverse as ae


def _values():
    return ad.AnnData(np.random.default_rng(0).normal(size=(60, 12)).astype("float32"))


def _fit(kind, seed=0):
    if kind == "multimodal":
        x = _values()
        mdata = md.MuData({"a": x[:, :6].copy(), "b": x[:, 6:].copy()})
        return ae.models.MultimodalAutoencoder(n_steps=20, random_state=seed).fit(mdata, progress=False).encode(mdata)
    x = _values() if kind == "gaussian" else ae.datasets.simulate_counts(60, 30)
    regularizer = ("denoising", "variational", "contractive")
    options = {"likelihood": kind, "regularizer": regularizer, "n_latent": 4, "n_models": 2, "max_epochs": 4}
    return ae.models.Autoencoder(**options, random_state=seed).fit(x, progress=False).encode(x)


@pytest.mark.parametrize("kind", ["nb", "gaussian", "multimodal"])
def test_fits_in_threads_equal_fits_one_after_another(kind):
    expected, found = [_fit(kind, seed) for seed in range(4)], {}
    state = torch.get_rng_state()

    def work(seed):
        found[seed] = _fit(kind, seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), state)
    for seed in range(4):
        np.testing.assert_array_equal(found[seed], expected[seed])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["nb", "gaussian", "multimodal"])
def test_fits_where_gradients_are_switched_off(kind, mode):
    expected = _fit(kind)
    with mode():
        np.testing.assert_array_equal(_fit(kind), expected)


@pytest.mark.parametrize("kind", ["nb", "gaussian", "multimodal"])
def test_fits_whatever_the_default_precision(kind):
    expected, before = _fit(kind), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(_fit(kind), expected)
    finally:
        torch.set_default_dtype(before)


def test_loading_and_decoding_move_no_global_state(tmp_path, model, small, random_states):
    ae.tl.denoise(small, n_models=1, n_latent=4, progress=False)
    before = random_states()
    model.save(tmp_path / "m.ae")
    ae.models.load(tmp_path / "m.ae")
    ae.get.denoised(small, list(small.var_names[:3]))
    assert random_states() == before


def test_a_variational_model_of_one_epoch():
    x = _values()
    model = ae.models.Autoencoder(likelihood="gaussian", regularizer="variational", n_latent=4, max_epochs=1)
    assert np.isfinite(model.fit(x, progress=False).encode(x)).all()


@pytest.mark.parametrize("kind", ["nb", "gaussian", "multimodal"])
def test_bits_do_not_depend_on_the_number_of_threads(kind):
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found.append(_fit(kind))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_bits_of_large_data_do_not_depend_on_the_number_of_threads(few_steps):
    x = ae.datasets.simulate_counts(300, 1500)  # torch would share its operations out
    found, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            found.append(
                ae.tl.denoise(x, progress=False, copy=True)
            )  # three members: each on a thread, if there are some
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0].layers["denoised"], found[1].layers["denoised"])
    np.testing.assert_array_equal(found[0].obsm["X_ae"], found[1].obsm["X_ae"])


def test_calls_are_spread_over_as_many_threads_as_torch_had():
    from aeverse import _runtime

    together, before = threading.Barrier(2, timeout=60), torch.get_num_threads()

    def work(i):
        together.wait()  # for a second thread
        return i, torch.get_num_threads(), torch.is_grad_enabled()

    def elsewhere():
        with _runtime.one_thread(), _runtime.threads() as spread:
            maps.append(spread)

    maps: list = []
    torch.set_num_threads(2)
    try:
        with _runtime.one_thread(), _runtime.one_thread(), _runtime.threads() as spread, torch.no_grad():
            assert list(spread(work, range(6))) == [(i, 1, False) for i in range(6)]
            with pytest.raises(ZeroDivisionError):
                list(spread(lambda i: 1 // i, [1, 0, 1]))
        thread = threading.Thread(target=elsewhere)  # of somebody who runs several
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert maps == [map]


def test_a_fit_that_ends_leaves_other_threads_on_one():
    from aeverse import _runtime

    inside, leave, counted = threading.Event(), threading.Event(), []

    def other():
        with _runtime.one_thread():
            inside.set()
            leave.wait()
            counted.append(torch.__config__.parallel_info())

    before, thread = torch.get_num_threads(), threading.Thread(target=other)
    torch.set_num_threads(2)
    try:
        thread.start()
        inside.wait()
        with _runtime.one_thread():
            pass
        assert torch.get_num_threads() == 2
        leave.set()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert "at::get_num_threads() : 1" in counted[0]
    if "mkl_get_max_threads()" in counted[0]:
        assert "mkl_get_max_threads() : 1" in counted[0]
