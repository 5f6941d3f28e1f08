"""One model is trained once, kept whole, and what is decoded from it later is refused where its source has changed."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import aeverse as ae
from aeverse.models import Autoencoder

SMALL = {"n_models": 1, "n_latent": 3}


@pytest.fixture(autouse=True)
def _few_steps(few_steps):
    """Nothing here is about what is learned."""


@pytest.fixture
def fits(monkeypatch):
    """The seeds of the fits so far."""
    seeds, fit = [], Autoencoder.fit

    def counted(self, *args, **kwargs):
        seeds.append(self.config.random_state)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Autoencoder, "fit", counted)
    return seeds


# ---- trained once ----------------------------------------------------------------------------------------------
def test_denoise_uncertainty_embed_and_dropouts_share_one_model(small, fits, caplog):
    alone = [ae.tl.dropouts(small, copy=True).layers["dropout_prob"], ae.tl.embed(small, copy=True)]
    assert len(fits) == 2
    ae.tl.denoise(small)
    code = small.obsm["X_ae"].copy()
    with caplog.at_level(logging.INFO, "aeverse"):
        ae.tl.denoise(small, uncertainty=True)
        ae.tl.dropouts(small)
        ae.tl.embed(small)
    assert len(fits) == 3
    assert caplog.text.count("the model of uns['ae']['denoised'] is used") == 3
    np.testing.assert_array_equal(small.obsm["X_ae"], code)
    np.testing.assert_array_equal(alone[1].obsm["X_ae"], code)
    np.testing.assert_array_equal(alone[1].varm["ae_loadings"], small.varm["ae_loadings"])
    assert (alone[0] != small.layers["dropout_prob"]).nnz == 0
    assert ae.get.denoised(small, small.var_names[3]).shape == (100, 1)  # embed wrote the same embedding


@pytest.mark.parametrize(
    "same", [lambda x: x.astype(np.int64), lambda x: x.toarray(), sp.csc_matrix], ids=["integers", "dense", "csc"]
)
def test_the_same_counts_in_other_storage_are_the_same_data(small, fits, same):
    ae.tl.denoise(small, **SMALL)
    small.X = same(sp.csr_matrix(small.X))
    ae.tl.denoise(small, **SMALL)
    assert len(fits) == 1


def _other_count(adata):
    x = sp.csr_matrix(adata.X).toarray()
    x[7, 7] += 1
    adata.X = x


def _other_names(adata):
    adata.var_names = adata.var_names[::-1]


def _other_batches(adata):
    adata.obs["batch"] = adata.obs["batch"].to_numpy()[::-1]


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (_other_count, {}),
        (_other_names, {}),
        (_other_batches, {}),
        (None, {"random_state": 1}),
        (None, {"n_latent": 4}),
        (None, {"likelihood": "poisson"}),
        (None, {"regularizer": None}),
        (None, {"batch_key": None}),
        (None, {"mask_var": np.arange(100) < 60}),
    ],
)
def test_other_data_or_parameters_train_another_model(small, fits, change, options):
    ae.tl.denoise(small, **SMALL, batch_key="batch")
    if change:
        change(small)
    ae.tl.denoise(small, **{**SMALL, "batch_key": "batch", **options})
    assert len(fits) == 2


def test_a_model_that_was_given_is_not_taken_for_one_that_was_trained_here(small, model, fits):
    ae.tl.denoise(small, model=model)
    ae.tl.denoise(small, n_models=2, n_latent=4)
    assert len(fits) == 1


# ---- get.model -------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_the_model_comes_back_whole_also_from_a_file(small, tmp_path, fits, kind):
    ae.tl.denoise(small, **SMALL, batch_key="batch")
    getattr(small, f"write_{kind}")(tmp_path / "a")
    again = getattr(ad, f"read_{kind}")(tmp_path / "a")
    for adata in (small, again):
        found = ae.get.model(adata)
        np.testing.assert_array_equal(found.encode(small), small.obsm["X_ae"])
        np.testing.assert_array_equal(found.denoise(small), small.layers["denoised"])
        assert found.reference is not None
    ae.tl.denoise(again, **SMALL, batch_key="batch")
    assert len(fits) == 1


def test_get_model_says_what_is_missing(small):
    with pytest.raises(KeyError, match=r"uns\['ae'\] holds no model; run aeverse\.tl\.denoise"):
        ae.get.model(small)
    ae.tl.embed(small, method="pca", n_latent=2, key_added="X_pca")
    with pytest.raises(KeyError, match=r"uns\['ae'\]\['X_pca'\] holds no model"):
        ae.get.model(small, key="X_pca")
    ae.tl.denoise(small, **SMALL)
    assert ae.get.model(small).n_code == 3
    ae.tl.denoise(small, n_models=1, n_latent=2, key_added="other")
    with pytest.raises(ValueError, match=r"several models; pass key=, one of \['denoised', 'other'\]"):
        ae.get.model(small)
    assert ae.get.model(small, key="denoised").n_code == 3


def test_a_record_that_was_changed_is_refused(small, fits):
    ae.tl.denoise(small, **SMALL)
    arrays = small.uns["ae"]["denoised"]["model"]["arrays"]
    name = next(n for n, a in arrays.items() if a.ndim == 2 and a.dtype == np.float32)
    arrays[name] = arrays[name] + 1
    with pytest.raises(
        ValueError, match=r"uns\['ae'\]\['denoised'\]: the record of the model is not as it was written"
    ):
        ae.get.model(small)


# ---- save_model ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("tool", "options"), [("denoise", SMALL), ("embed", SMALL), ("dropouts", {})])
def test_save_model_saves_what_was_trained(small, tmp_path, tool, options):
    getattr(ae.tl, tool)(small, **options, save_model=tmp_path / "a.ae")
    loaded = ae.models.load(tmp_path / "a.ae")
    np.testing.assert_array_equal(loaded.encode(small), ae.get.model(small).encode(small))


def test_save_model_of_several_modalities(tmp_path):
    import mudata as md

    rng = np.random.default_rng(0)
    factors = rng.normal(size=(60, 2))
    parts = {m: ad.AnnData(factors @ rng.normal(size=(2, 20)) + rng.normal(size=(60, 20))) for m in ("one", "two")}
    mdata = md.MuData(parts)
    ae.tl.multimodal_embed(mdata, save_model=tmp_path / "a.ae")
    np.testing.assert_array_equal(ae.models.load(tmp_path / "a.ae").encode(mdata), mdata.obsm["X_ae"])
    ae.tl.predict_modality(mdata, "two", save_model=tmp_path / "b.ae")
    assert isinstance(ae.models.load(tmp_path / "b.ae"), ae.models.MultimodalAutoencoder)


@pytest.mark.parametrize("tool", ["denoise", "embed", "dropouts"])
def test_a_model_that_cannot_be_saved_leaves_the_object_as_it_was(
    small, tmp_path, fits, fingerprint, monkeypatch, tool
):
    before = fingerprint(small)
    with pytest.raises(FileNotFoundError, match="must be a file in a folder that exists"):
        getattr(ae.tl, tool)(small, save_model=tmp_path / "nowhere" / "a.ae")
    assert not fits  # said before training

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(ae.io, "save_arrays", full)
    with pytest.raises(OSError, match="no space left"):
        getattr(ae.tl, tool)(small, save_model=tmp_path / "a.ae")
    assert fingerprint(small) == before


def test_a_method_without_a_model_of_ours_saves_none(small, tmp_path):
    with pytest.raises(ValueError, match="method='pca' cannot use save_model="):
        ae.tl.embed(small, method="pca", save_model=tmp_path / "a.ae")


# ---- what changed since ----------------------------------------------------------------------------------------
def _double(adata):
    adata.X = adata.X * 2


def _other_code(adata):
    adata.obsm["X_ae"] = np.ones_like(adata.obsm["X_ae"])


def _code_of_other_cells(adata):
    adata.obsm["X_ae"] = adata.obsm["X_ae"][::-1].copy()


def _no_batches(adata):
    del adata.obs["batch"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_double, r"counts in adata\.X"),
        (_other_count, r"counts in adata\.X, or the names of genes, of 1 of 100 cells"),
        (_other_names, "names of genes"),
        (_other_batches, r"covariates in obs\['batch'\] of 100 of 100"),
        (_no_batches, r"obs\['batch'\] were deleted"),
        (_other_code, r"embedding in obsm\['X_ae'\]"),
        (_code_of_other_cells, r"embedding in obsm\['X_ae'\]"),
    ],
)
def test_get_denoised_names_what_changed(small, change, named):
    ae.tl.denoise(small, **SMALL, batch_key="batch")
    gene = small.var_names[0]
    change(small)
    with pytest.raises(ValueError, match=named + r".*Call aeverse\.tl\.denoise"):
        ae.get.denoised(small, gene)


@pytest.mark.parametrize("merge", ["first", "same", "unique"])
def test_get_denoised_refuses_parts_that_were_denoised_on_their_own(small, merge):
    parts = [small[:50].copy(), small[50:].copy()]
    for part in parts:
        ae.tl.denoise(part, **SMALL)
    joined = ad.concat(parts, uns_merge=merge)
    with pytest.raises(ValueError, match="concatenated"):
        ae.get.denoised(joined, small.var_names[0])


def test_cells_and_genes_may_be_reordered_taken_out_and_put_together_again(small):
    ae.tl.denoise(small, **SMALL, batch_key="batch")
    gene = small.var_names[4]
    expected = pd.Series(small[:, gene].layers["denoised"][:, 0], small.obs_names)
    shuffled = small[np.random.default_rng(0).permutation(100)].copy()[:, ::-1].copy()
    joined = ad.concat([small[60:].copy(), small[:30].copy()], uns_merge="first")
    for adata in (shuffled, joined, small[small.obs["batch"].to_numpy() == "b"]):
        found = ae.get.denoised(adata, gene)[gene]
        np.testing.assert_allclose(found, expected[found.index], rtol=1e-5, atol=1e-7)


def test_global_state_of_torch_stays(small):
    ae.tl.denoise(small, **SMALL)
    before = torch.get_rng_state()
    ae.get.model(small)
    ae.tl.dropouts(small)
    assert torch.equal(torch.get_rng_state(), before)
