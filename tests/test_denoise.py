import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import aeverse as ae
from aeverse import _slots

pytestmark = pytest.mark.usefixtures("few_steps")


def _call(small, **changes):
    ae.tl.denoise(small, **{"n_models": 1, "n_latent": 4, **changes})
    return small.layers[changes.get("key_added", "denoised")]


# ---- what is written -------------------------------------------------------------------------------------------
def test_what_is_written_and_nothing_else(small):
    before = small.copy()
    assert ae.tl.denoise(small, n_models=2, n_latent=3) is None
    assert small.layers["denoised"].shape == small.shape
    assert small.layers["denoised"].dtype == np.float32
    assert small.obsm["X_ae"].shape == (100, 6)
    assert set(_slots.layer_names(small)) == {"denoised"}
    assert set(small.obsm) == {"X_ae"}
    assert list(small.obs) == list(before.obs)
    assert list(small.var) == ["denoised_deviance_explained"]
    assert list(small.uns) == ["ae"]
    record = small.uns["ae"]["denoised"]
    assert record["params"]["n_models"] == 2
    assert record["params"]["likelihood"] == "nb"
    assert {"aeverse", "torch"} <= set(record["versions"])
    assert len(record["history"]["heldout"]) == len(record["history"]["loss"]) > 0
    assert (small.X != before.X).nnz == 0


@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
def test_values_are_expected_counts_at_the_own_library_size(small, likelihood):
    values = _call(small, likelihood=likelihood)
    assert (values >= 0).all()
    np.testing.assert_allclose(values.sum(1), np.asarray(small.X.sum(1)).ravel(), rtol=1e-4)
    np.testing.assert_allclose(_call(small, likelihood=likelihood, target_sum=1e4).sum(1), 1e4, rtol=1e-4)
    np.testing.assert_allclose(
        small.layers["denoised"], values / values.sum(1, keepdims=True) * 1e4, rtol=1e-4, atol=1e-4
    )


@pytest.mark.full_training
def test_denoising_is_nearer_to_the_truth_than_the_counts_are():
    adata = ae.datasets.simulate_counts(500, 150, n_types=4, library_size=300)
    ae.tl.denoise(adata, n_models=1)
    truth, counts = adata.layers["rate"], adata.X.toarray()
    error = {
        name: np.square(np.sqrt(v) - np.sqrt(truth)).mean()
        for name, v in (("ae", adata.layers["denoised"]), ("x", counts))
    }
    assert error["ae"] < 0.6 * error["x"]
    assert np.nanmean(adata.var["denoised_deviance_explained"]) > 0.02


# ---- empty, small and large ------------------------------------------------------------------------------------
@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
@pytest.mark.parametrize("target_sum", [None, 1e4])
def test_cells_and_genes_without_counts_stay_in_place_as_zeros(small, likelihood, target_sum):
    x = small.X.toarray()
    x[[0, 7]], x[:, 5] = 0, 0
    small.X = sp.csr_matrix(x)
    values = _call(small, likelihood=likelihood, target_sum=target_sum)
    assert np.isfinite(values).all()
    assert (values[[0, 7]] == 0).all()
    assert (values[:, 5] == 0).all()
    assert (values[:, x.sum(0) > 10].sum(0) > 0).all()
    assert np.isfinite(small.obsm["X_ae"]).all()
    assert np.isnan(small.var["denoised_deviance_explained"].iloc[5])


@pytest.mark.parametrize(("cells", "genes"), [(1, 765), (2, 765), (50, 1), (1, 1), (3, 2)])
def test_hardly_any_cells_or_genes_give_a_sane_result(pbmc, cells, genes):
    first = int(np.asarray(pbmc.X.sum(0)).argmax()) if genes < 765 else 0
    small = pbmc[:cells, max(0, first - genes + 1) :][:, :genes].copy()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        values = _call(small)
    if genes < 765:  # a whole cell or two may go either way; the others have nothing to learn from
        assert any("little structure in these counts" in str(w.message) for w in said)
    assert np.isfinite(values).all()
    assert np.isfinite(small.obsm["X_ae"]).all()
    np.testing.assert_allclose(values.sum(1), np.asarray(small.X.sum(1)).ravel(), rtol=1e-4)


