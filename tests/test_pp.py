import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import aeverse as ae


def test_thinned_parts_add_up_and_have_their_share(pbmc):
    adata = pbmc.copy()
    ae.pp.thin_counts(adata, 0.9)
    kept, rest = adata.layers["thinned"], adata.layers["thinned_rest"]
    assert ((kept + rest) != adata.X).nnz == 0
    assert kept.sum() / adata.X.sum() == pytest.approx(0.9, abs=0.01)
    for part in (kept, rest):
        assert isinstance(part, sp.csr_matrix)
        assert part.data.min() >= 1
        assert (part.data == np.rint(part.data)).all()


def test_thinned_parts_are_independent_given_a_poisson_rate():
    import anndata as ad

    adata = ad.AnnData(np.random.default_rng(0).poisson(8.0, (400, 200)).astype(np.float32))
    ae.pp.thin_counts(adata, 0.5)
    kept, rest = (adata.layers[k].toarray().ravel() for k in ("thinned", "thinned_rest"))
    assert abs(np.corrcoef(kept, rest)[0, 1]) < 4 / np.sqrt(kept.size)
    assert kept.var() == pytest.approx(4, rel=0.05)


def test_thinning_depends_on_the_seed_alone(small, random_states):
    before = random_states()
    copies = [ae.pp.thin_counts(small, random_state=s, copy=True).layers["thinned"] for s in (0, 0, 1)]
    assert (copies[0] != copies[1]).nnz == 0
    assert (copies[0] != copies[2]).nnz > 0
    assert random_states() == before
    assert not small.layers


@given(p=st.one_of(st.floats(max_value=0), st.floats(min_value=1), st.just(float("nan"))))
def test_shares_outside_0_and_1_are_refused(p):
    with pytest.raises(ValueError, match=r"pp.thin_counts, argument p: found .*; pass a number above 0 and below 1"):
        ae.pp.thin_counts(p=p)


def test_thinning_overwrites_its_own_layers_only(small, fingerprint):
    ae.pp.thin_counts(small)
    ae.pp.thin_counts(small, 0.2)
    small.layers["mine_rest"] = small.X.copy()
    before = fingerprint(small)
    with pytest.raises(ValueError, match=r"layers\['mine_rest'\] exists and was not written by aeverse"):
        ae.pp.thin_counts(small, key_added="mine")
    assert fingerprint(small) == before


def test_check_counts_is_silent_about_counts_and_writes_nothing(small, fingerprint):
    small = small[:, np.asarray(small.X.sum(0)).ravel() > 0].copy()
    before = fingerprint(small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ae.pp.check_counts(small) is None
    assert fingerprint(small) == before


def test_check_counts_warns_of_what_is_empty_or_double(small):
    x = small.X.toarray()
    x[[1, 5]], x[:, 7] = 0, 0
    n_genes = int((x.sum(0) == 0).sum())
    small.X = x
    small.var_names = ["twice", "twice", *small.var_names[2:]]
    with pytest.warns(UserWarning, match="no counts|unique") as caught:
        ae.pp.check_counts(small)
    text = " | ".join(str(w.message) for w in caught)
    assert "2 cells have no counts" in text
    assert f"{n_genes} genes have no counts" in text
    assert "var_names_make_unique" in text
    assert all(w.filename == __file__ for w in caught)  # they point at the user's line


def test_check_counts_refuses_normalized_values(small):
    small.layers["counts"] = small.X.copy()
    small.X = small.X / 3
    with pytest.raises(ValueError, match=r"adata\.X holds values that are not integers.*Pass layer='counts'"):
        ae.pp.check_counts(small)
    ae.pp.check_counts(small[:, np.asarray(small.X.sum(0)).ravel() > 0], layer="counts")
