"""Counts that stay in a file: h5ad, zarr, dask and lazy objects give what memory gives, and are never read whole."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import aeverse as ae
from aeverse.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:.*zarr.*", "ignore:Transforming to str index")
N_CELLS, N_GENES, BLOCK = 600, 150, 50


@pytest.fixture(scope="module")
def cells(pbmc):
    """The counts in memory, with batches and another layer; not to be changed."""
    adata = pbmc[:N_CELLS, :N_GENES].copy()
    adata.X = sp.csr_matrix(adata.X, dtype=np.float32)
    adata.obs["batch"] = pd.Categorical(["a", "b"] * (N_CELLS // 2))
    return adata


@pytest.fixture(scope="module")
def files(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.write_h5ad(folder / "a.h5ad")
        cells.write_zarr(folder / "a.zarr")
        dense = cells.copy()
        dense.X = dense.X.toarray()
        dense.write_h5ad(folder / "dense.h5ad")
    return folder


@pytest.fixture
def large(monkeypatch, few_steps):
    """Small matrices are treated as large ones, in blocks of 50 cells; a sample of 400 is kept in memory."""
    from aeverse._slots import _stored
    from aeverse.models._matrix import _on_disk

    monkeypatch.setattr(_stored, "LARGEST_READ", 1000)
    monkeypatch.setattr(_stored, "MOST_ROWS", BLOCK)
    monkeypatch.setattr(_on_disk, "SAMPLE_CELLS", (1, 400))


class Counting:
    """A matrix on disk that remembers how many cells were asked for at once, and refuses to be read whole."""

    def __init__(self, matrix):
        self.matrix, self.asked = matrix, []

    def __getattr__(self, name):
        return getattr(self.matrix, name)

    def to_memory(self):
        raise AssertionError("the whole matrix was read")

    def __getitem__(self, key):
        rows = key[0] if isinstance(key, tuple) else key
        self.asked.append(len(np.arange(self.matrix.shape[0])[rows]))
        return self.matrix[key]


def _backed(path):
    return ad.read_h5ad(path, backed="r")


def _zarr(path):
    zarr = pytest.importorskip("zarr")
    adata = ad.read_zarr(path)
    adata.X = ad.io.sparse_dataset(zarr.open_group(str(path), mode="r")["X"])
    return adata


def _dask(path):
    array = pytest.importorskip("dask.array")
    adata = ad.read_zarr(path)
    x = array.from_array(adata.X.toarray(), chunks=(70, -1))
    adata.X = x.map_blocks(sp.csr_matrix, dtype=x.dtype, meta=sp.csr_matrix((0, 0), dtype=x.dtype))
    return adata


def _lazy(path):
    pytest.importorskip("xarray")
    if not hasattr(ad.experimental, "read_lazy"):
        pytest.skip("this anndata has no read_lazy")
    return ad.experimental.read_lazy(path)


def _several(folder):
    if not hasattr(ad.experimental, "read_lazy"):
        pytest.skip("this anndata has no read_lazy")
    whole = ad.read_zarr(folder / "a.zarr")
    paths = [folder / "first.zarr", folder / "second.h5ad"]
    if not paths[1].exists():
        whole[:200].write_zarr(paths[0])
        whole[200:].write_h5ad(paths[1])
    return ad.concat([ad.experimental.read_lazy(path) for path in paths])


FORMS = {
    "backed h5ad": lambda folder: _backed(folder / "a.h5ad"),
    "backed dense h5ad": lambda folder: _backed(folder / "dense.h5ad"),
    "zarr": lambda folder: _zarr(folder / "a.zarr"),
    "dask": lambda folder: _dask(folder / "a.zarr"),
    "lazy": lambda folder: _lazy(folder / "a.zarr"),
    "several files": _several,
}


@pytest.fixture(scope="module")
def fitted(cells):
    return ae.models.Autoencoder(n_models=2, n_latent=4, max_epochs=3, likelihood="nb").fit(cells, batch_key="batch")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_encoded_and_denoised_as_in_memory(cells, files, fitted, large, form):
    adata = FORMS[form](files)
    code = fitted.encode(cells)
    np.testing.assert_allclose(fitted.encode(adata), code, atol=1e-4)
    dense = fitted.denoise(cells, code=code)
    np.testing.assert_allclose(fitted.denoise(adata, code=code), dense, rtol=1e-4, atol=1e-6)
    lazy = fitted.denoise(adata, code=code, lazy=True)
    np.testing.assert_allclose(lazy[110:320, :9].compute(), dense[110:320, :9], rtol=1e-4, atol=1e-6)
    assert (fitted.dropouts(adata, code=code)[0] - fitted.dropouts(cells, code=code)[0]).max() < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_learned_from(files, large, form, quick):
    adata = FORMS[form](files)
    model = ae.models.Autoencoder(likelihood="nb", **quick).fit(adata)
    again = ae.models.Autoencoder(likelihood="nb", **quick).fit(adata)
    np.testing.assert_array_equal(model.encode(adata), again.encode(adata))  # seeds reproduce
    assert np.isfinite(model.heldout_deviance_explained)


def test_learning_from_a_file_is_as_good_as_in_memory(cells, files, monkeypatch):
    from aeverse._slots import _stored

    options = {"n_models": 1, "n_latent": 8, "likelihood": "nb", "max_epochs": 40, "learning_rate": 0.02}
    inside = ae.models.Autoencoder(**options).fit(cells).score(cells)
    monkeypatch.setattr(_stored, "LARGEST_READ", 1000)
    monkeypatch.setattr(_stored, "MOST_ROWS", BLOCK)
    outside = ae.models.Autoencoder(**options).fit(_backed(files / "a.h5ad")).score(cells)
    assert abs(inside - outside) < 0.01 < inside


def test_a_small_matrix_in_a_file_gives_the_bits_of_memory(cells, files, quick, few_steps):
    inside = ae.models.Autoencoder(likelihood="nb", **quick).fit(cells).encode(cells)
    outside = ae.models.Autoencoder(likelihood="nb", **quick).fit(_backed(files / "a.h5ad")).encode(cells)
    np.testing.assert_array_equal(inside, outside)


def test_nothing_is_read_whole(files, large, quick):
    from aeverse._slots import stored_counts

    adata = _zarr(files / "a.zarr")
    counting = Counting(adata.X)

    class Spy(ad.AnnData):
        @property
        def X(self):
            return counting

    adata.__class__ = Spy
    ae.tl.denoise(adata, lazy=True, **quick)
    first = adata.layers["denoised"][:3].compute()
    assert first.shape == (3, N_GENES)
    np.testing.assert_allclose(ae.get.denoised(adata, list(adata.var_names)).to_numpy()[:3], first, rtol=1e-4)
    assert max(counting.asked) <= BLOCK
    assert stored_counts(adata).matrix is counting


def test_batches_labels_and_kept_out_cells(cells, files, large, quick):
    adata = _backed(files / "a.h5ad")
    model = ae.models.Autoencoder(likelihood="nb", **quick).fit(adata, batch_key="batch")
    assert model.batches == ["a", "b"]
    assert set(model.labels["batch"].categories) == {"a", "b"}
    ae.tl.map_query(adata, model, key_added="mapped")
    assert np.isfinite(adata.obsm["mapped"]).all()
    with pytest.raises(ValueError, match="regularizer='graph' needs all counts in memory"):
        ae.models.Autoencoder(likelihood="nb", regularizer="graph", **quick).fit(adata)


def test_what_a_file_holds_is_checked_and_inferred(cells, tmp_path, large, quick):
    assert ae.models.Autoencoder().settings_for(cells).likelihood == "nb"
    broken = cells.copy()
    broken.X.data[-1] = 0.5  # in the last block
    broken.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(ValueError, match=r"adata\.X holds values that are not integers"):
        ae.tl.embed(_backed(tmp_path / "b.h5ad"), likelihood="nb", **quick)


def test_a_model_trained_from_a_file_is_not_trained_again(files, large, quick, caplog):
    adata = _zarr(files / "a.zarr")
    ae.tl.denoise(adata, lazy=True, **quick)
    with caplog.at_level("INFO", logger="aeverse"):
        ae.tl.embed(adata, likelihood="nb", key_added="X_again", **quick)
    assert "is used: it was trained on these data" in caplog.text
    np.testing.assert_array_equal(adata.obsm["X_again"], adata.obsm["X_ae"])


@pytest.mark.parametrize(("source", "out"), [("a.h5ad", "b.zarr"), ("a.zarr", "b.h5ad"), ("dense.h5ad", "b.h5ad")])
def test_the_command_goes_from_file_to_file(cells, files, tmp_path, large, source, out):
    pytest.importorskip("dask.array")
    options = ["--n-models", "1", "--n-latent", "4"]
    assert main(["denoise", str(files / source), str(tmp_path / out), *options]) == 0
    again = (ad.read_zarr if out.endswith("zarr") else ad.read_h5ad)(tmp_path / out)
    assert again.obsm["X_ae"].shape == (N_CELLS, 4)
    assert (sp.csr_matrix(again.X) != cells.X).nnz == 0
    assert isinstance(again.layers["denoised"], np.ndarray)
    genes = list(again.var_names[:5])
    np.testing.assert_allclose(ae.get.denoised(again, genes), again[:, genes].layers["denoised"], rtol=1e-4, atol=1e-6)


def test_jobs_with_a_file_each_and_one_model_embed_what_one_process_does(cells, tmp_path, few_steps):
    parts = {"whole": slice(None), "a": slice(0, 250), "b": slice(250, None)}
    for name, rows in parts.items():
        ad.AnnData(cells.X[rows], obs=cells.obs[rows], var=cells.var).write_h5ad(tmp_path / f"{name}.h5ad")
        model = ["--save-model" if name == "whole" else "--model", str(tmp_path / "fit.ae")]
        assert main(["embed", str(tmp_path / f"{name}.h5ad"), str(tmp_path / f"{name}_embedded.h5ad"), *model]) == 0
    whole, *codes = (ad.read_h5ad(tmp_path / f"{name}_embedded.h5ad").obsm["X_ae"] for name in parts)
    np.testing.assert_allclose(np.concatenate(codes), whole, rtol=1e-4, atol=1e-4 * np.abs(whole).max())


def test_the_command_keeps_layers_and_raw(cells, tmp_path, large):
    pytest.importorskip("dask.array")
    adata = cells.copy()
    adata.raw = adata.copy()
    adata.layers["counts"], adata.X = adata.X.copy(), adata.X.toarray() / 2
    adata.write_h5ad(tmp_path / "in.h5ad")
    options = ["--n-models", "1", "--n-latent", "4", "--layer", "counts"]
    assert main(["embed", str(tmp_path / "in.h5ad"), str(tmp_path / "out.h5ad"), *options]) == 0
    again = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(again.X, adata.X)
    assert (again.layers["counts"] != cells.X).nnz == 0
    assert (again.raw.X != cells.X).nnz == 0
    assert list(again.obs["batch"]) == list(cells.obs["batch"])