def test_huge_counts_are_denoised(small):
    small.X = (small.X > 0).astype(np.float32) * 2.0**24
    values = _call(small)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values.sum(1), np.asarray(small.X.sum(1)).ravel(), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_duplicated_gene_names_matter_only_where_genes_are_named(small):
    expected = _call(small.copy())
    small.var_names = ["double", "double", *small.var_names[2:]]
    np.testing.assert_array_equal(_call(small), expected)
    np.testing.assert_array_equal(ae.get.denoised(small, small.var_names[5]).to_numpy()[:, 0], expected[:, 5])
    with pytest.raises(ValueError, match="occur more than once"):
        _call(small, genes=["double"])


# ---- parameters ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", [list, np.array, pd.Index, set, iter])
def test_genes_leaves_the_other_columns_empty(small, form):
    full = _call(small.copy())
    names = [small.var_names[i] for i in (60, 3)]
    values = _call(small, genes=form(names))
    assert isinstance(values, sp.csr_matrix)
    expected = np.zeros_like(full)
    expected[:, [60, 3]] = full[:, [60, 3]]
    np.testing.assert_array_equal(values.toarray(), expected)
    np.testing.assert_array_equal(ae.get.denoised(small, list(small.var_names)), full)  # those left out, too


def test_one_gene_by_name_and_a_gene_named_twice(small):
    name = small.var_names[3]
    once = _call(small, genes=name).toarray()
    assert list(small.uns["ae"]["denoised"]["params"]["genes"]) == [name]
    np.testing.assert_array_equal(_call(small, genes=[name, name]).toarray(), once)
    with pytest.raises(KeyError, match=r"genes not found: \['NOPE'\] \(1 of 2\)"):
        _call(small, genes=[name, "NOPE"])


@pytest.mark.parametrize("target_sum", [0, -1.0, float("nan"), float("inf")])
def test_a_target_sum_that_is_no_sum_is_refused(small, target_sum):
    with pytest.raises(ValueError, match=r"argument target_sum: found .*; pass a number above 0"):
        _call(small, target_sum=target_sum)


def test_batches_may_have_unused_levels_and_numbers_for_names(small):
    by_name = _call(small, batch_key="batch").copy()
    small.obs["number"] = [0, 1] * 50
    np.testing.assert_array_equal(_call(small, batch_key="number"), by_name)
    assert not np.array_equal(_call(small), by_name)


def test_mask_var_chooses_what_the_encoder_reads(small):
    small.var["highly_variable"] = np.arange(100) < 40
    auto = _call(small).copy()
    np.testing.assert_array_equal(_call(small, mask_var="highly_variable"), auto)
    np.testing.assert_array_equal(_call(small, mask_var=np.arange(100) < 40), auto)
    every = _call(small, mask_var=None)
    assert not np.array_equal(every, auto)
    assert every.shape == auto.shape == (100, 100)


def test_copy_leaves_the_object_alone(small, fingerprint):
    before = fingerprint(small)
    other = ae.tl.denoise(small, copy=True, n_models=1, n_latent=4)
    assert fingerprint(small) == before
    np.testing.assert_array_equal(other.layers["denoised"], _call(small))


def test_the_same_seed_gives_the_same_bits_and_no_global_state_is_touched(small, random_states):
    first, code = _call(small, n_models=2, random_state=3).copy(), small.obsm["X_ae"].copy()
    np.random.seed(5)  # noqa: NPY002 (the global state that must not matter)
    before = random_states()
    np.testing.assert_array_equal(_call(small, n_models=2, random_state=np.int64(3)), first)
    np.testing.assert_array_equal(small.obsm["X_ae"], code)
    assert not np.array_equal(_call(small, n_models=2, random_state=4), first)
    assert random_states() == before


