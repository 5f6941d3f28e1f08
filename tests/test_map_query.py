"""New samples in the code of a trained model: codes, labels, p-values, from the model's file alone."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import aeverse as ae
from aeverse.models._shared._reference import MOST_KEPT, Reference, calibration_rows, reference_rows

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore:Cannot join columns:UserWarning")


@pytest.fixture(scope="module")
def cells():
    """Five types; the last one is left out of training."""
    adata = ae.datasets.simulate_counts(900, 120, n_types=5, random_state=1)
    adata.obs["batch"] = pd.Categorical(np.where(np.arange(900) % 2, "a", "b"))
    adata.obs["score"] = np.arange(900.0)
    adata.obs["name"] = adata.obs_names.astype(str)
    return adata


@pytest.fixture(scope="module")
def known(cells):
    return (cells.obs["cell_type"] != "type 4").to_numpy()


@pytest.fixture(scope="module")
def fitted(cells, known):
    return ae.models.Autoencoder(n_models=1, n_latent=8).fit(cells[:600][known[:600]].copy())


@pytest.fixture
def query(cells):
    return cells[600:].copy()


# ---- what is written ---------------------------------------------------------------------------------------------
def test_the_file_alone_gives_codes_labels_and_p_values(fitted, query, known, tmp_path):
    fitted.save(tmp_path / "model.ae")
    columns = list(query.obs)
    assert ae.tl.map_query(query, tmp_path / "model.ae", transfer=["cell_type"]) is None
    np.testing.assert_allclose(query.obsm["X_ae"], fitted.encode(query), atol=1e-5)
    assert list(query.obs)[len(columns) :] == [
        *("ae_typicality", "cell_type_predicted", "cell_type_confidence", "cell_type_set")
    ]
    own = known[600:]
    right = query.obs["cell_type_predicted"].astype(str) == query.obs["cell_type"].astype(str)
    assert right[own].mean() > 0.95
    assert query.obs["cell_type_confidence"][own].mean() > 0.9
    p = query.obs["ae_typicality"].to_numpy()
    assert p.min() > 0
    assert p.max() <= 1
    assert np.median(p[~own]) < 0.1 < np.median(p[own])
    again = ae.tl.map_query(query, fitted, transfer="cell_type", copy=True)
    np.testing.assert_allclose(again.obs["ae_typicality"], p)


def test_the_results_can_be_written_to_a_file(fitted, query, tmp_path):
    ae.tl.map_query(query, fitted, transfer=["cell_type", "batch"])
    query.write_h5ad(tmp_path / "query.h5ad")
    back = ad.read_h5ad(tmp_path / "query.h5ad")
    assert list(back.obs["cell_type_predicted"]) == list(query.obs["cell_type_predicted"])
    assert back.uns["ae"]["X_ae"]["params"]["model"] == "Autoencoder"


def test_only_columns_of_labels_are_kept(fitted):
    assert set(fitted.labels) == {"cell_type", "batch"}  # no numbers, no names of cells
    assert list(fitted.labels["cell_type"].categories) == ["type 0", "type 1", "type 2", "type 3"]


def test_a_model_file_holds_no_names_of_cells(fitted, cells, tmp_path):
    fitted.save(tmp_path / "model.ae")
    assert b"cell 17" not in (tmp_path / "model.ae").read_bytes()


def test_labels_that_came_later_are_taken_from_a_reference(fitted, query, cells):
    later = cells[:600].copy()
    later.obs["late"] = pd.Categorical(later.obs["cell_type"].astype(str).str.replace("type", "kind"))
    later.obs.loc[later.obs_names[:50], "late"] = np.nan
    ae.tl.map_query(query, fitted, transfer="late", reference=later)
    right = query.obs["late_predicted"].astype(str).str[-1] == query.obs["cell_type"].astype(str).str[-1]
    assert right.mean() > 0.95  # the fifth type is in the reference
    assert "cell_type_predicted" not in query.obs


def test_unknown_labels_are_never_transferred(cells):
    some = cells[:200].copy()
    words = some.obs["cell_type"].astype(str)
    words[::3] = "unknown"
    some.obs["told"] = words
    model = ae.models.Autoencoder(n_models=1, n_latent=4, max_epochs=2).fit(some)
    query = cells[200:260].copy()
    ae.tl.map_query(query, model, transfer="told")
    assert "unknown" not in list(query.obs["told_predicted"].cat.categories)
    assert query.obs["told_predicted"].notna().all()


# ---- p-values ----------------------------------------------------------------------------------------------------
def test_p_values_are_uniform_for_samples_like_the_training_data():
    """On average over calibration sets 5 % are flagged at 0.05: codes that no net has seen."""
    rng = np.random.default_rng(0)
    flagged = []
    for _ in range(60):
        code = rng.standard_t(4, size=(500, 4))
        reference = Reference.of(code[:300], {}, n_unseen=100)
        flagged.append([(reference.p_values(code[300:]) <= alpha).mean() for alpha in (0.05, 0.5)])
    assert np.mean(flagged, 0)[0] == pytest.approx(0.05, abs=0.012)
    assert np.mean(flagged, 0)[1] == pytest.approx(0.5, abs=0.03)


def test_samples_for_calibration_are_kept_out_of_training():
    for n, size in ((2, 0), (100, 20), (450, 50), (1000, 50), (4000, 200), (50_000, 500)):
        learned, kept_out = calibration_rows(n, 0.05, 0)
        assert len(kept_out) == size
        assert sorted([*learned, *kept_out]) == list(range(n))
    assert len(calibration_rows(100, 0.0, 0)[1]) == 0
    assert len(reference_rows(50_000, 0)) == MOST_KEPT


def test_in_distribution_cells_and_a_new_type_on_real_data(data_dir):
    mdata = md.read_h5mu(data_dir / "mosaic_pbmc15k.h5mu")
    rna = mdata["rna"][mdata.obs.loc[mdata["rna"].obs_names, "cell_type"].to_numpy() != "unknown"]
    rna = rna[np.random.default_rng(0).permutation(rna.n_obs)[:3600], np.arange(0, 4000, 4)].copy()
    types = mdata.obs.loc[rna.obs_names, "cell_type"].astype(str).to_numpy()
    rna.obs["cell_type"] = types
    half = np.arange(rna.n_obs) < 1800
    model = ae.models.Autoencoder(n_models=1).fit(rna[half & (types != "B")].copy())
    query = rna[~half].copy()
    ae.tl.map_query(query, model, transfer="cell_type")
    new, p = types[~half] == "B", query.obs["ae_typicality"].to_numpy()
    above = (p[new][:, None] < p[~new]).mean() + 0.5 * (p[new][:, None] == p[~new]).mean()
    assert above > 0.9  # the area under the ROC curve
    assert 0.01 < (p[~new] <= 0.05).mean() < 0.10  # of about 90 calibration cells: 0.05 +- 0.023
    right = (query.obs["cell_type_predicted"].astype(str) == types[~half])[~new]
    assert right.mean() > 0.85
    sure = (query.obs["cell_type_confidence"] > 0.9)[~new]
    assert right[sure].mean() > right[~sure].mean() + 0.1  # the confidence says something


# ---- prediction sets -----------------------------------------------------------------------------------------------
def overlapping(rng, n):
    """Codes of four kinds: two that overlap, a wide one, and one of 3 % of the samples."""
    kind = rng.choice(4, n, p=[0.4, 0.3, 0.27, 0.03])
    centers = np.array([[0, 0], [1.5, 0], [0, 9], [9, 0]])
    return centers[kind] + rng.normal(size=(n, 2)) * np.array([1, 1, 3, 0.5])[kind][:, None], kind


def sets_of(code, kind, n_seen, n_unseen, alpha):
    labels = pd.Categorical.from_codes(kind[: n_seen + n_unseen], list("abcd"))
    reference = Reference.of(code[: n_seen + n_unseen], {"kind": labels}, n_unseen)
    return reference.possible("kind", code[n_seen + n_unseen :], alpha)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n_unseen", [0, 150])
def test_prediction_sets_hold_the_true_label_as_often_as_asked(alpha, n_unseen):
    rng = np.random.default_rng(0)
    covered, rare, sizes = [], [], []
    for _ in range(12):
        code, kind = overlapping(rng, 600 + n_unseen + 600)
        possible = sets_of(code, kind, 600, n_unseen, alpha)
        new = kind[-600:]
        covered.append(possible[np.arange(600), new].mean())
        rare.append(possible[new == 3, 3].mean())
        sizes.append(possible.sum(1).mean())
    assert np.mean(covered) == pytest.approx(1 - alpha, abs=0.025)
    assert np.mean(rare) > 1 - alpha - 0.1  # though most of the rest could be missed at no cost to the mean
    assert np.mean(sizes) < 1.6


def test_a_sample_between_two_labels_has_both_and_a_strange_one_has_none():
    code, kind = overlapping(np.random.default_rng(1), 800)
    there = np.array([[0.75, 0.0], [-1.5, 0.0], [30.0, 30.0]])
    code = np.vstack([code, there])
    assert sets_of(code, kind, 600, 200, 0.1).tolist() == [
        [True, True, False, False],
        [True, False, False, False],
        [False, False, False, False],
    ]


def test_strange_samples_have_no_label_though_few_unseen_samples_set_the_level():
    """Unseen samples lie further out than those that a net has learned: some beyond all of them, but near."""
    rng = np.random.default_rng(0)
    empty, covered = [], []
    for _ in range(20):
        kind = rng.integers(0, 3, 600)
        spread = np.where(np.arange(600) < 200, 1.0, 1.6)[:, None]  # the first 200 are learned, 24 unseen, the rest new
        code = np.eye(3)[kind] * 20 + rng.normal(size=(600, 3)) * spread
        labels = pd.Categorical.from_codes(kind[:224], list("abc"))
        reference = Reference.of(code[:224], {"kind": labels}, n_unseen=24)
        possible = reference.possible("kind", code[224:], 0.1)
        covered.append(possible[np.arange(376), kind[224:]].mean())
        empty.append(not reference.possible("kind", np.full((1, 3), 60.0), 0.1).any())
    assert all(empty)
    assert 0.9 < np.mean(covered) < 0.96  # 24 samples cannot set a level more finely


def test_prediction_sets_in_words(fitted, query, known):
    ae.tl.map_query(query, fitted, transfer="cell_type")
    words, predicted = query.obs["cell_type_set"].astype(str), query.obs["cell_type_predicted"].astype(str)
    own = known[600:]
    holds = np.array([kind in words_.split(" | ") for kind, words_ in zip(query.obs["cell_type"], words, strict=True)])
    assert holds[own].mean() == pytest.approx(0.9, abs=0.15)  # the level comes from 38 cells: one s.d. is 0.05
    assert (words == "none of these")[~own].mean() > 0.5 > (words == "none of these")[own].mean()
    assert (words == predicted)[own].mean() > 0.7
    ae.tl.map_query(query, fitted, transfer="cell_type", alpha=0.5)
    fewer = query.obs["cell_type_set"].astype(str)
    assert (fewer == "none of these")[own].mean() > (words == "none of these")[own].mean()
    with pytest.raises(ValueError, match="argument alpha: found 90; pass a number above 0 and below 1"):
        ae.tl.map_query(query, fitted, transfer="cell_type", alpha=90)


def test_a_label_of_the_unseen_alone_and_a_single_label():
    rng = np.random.default_rng(2)
    code = rng.normal(size=(400, 2))
    labels = pd.Categorical.from_codes(np.r_[np.zeros(300, int), np.ones(60, int)], ["a", "b"])  # b: unseen only
    reference = Reference.of(code[:360], {"kind": labels, "one": pd.Categorical(["a"] * 360)}, n_unseen=60)
    assert not reference.possible("kind", code[360:], 0.1)[:, 1].any()
    assert reference.possible("one", code[360:], 0.1).mean() == pytest.approx(0.9, abs=0.12)


# ---- features and batches ----------------------------------------------------------------------------------------
def test_features_are_matched_by_name(fitted, query):
    ae.tl.map_query(query, fitted, transfer="cell_type")
    other = query[:, np.random.default_rng(0).permutation(query.n_vars)].copy()
    extra = ad.AnnData(sp.csr_matrix(np.ones((query.n_obs, 3), np.float32)), obs=query.obs[["cell_type"]])
    extra.var_names = ["x", "y", "z"]
    other = ad.concat([extra, other], axis=1, merge="first")
    ae.tl.map_query(other, fitted, key_added="X_again")
    np.testing.assert_allclose(other.obsm["X_again"], query.obsm["X_ae"], atol=1e-4)
    np.testing.assert_allclose(other.obs["again_typicality"], query.obs["ae_typicality"])


def test_missing_features_are_told_and_too_few_refused(fitted, query, fingerprint):
    with pytest.warns(UserWarning, match=r"59 of the 118 features"):
        ae.tl.map_query(query[:, :60].copy(), fitted)
    few = query[:, :8].copy()
    few.var_names = [f"other {i}" for i in range(8)]
    before = fingerprint(few)
    with pytest.raises(ValueError, match="0 of the 118"):
        ae.tl.map_query(few, fitted)
    assert fingerprint(few) == before


def test_new_batches_are_coded_as_an_average_one(cells, query):
    model = ae.models.Autoencoder(n_models=1, n_latent=4, max_epochs=2).fit(cells[:200].copy(), batch_key="batch")
    query.obs["batch"] = "c"
    with pytest.warns(UserWarning, match="batches \\['c'\\] are not known"):
        ae.tl.map_query(query, model, transfer="cell_type")
    del query.obs["batch"]
    with pytest.warns(UserWarning, match="'batch' is not a column of obs"):
        without = ae.tl.map_query(query, model, copy=True)
    np.testing.assert_allclose(without.obsm["X_ae"], query.obsm["X_ae"])


def test_a_query_of_other_cells_is_warned_of(fitted, cells, known):
    strange = cells[600:][~known[600:]].copy()
    with pytest.warns(UserWarning, match="of the samples are unlike the training data"):
        ae.tl.map_query(strange, fitted)


# ---- edges and refusals ------------------------------------------------------------------------------------------
def test_one_cell_and_an_empty_cell(fitted, query):
    x = query.X.toarray()
    x[3] = 0
    query.X = x
    ae.tl.map_query(query, fitted, transfer="cell_type")
    assert np.isnan(query.obs["ae_typicality"].iloc[3])
    assert query.obs["cell_type_predicted"].isna().sum() == 1
    assert query.obs["ae_typicality"].notna().sum() == query.n_obs - 1
    one = query[:1].copy()
    del one.obsm["X_ae"], one.uns["ae"]
    one.obs = one.obs[["cell_type"]]
    ae.tl.map_query(one, fitted, transfer="cell_type")
    assert one.obs["cell_type_predicted"].iloc[0] == query.obs["cell_type_predicted"].iloc[0]


def test_bad_input_is_refused_and_changes_nothing(fitted, query, fingerprint):
    before = fingerprint(query)
    with pytest.raises(KeyError, match=r"\['tissue'\] cannot be transferred: the model keeps \['batch', 'cell_type'\]"):
        ae.tl.map_query(query, fitted, transfer="tissue")
    with pytest.raises(KeyError, match=r"reference.obs has"):
        ae.tl.map_query(query, fitted, transfer="tissue", reference=query)
    with pytest.raises(ValueError, match="'score' holds numbers"):
        ae.tl.map_query(query, fitted, transfer="score", reference=query)
    with pytest.raises(TypeError, match="expected an AnnData, found MuData"):
        ae.tl.map_query(md.MuData({"rna": query}), fitted)
    with pytest.raises(TypeError, match=r"argument model: found 3; pass an Autoencoder, a MultimodalAutoencoder"):
        ae.tl.map_query(query, 3)
    with pytest.raises(FileNotFoundError):
        ae.tl.map_query(query, "nowhere.ae")
    with pytest.raises(RuntimeError, match="not fitted"):
        ae.tl.map_query(query, ae.models.Autoencoder())
    assert fingerprint(query) == before
    query.obs["ae_typicality"] = 1.0
    with pytest.raises(ValueError, match="ae_typicality"):
        ae.tl.map_query(query, fitted)


# ---- several modalities ------------------------------------------------------------------------------------------
def two_modalities(n: int = 240, seed: int = 0) -> md.MuData:
    """Three kinds of samples, told apart by both modalities."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    centers = np.random.default_rng(5).normal(size=(3, 6))
    mods = {}
    for m, size in (("rna", 40), ("protein", 15)):
        loadings = np.random.default_rng(size).normal(size=(6, size))
        x = (2 * centers[kind] + rng.normal(size=(n, 6))) @ loadings + rng.normal(size=(n, size))
        mods[m] = ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(index=[f"s{seed}_{i}" for i in range(n)]))
        mods[m].var_names = [f"{m}{i}" for i in range(size)]
    mdata = md.MuData(mods)
    mdata.obs["kind"] = pd.Categorical(np.array(["x", "y", "z"])[kind])
    return mdata


