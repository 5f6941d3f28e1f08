import numpy as np
import pytest

import aeverse as ae

pytestmark = pytest.mark.usefixtures("few_steps")


def test_only_the_code_and_its_record_are_written(small):
    slots = {s: list(getattr(small, s)) for s in ("layers", "obs", "var", "varm", "obsp")}
    assert ae.tl.embed(small, n_latent=5, n_models=2) is None
    assert list(small.obsm) == ["X_ae"]
    assert small.obsm["X_ae"].shape == (100, 10)
    assert np.isfinite(small.obsm["X_ae"]).all()
    assert list(small.uns["ae"]) == ["X_ae"]
    assert {s: list(getattr(small, s)) for s in slots} == slots


def test_the_code_is_that_of_the_model_behind(small):
    ae.tl.embed(small, n_latent=5, random_state=2, batch_key="batch", key_added="X_code")
    fitted = ae.models.Autoencoder(n_latent=5, n_models=1, random_state=2).fit(small, batch_key="batch")
    np.testing.assert_array_equal(small.obsm["X_code"], fitted.encode(small))
    assert small.uns["ae"]["X_code"]["params"]["batch_key"] == "batch"


def test_a_fitted_model_or_its_file_is_used(small, model, tmp_path):
    model.save(tmp_path / "m.ae")
    for given in (model, tmp_path / "m.ae"):
        other = ae.tl.embed(small, model=given, copy=True)
        np.testing.assert_array_equal(other.obsm["X_ae"], model.encode(small))
    assert not small.obsm


def test_a_second_call_replaces_its_own_code_only(small):
    ae.tl.embed(small, n_latent=3)
    ae.tl.embed(small, n_latent=4)
    assert small.obsm["X_ae"].shape == (100, 4)
    small.obsm["X_pca"] = np.ones((100, 2))
    with pytest.raises(ValueError, match=r"obsm\['X_pca'\] exists and was not written by aeverse"):
        ae.tl.embed(small, key_added="X_pca")
    assert (small.obsm["X_pca"] == 1).all()


def test_cells_without_counts_have_a_code(small):
    x = small.X.toarray()
    x[3] = 0
    small.X = x
    ae.tl.embed(small, n_latent=3)
    assert np.isfinite(small.obsm["X_ae"]).all()


def test_more_dimensions_than_genes_and_two_cells(small):
    two = small[:2].copy()
    ae.tl.embed(two, n_latent=300)
    assert two.obsm["X_ae"].shape == (2, 300)
    assert np.isfinite(two.obsm["X_ae"]).all()


def test_the_code_tells_cell_types_apart(monkeypatch):
    from sklearn.metrics import silhouette_score

    monkeypatch.undo()  # train in full
    adata = ae.datasets.simulate_counts(400, 150, n_types=3)
    ae.tl.embed(adata, n_latent=8)
    assert silhouette_score(adata.obsm["X_ae"], adata.obs["cell_type"]) > 0.15