# ---- a second call ---------------------------------------------------------------------------------------------
def test_own_results_are_replaced_and_those_of_others_refused(small, fingerprint):
    _call(small)
    _call(small, random_state=1)
    _call(small, key_added="second")
    assert set(_slots.layer_names(small)) == {"denoised", "second"}
    assert set(small.uns["ae"]) == {"denoised", "second"}
    small.layers["mine"] = small.X.copy()
    before = fingerprint(small)
    with pytest.raises(
        ValueError, match=r"layers\['mine'\] exists and was not written by aeverse; pass another key_added="
    ):
        _call(small, key_added="mine")
    assert fingerprint(small) == before


def test_results_of_an_earlier_call_do_not_survive_beside_new_ones(small, model):
    _call(small)
    _call(small, model=model)
    assert "denoised_deviance_explained" not in small.var  # it was that of the earlier model
    _call(small)
    assert "denoised_deviance_explained" in small.var


# ---- a fitted model --------------------------------------------------------------------------------------------
def test_a_model_and_its_file_do_the_same(small, model, tmp_path):
    model.save(tmp_path / "m.ae")
    expected = model.denoise(small)
    for given in (model, tmp_path / "m.ae", str(tmp_path / "m.ae")):
        np.testing.assert_array_equal(_call(small, model=given), expected)
        np.testing.assert_array_equal(small.obsm["X_ae"], model.encode(small))
    assert small.uns["ae"]["denoised"]["params"]["n_models"] == 2  # what the model is, not what the call said


def test_genes_are_matched_by_name_when_a_model_is_given(small, pbmc, model):
    expected = model.denoise(small)
    order = np.random.default_rng(0).permutation(100)
    shuffled = small[:, order].copy()
    np.testing.assert_allclose(_call(shuffled, model=model), expected[:, order], rtol=1e-5)
    more = pbmc[:100, :120].copy()
    with pytest.warns(UserWarning, match="the model knows 100 of the 120"):
        values = _call(more, model=model)
    assert sp.issparse(values)
    np.testing.assert_allclose(values.toarray()[:, :100], expected, rtol=1e-5)
    assert values[:, 100:].nnz == 0
    fewer = small[:, :90].copy()
    with pytest.warns(UserWarning, match="features that the encoder reads were found"):
        values = _call(fewer, model=model)
    assert values.shape == (100, 90)
    with pytest.warns(UserWarning, match="were found"):
        np.testing.assert_array_equal(ae.get.denoised(fewer, list(fewer.var_names)), values)


# ---- get.denoised ----------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_survive_a_file_to_the_bit(small, tmp_path, kind):
    values = _call(small, batch_key="batch", n_models=2)
    ae.tl.embed(small, key_added="X_other", n_latent=2)
    getattr(small, f"write_{kind}")(tmp_path / "a")
    again = getattr(ad, f"read_{kind}")(tmp_path / "a")
    np.testing.assert_array_equal(again.layers["denoised"], values)
    found = ae.get.denoised(again, list(again.var_names))
    np.testing.assert_array_equal(found, values)
    assert list(found.index) == list(small.obs_names)
    _call(again, batch_key="batch")  # our own results are known as such after the file, too
    getattr(again, f"write_{kind}")(tmp_path / "b")


@pytest.mark.parametrize("cells", [slice(0, 1), slice(5, 12), [40, 3, 99], np.arange(100) % 3 == 0, slice(0, 0)])
def test_cells_may_be_taken_out(small, cells):
    _call(small, n_models=2)
    for part in (small[cells], small[cells].copy()):
        found = ae.get.denoised(part, small.var_names[[8, 2]])
        np.testing.assert_allclose(found, part[:, found.columns].layers["denoised"], rtol=1e-5, atol=1e-7)


def test_genes_may_be_reordered_but_not_taken_out(small):
    values = _call(small)
    backwards = small[:, ::-1].copy()
    np.testing.assert_allclose(ae.get.denoised(backwards, list(small.var_names)), values, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="40 genes were taken out of adata since 'denoised' was made"):
        ae.get.denoised(small[:, :60].copy(), small.var_names[0])