@pytest.fixture(scope="module")
def joint():
    return ae.models.MultimodalAutoencoder(n_steps=150).fit(two_modalities())


def test_mudata_with_any_subset_of_modalities(joint, tmp_path):
    joint.save(tmp_path / "joint.ae")
    full = two_modalities(90, seed=1)
    mixed = md.MuData({"rna": full["rna"][30:].copy(), "protein": full["protein"][:60].copy()})
    mixed.obs["truth"] = full.obs["kind"].reindex(mixed.obs_names)
    ae.tl.map_query(mixed, tmp_path / "joint.ae", transfer="kind")
    assert (mixed.obs["kind_predicted"].astype(str) == mixed.obs["truth"].astype(str)).mean() > 0.95
    assert mixed.obs["ae_typicality"].between(0, 1).all()
    assert (mixed.obs["ae_typicality"] <= 0.05).mean() < 0.2
    np.testing.assert_allclose(mixed.obsm["X_ae"], joint.encode(mixed), atol=1e-5)
    later = two_modalities(60, seed=2)
    later.obs["late"] = later.obs["kind"].astype(str).str.upper()
    ae.tl.map_query(mixed, joint, transfer="late", reference=later)
    assert (mixed.obs["late_predicted"].astype(str).str.lower() == mixed.obs["truth"].astype(str)).mean() > 0.95
    assert "kind_predicted" not in mixed.obs  # of the call before, which this one replaces


def test_samples_unlike_the_cohort_are_told(joint):
    strange = two_modalities(60, seed=3)
    for m in strange.mod:
        strange[m].X = strange[m].X + 12 * np.random.default_rng(9).normal(size=strange[m].n_vars).astype(np.float32)
    with pytest.warns(UserWarning, match="unlike the training data"):
        ae.tl.map_query(strange, joint)
    assert np.median(strange.obs["ae_typicality"]) < 0.05


def test_mudata_is_refused_by_a_model_of_one_matrix_and_the_reverse(joint, query):
    with pytest.raises(TypeError, match="expected a MuData, found AnnData"):
        ae.tl.map_query(query, joint)
    with pytest.raises(ValueError, match="no modality in common"):
        ae.tl.map_query(md.MuData({"atac": query}), joint)
