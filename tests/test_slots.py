"""Inputs that must work, those that must be refused, and that a refused or interrupted call changes nothing."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import aeverse as ae
from aeverse import _slots

pytestmark = pytest.mark.usefixtures("few_steps")


def _unsorted(x):
    x = x.tocsr(copy=True)
    for start, stop in zip(x.indptr[:-1], x.indptr[1:], strict=True):
        x.indices[start:stop], x.data[start:stop] = x.indices[start:stop][::-1].copy(), x.data[start:stop][::-1].copy()
    x.has_sorted_indices = False
    return x


def _with_duplicates(x):
    """Every entry twice: all but one molecule, and that molecule (so that zeros are stored as well)."""
    data = np.stack([x.data - 1, np.ones_like(x.data)], 1).ravel()
    return sp.csr_matrix((data, np.repeat(x.indices, 2), x.indptr * 2), shape=x.shape)


def _read_only(x):
    x = x.copy()
    for part in (x.data, x.indices, x.indptr) if sp.issparse(x) else (x,):
        part.flags.writeable = False
    return x


def _dask(x, chunk=np.asarray):
    array = pytest.importorskip("dask.array", reason="dask is not installed")
    return array.from_array(x.toarray(), chunks=(30, x.shape[1])).map_blocks(chunk)


def _parts(x):
    return (
        (x.data, x.indices, x.indptr) if sp.issparse(x) else (() if "dask" in type(x).__module__ else (np.asarray(x),))
    )


FORMS = {
    "csr": lambda x: x,
    "csc": lambda x: x.tocsc(),
    "csr array": sp.csr_array,
    "csc array": sp.csc_array,
    "dense": lambda x: x.toarray(),
    "fortran order": lambda x: np.asfortranarray(x.toarray()),
    "every other column": lambda x: np.repeat(x.toarray(), 2, axis=1)[:, ::2],
    "matrix": lambda x: np.matrix(x.toarray()),
    "unsorted": _unsorted,
    "duplicate entries": _with_duplicates,
    "read-only": _read_only,
    "read-only dense": lambda x: _read_only(x.toarray()),
    "dask": _dask,
    "sparse dask": lambda x: _dask(x, sp.csr_matrix),
    "float16": lambda x: x.toarray().astype("float16"),
    **{t: (lambda x, t=t: x.astype(t)) for t in ("float64", "uint8", "uint16", "uint64", "int8", "int32", "int64")},
}


# ---- what must work --------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:.*matrix.*")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_counts_gives_the_same(small, form):
    expected = ae.pp.thin_counts(small, copy=True)
    adata = ad.AnnData(small.X, obs=small.obs, var=small.var)
    adata.X = FORMS[form](small.X)
    x = adata.X
    before = [part.copy() for part in _parts(x)]
    ae.pp.thin_counts(adata)
    assert (adata.layers["thinned"] != expected.layers["thinned"]).nnz == 0
    assert adata.X is x
    assert all((a == b).all() for a, b in zip(before, _parts(x), strict=True))


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint16", "float16", "float64"])
def test_counts_are_told_from_other_values_whatever_their_type(small, dtype):
    adata = ad.AnnData(small.X.toarray().astype(dtype), var=small.var)
    assert ae.models.Autoencoder().settings_for(adata).likelihood == "nb"


def test_booleans_are_counts(small):
    small.X = small.X > 0
    ae.pp.thin_counts(small)
    assert small.layers["thinned"].max() == 1


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_backed_files_are_read_and_not_written(small, form, mode, tmp_path, quick):
    expected = ae.tl.denoise(small, copy=True, **quick).layers["denoised"]
    small.X = FORMS[form](small.X)
    small.layers["counts"] = small.X.copy()
    small.write_h5ad(tmp_path / "a.h5ad")
    content = (tmp_path / "a.h5ad").read_bytes()
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed=mode)
    try:
        copied = ae.tl.denoise(backed[:50], copy=True, layer="counts", **quick)
        assert copied.layers["denoised"].shape == (50, 100)
        with pytest.raises(ValueError, match=r"view of a file.*copy=True"):
            ae.tl.denoise(backed[:50], **quick)
        ae.tl.denoise(backed, **quick)
        np.testing.assert_array_equal(backed.layers["denoised"], expected)
        np.testing.assert_array_equal(ae.get.denoised(backed, list(backed.var_names)), expected)
    finally:
        backed.file.close()
    assert mode == "r+" or (tmp_path / "a.h5ad").read_bytes() == content


def test_views_become_objects_and_their_parents_stay(small, fingerprint, quick):
    before = fingerprint(small)
    view = small[10:60, ::2]
    ae.tl.denoise(view, **quick)
    assert not view.is_view
    assert view.layers["denoised"].shape == (50, 50)
    assert fingerprint(small) == before
    view = small[10:60, ::2]
    copied = ae.tl.denoise(view, copy=True, **quick)
    assert view.is_view
    assert "denoised" in copied.layers


def test_a_layer_is_read_where_asked_and_raw_never(small, quick):
    expected = ae.tl.denoise(small, copy=True, **quick).layers["denoised"]
    small.layers["counts"] = small.X.copy()
    small.raw = small.copy()
    small.X = small.X / 7
    with pytest.raises(ValueError, match="not integers"):
        ae.tl.denoise(small, **quick)
    ae.tl.denoise(small, layer="counts", **quick)
    np.testing.assert_array_equal(small.layers["denoised"], expected)
    np.testing.assert_array_equal(ae.get.denoised(small, list(small.var_names)), expected)


# ---- what must be refused --------------------------------------------------------------------------------------
def _replaced(value):
    def change(adata):
        x = adata.X.toarray().astype(np.float64)
        x[3, 4] = value
        adata.X = x

    return change


def _obs(key, value):
    def change(adata):
        adata.obs[key] = value

    return change


REFUSED = {
    "negative": (_replaced(-2), {}, ValueError, "adata.X holds negative values (minimum -2)"),
    "NaN": (_replaced(np.nan), {}, ValueError, "adata.X holds NaN or infinite values"),
    "infinite": (_replaced(np.inf), {}, ValueError, "adata.X holds NaN or infinite values"),
    "no integer": (_replaced(2.5), {}, ValueError, "adata.X holds values that are not integers (such as 2.5)"),
    "beyond float32": (_replaced(2.0**24 + 2), {}, ValueError, "adata.X holds values above 16777216"),
    "objects": (
        lambda a: setattr(a, "X", a.X.toarray().astype(object)),
        {},
        TypeError,
        "adata.X holds object, not numbers",
    ),
    "strings": (lambda a: setattr(a, "X", a.X.toarray().astype(str)), {}, TypeError, "not numbers"),
    "complex": (lambda a: setattr(a, "X", a.X.toarray() * 1j), {}, TypeError, "adata.X holds complex64, not numbers"),
    "no counts": (lambda a: setattr(a, "X", a.X * 0), {}, ValueError, "adata.X holds no counts (shape (100, 100))"),
    "no X": (lambda a: setattr(a, "X", None), {}, ValueError, "adata.X is empty"),
    "no layer": (None, {"layer": "spliced"}, KeyError, "adata.layers['spliced'] does not exist; layers are: none"),
    "no batch": (None, {"batch_key": "lane"}, KeyError, "'lane' is not a column of obs; columns are: ["),
    "batch missing": (
        _obs("lane", ["a", None] * 50),
        {"batch_key": "lane"},
        ValueError,
        "adata.obs['lane'] has 50 missing values",
    ),
    "no mask": (None, {"mask_var": "hvg"}, KeyError, "mask_var='hvg' is not a column of adata.var"),
    "empty mask": (None, {"mask_var": np.zeros(100, bool)}, ValueError, "mask_var selects no feature"),
    "short mask": (None, {"mask_var": np.ones(3, bool)}, ValueError, "or 100 booleans, found bool, shape (3,)"),
    "numeric mask": (
        lambda a: a.var.insert(0, "hvg", 1),
        {"mask_var": "hvg"},
        TypeError,
        "adata.var['hvg'] must hold booleans",
    ),
    "foreign code": (
        lambda a: a.obsm.update(X_ae=np.ones((100, 2))),
        {},
        ValueError,
        "obsm['X_ae'] exists and was not written by",
    ),
    "foreign store": (
        lambda a: a.uns.update(ae=[1]),
        {},
        ValueError,
        "uns['ae'] holds something that aeverse did not write",
    ),
    "likelihood": (
        None,
        {"likelihood": "zinb"},
        ValueError,
        "argument likelihood: found 'zinb'; pass '",
    ),
    "regularizer": (None, {"regularizer": "magic"}, ValueError, "argument regularizer: found 'magic'; pass"),
    "latent": (None, {"n_latent": 0}, ValueError, "argument n_latent: found 0; pass an integer of at least 1"),
    "latent float": (None, {"n_latent": 2.5}, TypeError, "argument n_latent: found 2.5; pass an integer"),
    "seed": (None, {"random_state": None}, TypeError, "argument random_state: found None; pass an integer"),
    "device": (None, {"device": "abacus"}, ValueError, "device='abacus' is not a device"),
    "no name": (None, {"key_added": ""}, ValueError, "argument key_added: found ''; pass a name"),
    "dots": (None, {"key_added": ".."}, ValueError, "argument key_added: found '..'; pass a name"),
    "NUL": (
        None,
        {"key_added": "a\0b"},
        ValueError,
        r"argument key_added: found 'a\x00b'; pass a name",
    ),
    "slash": (None, {"key_added": "a/b"}, ValueError, "argument key_added: found 'a/b'; pass a name"),
    "model file": (None, {"model": "nowhere.ae"}, FileNotFoundError, "No model file at 'nowhere.ae'"),
    "no model": (None, {"model": ae.models.Autoencoder()}, RuntimeError, "not fitted"),
}


@pytest.mark.parametrize("function", ["denoise", "embed"])
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_its_name_and_nothing_changes(small, fingerprint, quick, case, function):
    change, arguments, error, message = REFUSED[case]
    if change is not None:
        change(small)
    if function == "embed":  # which takes what is no count for continuous values, unless told
        quick["likelihood"] = "nb"
    before = fingerprint(small)
    with pytest.raises(error, match=re.escape(message)):
        getattr(ae.tl, function)(small, **{**quick, **arguments})
    assert fingerprint(small) == before


@pytest.mark.parametrize("name", ["counts", "raw_counts"])
def test_the_hint_names_a_layer_that_exists(small, name):
    small.layers[name] = small.X.copy()
    small.X = small.X * 0.5
    with pytest.raises(ValueError, match=f"Pass layer='{name}', which exists here"):
        ae.tl.denoise(small)
    with pytest.raises(ValueError, match="Keep a copy before you normalize"):
        ae.tl.denoise(ad.AnnData(small.X))


def test_other_objects_are_refused_by_type(small):
    for data in (small.X, small.to_df(), None):
        with pytest.raises(TypeError, match=r"tl\.denoise, argument adata: found .*; pass an AnnData"):
            ae.tl.denoise(data)


def test_too_few_molecules_are_refused_or_give_a_sane_result():
    for seed in range(12):  # with some seeds the only molecule is held out
        adata = ad.AnnData(np.array([[1.0, 0], [0, 0]], np.float32))
        try:
            ae.tl.denoise(adata, n_models=1, n_latent=2, random_state=seed)
        except ValueError as error:
            assert "1 molecules, too few to learn from" in str(error)  # noqa: PT017
        else:
            np.testing.assert_allclose(adata.layers["denoised"], [[1, 0], [0, 0]], atol=1e-6)


# ---- all or nothing --------------------------------------------------------------------------------------------
def _results(small, bad):
    return _slots.Results(
        name="x",
        record={"params": {"a": 1, "b": None, "c": (1, 2), "d": ["x"]}},
        layers={"x": small.X.copy()},
        obsm={"X_x": np.ones((100, 2))},
        obs={"x": np.arange(100)},
        var={"x": bad},
    )


@pytest.mark.parametrize("again", [False, True])
def test_an_error_in_the_middle_of_writing_puts_everything_back(small, fingerprint, again):
    if again:
        _slots.write(small, _results(small, np.zeros(100)))
    before = fingerprint(small)
    with pytest.raises(ValueError, match="Length of values"):
        _slots.write(small, _results(small, np.zeros(99)))
    assert fingerprint(small) == before


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_in_the_middle_of_writing_puts_everything_back(small, fingerprint, monkeypatch, quick, again):
    if again:
        ae.tl.denoise(small, **quick)
    before = fingerprint(small)
    plain, raised = pd.DataFrame.__setitem__, []

    def interrupt(frame, key, value):
        if key == "denoised_deviance_explained" and not raised:
            raised.append(key)
            raise KeyboardInterrupt
        plain(frame, key, value)

    monkeypatch.setattr(pd.DataFrame, "__setitem__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ae.tl.denoise(small, **{**quick, "random_state": 1})
    assert raised
    assert fingerprint(small) == before


def test_results_are_owned_by_the_call_that_wrote_them_last(small, quick):
    ae.tl.denoise(small, **quick)
    ae.tl.embed(small, n_latent=3)  # takes over obsm["X_ae"]
    assert "obsm/X_ae" not in small.uns["ae"]["denoised"]["writes"]
    assert list(small.uns["ae"]["X_ae"]["writes"]) == ["obsm/X_ae", "varm/ae_loadings"]
    ae.tl.denoise(small, **quick)
    assert list(small.uns["ae"]["X_ae"]["writes"]) == ["varm/ae_loadings"]
    assert small.obsm["X_ae"].shape == (100, 4)


def test_a_record_is_not_replaced_by_another_kind_of_result(small, quick, fingerprint):
    ae.tl.denoise(small, **quick)
    before = fingerprint(small)
    with pytest.raises(ValueError, match=r"uns\['ae'\]\['denoised'\] belongs to another result"):
        ae.tl.embed(small, key_added="denoised")
    assert fingerprint(small) == before


# ---- pieces ----------------------------------------------------------------------------------------------------
def test_records_are_reduced_to_what_files_hold():
    record = _slots.writable({"none": None, "t": (1, 2.5), "s": ["a"], "mixed": [1, "a"], "deep": {1: None, "b": True}})
    assert record.keys() == {"t", "s", "mixed", "deep"}
    assert record["deep"] == {"b": True}
    assert record["mixed"] == '[1, "a"]'
    assert record["s"].dtype == object


def test_nullable_booleans_are_a_mask_unless_one_is_missing(small):
    small.var["hvg"] = pd.array([True] * 60 + [False] * 40, dtype="boolean")
    assert _slots.read_mask(small, "hvg").sum() == 60
    small.var.loc[small.var_names[0], "hvg"] = pd.NA
    with pytest.raises(TypeError, match="must hold booleans, all of them"):
        _slots.read_mask(small, "hvg")


def test_positions_name_what_is_unknown_or_double():
    index = pd.Index(["a", "b", "b", "c"])
    assert list(_slots.positions(["c", "a"], index)) == [3, 0]
    with pytest.raises(KeyError, match=r"genes not found: \['x'\] \(1 of 2\)"):
        _slots.positions(["a", "x"], index)
    with pytest.raises(ValueError, match=r"\['b'\] occur more than once"):
        _slots.positions("b", index)


def test_warnings_point_at_the_line_of_the_user(small):
    small.var_names = ["double"] * 100
    with pytest.warns(UserWarning, match="not unique") as caught:
        ae.pp.check_counts(small)
    assert {w.filename for w in caught} == {__file__}