def test_a_code_that_another_run_replaced_is_not_decoded(small):
    _call(small)
    _call(small, key_added="second", random_state=1)
    np.testing.assert_array_equal(ae.get.denoised(small, list(small.var_names), key="second"), small.layers["second"])
    with pytest.raises(
        ValueError, match=r"the embedding in obsm\['X_ae'\] of 100 of 100 cells are not those that 'denoised'"
    ):
        ae.get.denoised(small, small.var_names[0])
    del small.obsm["X_ae"]
    with pytest.raises(ValueError, match="or deleted"):
        ae.get.denoised(small, small.var_names[0], key="second")


def test_get_denoised_says_what_is_missing(small):
    with pytest.raises(
        KeyError, match=r"uns\['ae'\]\['denoised'\] does not exist; records are: none: run aeverse.tl first"
    ):
        ae.get.denoised(small, "LYZ")
    _call(small)
    with pytest.raises(KeyError, match=r"genes not found: \['NOPE'\]"):
        ae.get.denoised(small, "NOPE")
    small.X = small.X / 3
    with pytest.raises(ValueError, match=r"adata\.X holds values that are not integers"):
        ae.get.denoised(small, small.var_names[0])


# ---- interrupts ------------------------------------------------------------------------------------------------
def test_an_interrupt_before_anything_is_learned_changes_nothing(small, fingerprint, monkeypatch):
    import torch

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    before = fingerprint(small)
    monkeypatch.setattr(torch.Tensor, "backward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _call(small)
    assert fingerprint(small) == before


def test_a_later_interrupt_keeps_what_was_learned_with_a_warning(small, monkeypatch):
    import torch

    plain, calls = torch.Tensor.backward, []

    def interrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) > 8:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", interrupt)
    with pytest.warns(UserWarning, match="Training was interrupted; the best weights so far are kept"):
        values = _call(small)
    assert np.isfinite(values).all()
    assert len(small.uns["ae"]["denoised"]["history"]["step"]) >= 1


def test_a_model_of_another_kind_is_refused(small):
    with pytest.raises(
        TypeError, match=r"argument model: found an object of the class MultimodalAutoencoder; pass an Autoencoder"
    ):
        ae.tl.denoise(small, model=ae.models.MultimodalAutoencoder())
    assert "ae" not in small.uns


def test_log_scale_is_that_of_counts_per_10000(tmp_path):
    adata = ae.datasets.pbmc68k_counts()[:150].copy()
    model = ae.models.Autoencoder(n_models=1, n_latent=8, max_epochs=2).fit(adata, progress=False)
    ae.tl.denoise(adata, model=model, target_sum=1e4)
    ae.tl.denoise(adata, model=model, log1p=True, key_added="log")
    np.testing.assert_allclose(adata.layers["log"], np.log1p(adata.layers["denoised"]), rtol=1e-5)
    ae.tl.denoise(adata, model=model, log1p=True, genes=["LYZ", "CST3"], key_added="two")
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_allclose(ae.get.denoised(back, "CD79A", key="two"), back[:, "CD79A"].layers["log"], rtol=1e-5)
    np.testing.assert_allclose(back[:, "LYZ"].layers["two"].toarray(), back[:, "LYZ"].layers["log"], rtol=1e-6)
    lazy = ae.tl.denoise(adata, model=model, log1p=True, lazy=True, key_added="lazy", copy=True)
    np.testing.assert_allclose(np.asarray(lazy.layers["lazy"]), adata.layers["log"], rtol=1e-5)
    with pytest.raises(ValueError, match="use log1p=False"):
        ae.tl.denoise(adata, model=model, log1p=True, uncertainty=True)


def test_a_handful_of_cells_is_warned_of():
    adata = ae.datasets.simulate_counts(20, 30)
    with pytest.warns(UserWarning, match="20 cells are too few to learn"):
        ae.tl.denoise(adata, n_models=1, n_latent=2)
