"""One code from several modalities: what is written, what is refused, what may be missing."""

from __future__ import annotations

import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import aeverse as ae
from aeverse import methods
from aeverse.models import kind_of
from aeverse.models._joint import _sample_fusion
from aeverse.models._shared._views import View

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore:Cannot join columns:UserWarning")


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Three quarters of the steps: these data are simple."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sample_fusion, "N_STEPS", 150)
        yield


def simulate(n: int = 150, seed: int = 0, sizes: tuple[int, int] = (600, 12), shared: bool = False) -> md.MuData:
    """Three kinds of cells: RNA tells the first from the others, protein the last; both tell all where `shared`."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    profiles = np.random.default_rng(99).gamma(1.0, 1.0, (3, sizes[0]))
    if not shared:
        profiles[2] = profiles[1]
    surface = np.random.default_rng(98).gamma(1.0, 30.0, (3, sizes[1]))
    if not shared:
        surface[1] = surface[0]
    names = [f"cell{i}" for i in range(n)]
    rna = ad.AnnData(sp.csr_matrix(rng.poisson(profiles[kind]).astype(np.float32)), obs=pd.DataFrame(index=names))
    rna.var_names = [f"gene{i}" for i in range(sizes[0])]
    protein = ad.AnnData(rng.poisson(surface[kind]).astype(np.float32), obs=pd.DataFrame(index=names))
    protein.var_names = [f"protein{i}" for i in range(sizes[1])]
    mdata = md.MuData({"rna": rna, "prot": protein})
    mdata.obs["kind"] = pd.Categorical(kind.astype(str))
    mdata.obs["batch"] = pd.Categorical(np.where(np.arange(n) < n // 2, "a", "b"))
    return mdata


def mosaic() -> md.MuData:
    """The same cells; a third lacks RNA, another third protein."""
    full = simulate()
    mdata = md.MuData({"rna": full["rna"][50:].copy(), "prot": full["prot"][:100].copy()})
    mdata.obs["kind"] = full.obs["kind"].reindex(mdata.obs_names)
    return mdata


def recovered(code: np.ndarray, mdata: md.MuData) -> float:
    return adjusted_rand_score(mdata.obs["kind"], KMeans(3, n_init=5, random_state=0).fit(code).labels_)


def fingerprint(mdata: md.MuData) -> dict:
    """Everything a call might change, as comparable values."""

    def of(data) -> dict:
        slots = {s: sorted(getattr(data, s)) for s in ("obsm", "obsp", "varm")} | {"uns": sorted(data.uns)}
        return slots | {"obs": list(data.obs.columns), "var": list(data.var.columns), "names": list(data.obs_names)}

    mods = {
        m: {**of(a), "x": np.asarray(a.X.sum(1)).ravel().tolist(), "layers": sorted(a.layers)}
        for m, a in mdata.mod.items()
    }
    return {"mdata": of(mdata), **mods}


# ---- what is written ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def embedded() -> md.MuData:
    mdata = simulate()
    ae.tl.multimodal_embed(mdata)
    return mdata


def test_code_holds_what_neither_modality_holds_alone(embedded):
    code = embedded.obsm["X_ae"]
    assert code.dtype == np.float32
    assert np.isfinite(code).all()
    assert recovered(code, embedded) > 0.9
    for modality in ("rna", "prot"):
        assert recovered(embedded[modality].obsm["X_ae"], embedded) < 0.9


def test_only_documented_keys_are_written(embedded):
    before = fingerprint(simulate())
    after = fingerprint(embedded)
    assert set(after["mdata"]["obsm"]) - set(before["mdata"]["obsm"]) == {"X_ae", "ae_weights"}
    for modality in ("rna", "prot"):
        assert after[modality]["obsm"] == ["X_ae"]
        assert after[modality]["uns"] == ["ae"]
        assert after[modality]["x"] == before[modality]["x"]
    record = embedded.uns["ae"]["X_ae"]
    assert record["kinds"] == {"rna": "counts", "prot": "protein"}
    assert set(record["variance_explained"]) == {"rna", "prot"}
    assert record["variance_explained"]["prot"] > 0.2


def test_file_round_trip(embedded, tmp_path):
    embedded.write_h5mu(tmp_path / "a.h5mu")
    back = md.read_h5mu(tmp_path / "a.h5mu")
    np.testing.assert_array_equal(back.obsm["X_ae"], embedded.obsm["X_ae"])
    pd.testing.assert_frame_equal(back.obsm["ae_weights"], embedded.obsm["ae_weights"], check_names=False)
    ae.tl.multimodal_embed(back)  # takes over what it wrote


def test_scanpy_goes_on_from_here(embedded):
    import scanpy as sc

    mdata = embedded.copy()
    sc.pp.neighbors(mdata, use_rep="X_ae")
    sc.tl.leiden(mdata, flavor="igraph", n_iterations=2)
    assert len(mdata.obs["leiden"]) == mdata.n_obs


def test_same_seed_same_code_other_seed_another(embedded):
    again, other = (ae.tl.multimodal_embed(simulate(), random_state=s, copy=True).obsm["X_ae"] for s in (0, 1))
    np.testing.assert_array_equal(again, embedded.obsm["X_ae"])
    assert not np.array_equal(other, again)


def test_copy_leaves_the_object():
    mdata = simulate(60)
    before = fingerprint(mdata)
    result = ae.tl.multimodal_embed(mdata, copy=True)
    assert fingerprint(mdata) == before
    assert "X_ae" in result.obsm


# ---- what may be missing -----------------------------------------------------------------------------------------
def test_mosaic_gives_every_cell_a_code():
    mdata = mosaic()
    order = list(mdata.obs_names)
    ae.tl.multimodal_embed(mdata)
    weights = mdata.obsm["ae_weights"]
    assert list(mdata.obs_names) == order
    assert np.isfinite(mdata.obsm["X_ae"]).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    for modality in ("rna", "prot"):
        absent = ~mdata.obs_names.isin(mdata[modality].obs_names)
        assert (weights.loc[absent, modality] == 0).all()
        assert (weights.loc[~absent, modality] > 0).all()
    paired = mdata.obs_names.isin(mdata["rna"].obs_names) & mdata.obs_names.isin(mdata["prot"].obs_names)
    assert recovered(mdata.obsm["X_ae"][paired], mdata[paired]) > 0.8


def test_rows_of_nan_are_missing_and_entries_of_nan_are_masked():
    mdata = simulate()
    x = mdata["prot"].X
    x[:10] = np.nan
    x[10:40, 0] = np.nan
    ae.tl.multimodal_embed(mdata)
    assert (mdata.obsm["ae_weights"]["prot"].iloc[:10] == 0).all()
    assert (mdata.obsm["ae_weights"]["prot"].iloc[10:] > 0).all()
    assert np.isfinite(mdata.obsm["X_ae"]).all()
    assert np.isnan(mdata["prot"].obsm["X_ae"][:10]).all()


def test_cell_with_nothing_warns_and_keeps_its_place():
    mdata = simulate()
    mdata["prot"].X[0] = np.nan
    mdata["rna"].X = mdata["rna"].X.multiply((np.arange(150) > 0)[:, None]).tocsr()
    with pytest.warns(UserWarning, match="1 samples hold nothing"):
        ae.tl.multimodal_embed(mdata)
    assert np.isfinite(mdata.obsm["X_ae"]).all()


@pytest.mark.parametrize("sizes", [(600, 1), (1, 12)])
def test_modality_with_one_feature(sizes):
    mdata = simulate(sizes=sizes)
    ae.tl.multimodal_embed(mdata)
    assert np.isfinite(mdata.obsm["X_ae"]).all()
    modality = ["rna", "prot"][sizes.index(1)]
    code, value = mdata[modality].obsm["X_ae"], np.asarray(mdata[modality].to_df())[:, 0]
    there = np.isfinite(code).all(1)  # not those without a molecule
    assert max(abs(np.corrcoef(code[there].T, np.log1p(value[there]))[-1, :-1])) > 0.8  # the one feature is not lost


def test_one_modality_and_many():
    one = md.MuData({"rna": simulate()["rna"]})
    ae.tl.multimodal_embed(one)
    assert (one.obsm["ae_weights"]["rna"] == 1).all()
    ten = md.MuData({f"mod {i}/x": simulate(60, seed=i)["prot"] for i in range(10)})
    ae.models.MultimodalAutoencoder(n_steps=20).fit(ten)


def test_constant_and_duplicated_features():
    mdata = simulate()
    x = mdata["prot"].X
    x[:, 1] = 5
    mdata["prot"].var_names = ["same"] * x.shape[1]
    ae.tl.multimodal_embed(mdata)
    assert np.isfinite(mdata.obsm["X_ae"]).all()


def test_the_same_feature_name_in_two_modalities():
    """CD4 is a gene and a protein; neither is taken for the other."""
    mdata = simulate(60)
    expected = ae.models.MultimodalAutoencoder(n_steps=20).fit(mdata).encode(mdata)
    mdata["rna"].var_names = ["CD4", *mdata["rna"].var_names[1:]]
    mdata["prot"].var_names = ["CD4", *mdata["prot"].var_names[1:]]
    model = ae.models.MultimodalAutoencoder(n_steps=20).fit(mdata)
    np.testing.assert_array_equal(model.encode(mdata), expected)
    mean, _ = model.predict(mdata, "prot", features=["CD4"])
    assert mean.shape == (60, 1)
    assert mean["CD4"].mean() > np.log1p(mdata["rna"].X[:, 0].mean()) + 0.5  # tens of molecules, not one


def test_peaks_stay_sparse(monkeypatch):
    rng = np.random.default_rng(0)
    mdata = simulate(200)
    peaks = ad.AnnData(
        sp.random(200, 100_000, 0.005, "csr", np.float32, random_state=rng), obs=pd.DataFrame(index=mdata.obs_names)
    )
    peaks.X.data[:] = 1
    mdata = md.MuData({"rna": mdata["rna"], "atac": peaks})

    def refuse(self, *args, **kwargs):
        assert self.shape[0] * self.shape[1] < 5_000_000, "a large matrix was made dense"
        return dense(self, *args, **kwargs)

    dense = sp.csr_matrix.toarray
    monkeypatch.setattr(sp.csr_matrix, "toarray", refuse)
    model = ae.models.MultimodalAutoencoder(n_steps=20).fit(mdata)
    assert model.kinds["atac"] == "peaks"
    assert model.modality_weights["atac"] < 0.2


def test_a_modality_without_signal_does_no_harm():
    mdata = simulate(200, sizes=(600, 100), shared=True)
    rng = np.random.default_rng(0)
    noise = ad.AnnData(rng.poisson(5, (200, 100)).astype(np.float32), obs=pd.DataFrame(index=mdata.obs_names))
    noise.var_names = mdata["prot"].var_names
    mdata = md.MuData({"rna": mdata["rna"][20:].copy(), "prot": noise})  # the first cells have nothing but noise
    model = ae.models.MultimodalAutoencoder(recipe="cells", n_latent=4, n_models=2, n_steps=60).fit(mdata)
    assert model.modality_weights == {"rna": 1, "prot": 0}
    code, alone = model.encode(mdata), model.encode(mdata, modalities=["rna"])
    assert code.shape == (200, 8)
    has_rna = mdata.obs_names.isin(mdata["rna"].obs_names)
    np.testing.assert_array_equal(code[has_rna], alone[has_rna])
    assert np.isfinite(code).all()
    weights = model.weights(mdata)
    np.testing.assert_array_equal(weights["prot"], ~has_rna)
    np.testing.assert_array_equal(weights.sum(1), 1)


# ---- the model ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model() -> ae.models.MultimodalAutoencoder:
    return ae.models.MultimodalAutoencoder().fit(simulate())


def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "m.ae")
    back = ae.models.load(tmp_path / "m.ae")
    new = simulate(40, seed=5)
    np.testing.assert_array_equal(back.encode(new), model.encode(new))
    pd.testing.assert_frame_equal(back.weights(new), model.weights(new))
    assert (back.config, back.modality_weights, back.kinds) == (model.config, model.modality_weights, model.kinds)


def test_new_cells_from_any_subset(model):
    new = simulate(90, seed=7)
    assert recovered(model.encode(new), new) > 0.9
    alone = md.MuData({"prot": new["prot"]})
    full, part = model.encode(new), model.encode(alone)
    distance = ((full[:, None] - part[None]) ** 2).sum(-1)
    foscttm = (distance < np.diag(distance)[:, None]).mean()
    assert foscttm < 0.3  # a cell's partial code lies nearer to its full one than those of other cells do


def test_features_are_matched_by_name(model):
    new = simulate(40, seed=5)
    order = np.random.default_rng(0).permutation(new["rna"].n_vars)
    shuffled = md.MuData({"rna": new["rna"][:, order].copy(), "prot": new["prot"]})
    np.testing.assert_allclose(model.encode(shuffled), model.encode(new), atol=1e-4)
    part = md.MuData({"rna": new["rna"][:, :450].copy(), "prot": new["prot"]})
    with pytest.warns(UserWarning, match=r"'rna': 450 of the 600 features"):
        assert np.isfinite(model.encode(part)).all()
    part["rna"].var_names = [f"x{i}" for i in range(450)]
    with pytest.raises(ValueError, match=r"0 of the 600 features.*do the names match"):
        model.encode(md.MuData({"rna": part["rna"]}))


def test_model_instead_of_training(model, tmp_path):
    model.save(tmp_path / "m.ae")
    new = simulate(40, seed=5)
    ae.tl.multimodal_embed(new, model=tmp_path / "m.ae")
    np.testing.assert_array_equal(new.obsm["X_ae"], model.encode(new))


def test_unfitted_model_says_so():
    with pytest.raises(RuntimeError, match="not fitted"):
        ae.models.MultimodalAutoencoder().encode(simulate(40))


def test_sparse_equals_dense():
    sparse = simulate(60)
    dense = md.MuData(
        {m: ad.AnnData(a.X.toarray() if sp.issparse(a.X) else a.X, obs=a.obs, var=a.var) for m, a in sparse.mod.items()}
    )
    codes = [ae.models.MultimodalAutoencoder(n_steps=20).fit(d).encode(d) for d in (sparse, dense)]
    np.testing.assert_allclose(*codes, atol=1e-4)


def test_batch_key_mixes_batches():
    mdata = simulate(300)
    x = mdata["prot"].X.copy()
    x[:150] *= np.random.default_rng(1).gamma(2, 1.5, x.shape[1])
    mdata["prot"].X = np.round(x)
    first = (mdata.obs["batch"] == "a").to_numpy()

    def strangers(code: np.ndarray) -> float:
        """Share of the ten nearest cells that come from the other batch."""
        distance = ((code[:, None] - code[None]) ** 2).sum(-1)
        near = np.argsort(distance, 1)[:, 1:11]
        return float((first[near] != first[:, None]).mean())

    with_batch, without = (
        strangers(ae.tl.multimodal_embed(mdata, batch_key=key, copy=True).obsm["X_ae"]) for key in ("batch", None)
    )
    assert with_batch > without + 0.1


@pytest.fixture(scope="module")
def torn() -> md.MuData:
    """Three types in two batches, of which the second moves each type in another direction; it lacks the protein."""
    rng = np.random.default_rng(0)
    kind, second = rng.integers(0, 3, 600), np.arange(600) >= 300
    factors = 6 * np.eye(6)[kind] + 4 * np.eye(6)[3 + kind] * second[:, None] + rng.normal(size=(600, 6))
    loadings = {m: rng.normal(size=(6, 30)) for m in ("rna", "prot")}
    names = pd.Index([f"c{i}" for i in range(600)])
    mods = {
        m: ad.AnnData(
            (factors @ w + rng.normal(size=(600, 30)))[keep],
            obs=pd.DataFrame(index=names[keep]),
            var=pd.DataFrame(index=[f"{m}{j}" for j in range(30)]),
        )
        for (m, w), keep in zip(loadings.items(), (np.ones(600, bool), ~second), strict=True)
    }
    mdata = md.MuData(mods)
    mdata.obs["kind"], mdata.obs["batch"] = kind, np.where(second, "b", "a")
    return mdata


def test_batches_that_move_each_type_in_its_own_way_meet(torn, tmp_path):
    kind, second = torn.obs["kind"].to_numpy(), (torn.obs["batch"] == "b").to_numpy()
    model = ae.models.MultimodalAutoencoder(n_steps=100).fit(torn, batch_key="batch")
    code = model.encode(torn)
    near = ((code[:, None] - code[None]) ** 2).sum(-1).argsort(1)[:, 1:16]
    assert (kind[near] == kind[:, None]).mean() > 0.95
    assert (second[near] != second[:, None]).mean() > 0.15  # one shift for all types: below 0.01
    model.save(tmp_path / "torn.ae")
    np.testing.assert_array_equal(ae.models.load(tmp_path / "torn.ae").encode(torn), code)


# ---- kinds and views ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "x", "names"),
    [
        ("counts", np.random.default_rng(0).poisson(3, (20, 600)), None),
        ("protein", np.random.default_rng(0).poisson(30, (20, 40)), None),
        ("peaks", np.random.default_rng(0).poisson(0.2, (20, 30)), [f"chr1:{i}00-{i}50" for i in range(30)]),
        ("binary", np.random.default_rng(0).integers(0, 2, (20, 40)), None),
        ("ordinal", np.random.default_rng(0).integers(-2, 3, (20, 40)), None),
        ("fractions", np.random.default_rng(0).random((20, 40)), None),
        ("continuous", np.random.default_rng(0).normal(size=(20, 40)), None),
    ],
)
def test_kinds_are_told_from_values(kind, x, names):
    names = pd.Index(names if names is not None else [f"f{i}" for i in range(x.shape[1])])
    assert kind_of(x.astype(np.float32), names) == kind
    if kind not in ("fractions", "continuous"):
        assert kind_of(sp.csr_matrix(x.astype(np.float32)), names) == kind


def test_view_is_a_principal_component_analysis():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(100, 3)) @ rng.normal(size=(3, 30)) * 2 + rng.normal(size=(100, 30))).astype(np.float32)
    names = pd.Index([f"f{i}" for i in range(30)])
    view = View("continuous")
    scores = view.fit(x, names)
    assert view.n_significant == 3
    z = (x - x.mean(0)) / x.std(0)
    u, s, _ = np.linalg.svd(z.astype(np.float64), full_matrices=False)
    expected = (u * s)[:, :3]
    np.testing.assert_allclose(np.abs(scores * view.unit), np.abs(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(view(x, names), scores, atol=1e-5)


def test_view_of_sparse_continuous_values_centres_implicitly():
    rng = np.random.default_rng(0)
    x = sp.random(200, 50, 0.3, "csr", np.float32, random_state=rng)
    names = pd.Index([f"f{i}" for i in range(50)])
    sparse, dense = View("continuous"), View("continuous")
    a, b = sparse.fit(x, names), dense.fit(x.toarray(), names)
    assert sparse.n_significant == dense.n_significant
    np.testing.assert_allclose(np.abs(a), np.abs(b), atol=2e-2)


# ---- what is refused ---------------------------------------------------------------------------------------------
def broken(what: str) -> md.MuData:
    mdata = simulate(60)
    if what == "diagonal":
        return md.MuData({"rna": mdata["rna"][:30].copy(), "prot": mdata["prot"][30:].copy()})
    if what == "stale":
        mdata.mod["prot"] = ad.concat([mdata["prot"], simulate(3, seed=4)["prot"][:3].copy()], index_unique="-")
    if what == "infinite":
        mdata["prot"].X[0, 0] = np.inf
    if what == "few":
        return mdata[:5].copy()
    return mdata


@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        ("diagonal", {}, "cells in common.*bridge"),
        ("stale", {}, "out of date. Call mdata.update"),
        ("infinite", {}, "'prot'.*infinite"),
        ("few", {}, "5 samples are too few"),
        ("", {"method": "pca"}, "argument method: found 'pca'; pass 'ae'"),
        ("", {"modalities": ["rna", "adt"]}, "modalities names .'adt'., but the modalities are"),
        ("", {"modalities": []}, "argument modalities: found"),
        ("", {"layer": {"rna": "counts"}}, "'rna'.*layers.'counts'. does not exist"),
        ("", {"kind": {"rna": "nb"}}, "kind='nb' of modality 'rna' must be"),
        ("", {"kind": "counts"}, "argument kind: found 'counts'; pass 'auto' or a dict"),
        ("", {"batch_key": "plate"}, "'plate' is not a column"),
        ("", {"mask_var": {"rna": "hvg"}}, "'rna'.*mask_var='hvg'"),
        ("", {"n_latent": 0}, "argument n_latent: found 0"),
    ],
)
def test_refusals_name_the_fault_and_change_nothing(what, arguments, message):
    mdata = broken(what)
    before = fingerprint(mdata)
    with pytest.raises((ValueError, KeyError), match=message):
        ae.tl.multimodal_embed(mdata, **arguments)
    assert fingerprint(mdata) == before


def test_foreign_results_are_not_overwritten():
    mdata = simulate(60)
    mdata["rna"].obsm["X_ae"] = np.zeros((60, 2))
    with pytest.raises(ValueError, match="exists and was not written by aeverse"):
        ae.tl.multimodal_embed(mdata)
    assert "X_ae" not in mdata.obsm


def test_anndata_is_refused():
    with pytest.raises(TypeError, match=r"argument mdata: found .*; pass a MuData"):
        ae.tl.multimodal_embed(simulate(40)["rna"])


def test_writing_is_all_or_nothing(monkeypatch):
    from aeverse._slots import _write

    mdata = simulate(60)
    before = fingerprint(mdata)
    write = _write.write

    def fail_on_mudata(data, results):
        if isinstance(data, md.MuData):
            raise MemoryError("no room")
        return write(data, results)

    monkeypatch.setattr(_write, "write", fail_on_mudata)
    with pytest.raises(MemoryError):
        ae.tl.multimodal_embed(mdata)
    assert fingerprint(mdata) == before


# ---- other people's models ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["concat_pca"])
def test_other_methods_behind_the_same_call(method):
    mdata = simulate()
    before = fingerprint(mdata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # muon's and scanpy's own
        ae.tl.multimodal_embed(mdata, method=method)
    assert mdata.obsm["X_ae"].shape[0] == 150
    assert recovered(mdata.obsm["X_ae"], mdata) > 0.7
    after = fingerprint(mdata)
    assert {m: after[m] for m in ("rna", "prot")} == {m: before[m] for m in ("rna", "prot")}


@pytest.mark.parametrize("method", ["multivi", "totalvi"])
def test_scvi_methods_take_cells_that_lack_a_modality(method, monkeypatch, random_states):
    import scvi

    train = getattr(scvi.model, method.upper()).train  # two epochs tell whether it runs
    monkeypatch.setattr(
        getattr(scvi.model, method.upper()), "train", lambda self, **more: train(self, max_epochs=2, **more)
    )
    full = simulate(90)
    if method == "multivi":
        peaks = sp.random(90, 300, 0.1, "csr", np.float32, random_state=0)
        peaks.data[:] = 1
        other = ad.AnnData(
            peaks, obs=full["rna"].obs, var=pd.DataFrame(index=[f"chr1:{i}00-{i}50" for i in range(300)])
        )
        mdatas = [
            md.MuData({"rna": full["rna"].copy(), "other": other.copy()}),
            md.MuData({"other": other[30:].copy(), "rna": full["rna"][:60].copy()}),
        ]
    else:
        mdatas = [full, md.MuData({"rna": full["rna"].copy(), "prot": full["prot"][30:].copy()})]
    for mdata in mdatas:
        mdata.obs["batch"] = pd.Categorical(np.where(np.arange(90) % 2, "a", "b"))
        before, state = fingerprint(mdata), random_states()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scvi-tools' and lightning's own
            ae.tl.multimodal_embed(mdata, method=method, batch_key="batch", progress=False)
        code = mdata.obsm["X_ae"]
        assert code.shape[0] == 90
        assert np.isfinite(code).all()
        assert random_states() == state
        after = fingerprint(mdata)
        assert {m: after[m] for m in mdata.mod} == {m: before[m] for m in mdata.mod}
        assert after["mdata"]["obs"] == before["mdata"]["obs"]


@pytest.mark.parametrize("method", ["ae", *methods.MULTIMODAL])
def test_every_method_refuses_modalities_without_common_cells(method):
    mdata = broken("diagonal")
    before = fingerprint(mdata)
    with pytest.raises(ValueError, match=r"fewer than 5 cells in common.*bridge"):
        ae.tl.multimodal_embed(mdata, method=method)
    assert fingerprint(mdata) == before


def test_methods_that_need_complete_cells_say_so():
    with pytest.raises(ValueError, match="needs every modality in every cell; 50 of the 150 cells lack 'rna'"):
        ae.tl.multimodal_embed(mosaic(), method="wnn")
    with pytest.raises(ValueError, match="needs one modality of kind 'peaks'"):
        ae.tl.multimodal_embed(simulate(60), method="multivi")


# ---- cells that lack a modality ----------------------------------------------------------------------------------
def cells(n: int = 400, shift: float = 0.0) -> tuple[md.MuData, md.MuData]:
    """Complete cells, and the same with the protein of the second half lost, whose RNA may be of another batch."""
    rng = np.random.default_rng(0)
    place = rng.normal(size=(n, 3))
    rna = np.exp(0.7 * place @ rng.normal(size=(3, 300)) - 1.0 + rng.normal(size=300))
    rna[n // 2 :] *= np.exp(shift * rng.normal(size=300))
    protein = np.exp(0.7 * place @ rng.normal(size=(3, 20)) + 3)
    names = pd.DataFrame(index=[f"cell{i}" for i in range(n)])
    full = {
        m: ad.AnnData(sp.csr_matrix(rng.poisson(x).astype(np.float32)), obs=names)
        for m, x in (("rna", rna), ("prot", protein))
    }
    return md.MuData(full), md.MuData({"rna": full["rna"].copy(), "prot": full["prot"][: n // 2].copy()})


def test_cells_that_lack_a_modality_lie_where_their_like_lie():
    """Nearer to their place with both modalities than other cells do, and as far apart as complete cells."""
    full, partial = cells()
    model = ae.models.MultimodalAutoencoder(recipe="cells").fit(partial)
    truth, found = (model.encode(mdata)[200:] for mdata in (full, partial))
    away = ((truth[:, None] - found[None]) ** 2).sum(-1)
    assert (away < np.diag(away)[:, None]).mean() < 0.1
    assert 0.8 < found.var(0).sum() / truth.var(0).sum() < 1.25


def test_a_cell_does_not_place_itself():
    full, _ = cells(200)
    model = ae.models.MultimodalAutoencoder(recipe="cells", n_steps=50).fit(full)
    own = model.encode(full, modalities=["rna"])
    stranger = full.copy()
    for adata in stranger.mod.values():
        adata.obs_names = [f"other {name}" for name in adata.obs_names]
    stranger = md.MuData(dict(stranger.mod))
    truth, other = model.encode(full), model.encode(stranger, modalities=["rna"])
    assert np.linalg.norm(other - truth) < np.linalg.norm(own - truth)  # its own complete self was among its like


def test_model_of_cells_in_batches_comes_back_from_a_file_and_is_explained(tmp_path):
    """The RNA's autoencoder is kept inside; a batch that it does not know, or none, is an average one."""
    _, partial = cells(200)
    partial.obs["batch"] = np.where(np.arange(200) % 2, "a", "b")
    model = ae.models.MultimodalAutoencoder(recipe="cells", n_steps=20).fit(partial, batch_key="batch")
    model.save(tmp_path / "model.ae")
    back = ae.models.load(tmp_path / "model.ae")
    np.testing.assert_array_equal(back.encode(partial), model.encode(partial))
    np.testing.assert_array_equal(back.predict(partial, "prot")[0], model.predict(partial, "prot")[0])
    ae.tl.attribute(partial, back)
    for modality in ("rna", "prot"):
        values = partial[modality].varm["ae_attributions"].to_numpy()
        assert np.isfinite(values).all()
        assert values.any()
    partial.obs["batch"] = "another"
    with pytest.warns(UserWarning, match="batches .'another'. are not known"):
        code = back.encode(partial)
    assert np.isfinite(code).all()


# ---- predicting a modality ---------------------------------------------------------------------------------------
def test_prediction_of_cells_that_lack_the_modality():
    full = simulate(shared=True)
    held = np.arange(150) % 5 == 0
    partial = md.MuData({"rna": full["rna"], "prot": full["prot"][~held].copy()})
    ae.tl.predict_modality(partial, "prot")
    truth = np.log1p(full["prot"].X)
    predicted = partial.obsm["predicted_prot"]
    assert list(predicted.columns) == list(full["prot"].var_names)
    error = np.sqrt(((predicted.to_numpy()[held] - truth[held]) ** 2).mean())
    assert error < 0.8 * np.sqrt(((truth[~held].mean(0) - truth[held]) ** 2).mean())
    z = (predicted.to_numpy()[held] - truth[held]) / partial.obsm["predicted_prot_sd"].to_numpy()[held]
    assert 0.8 < np.sqrt((z**2).mean()) < 1.25  # standard deviations mean what they say
    np.testing.assert_array_equal(partial["prot"].layers["predicted"], predicted.loc[partial["prot"].obs_names])
    assert "predicted_prot" in repr(partial)  # MuData hides keys that begin with the name of a modality
    features = [str(name) for name in full["prot"].var_names[:2]]
    axes = ae.pl.predicted(partial, "prot", features=features, show=False)
    points = np.asarray(axes[1].collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 0], truth[~held, 1], rtol=1e-5)
    np.testing.assert_allclose(points[:, 1], predicted.to_numpy()[~held, 1], rtol=1e-5)
    with pytest.raises(KeyError, match="nothing was measured"):
        ae.pl.predicted(partial, "adt")


def test_a_cell_does_not_predict_itself(model):
    """Its own value in the training data must not come back, however odd it is."""
    mdata = simulate()
    mdata["prot"].X[3] = 50_000
    fitted = ae.models.MultimodalAutoencoder(n_steps=20).fit(mdata)
    mean, _ = fitted.predict(mdata, "prot")
    assert (mean.iloc[3] < np.log1p(50_000) - 3).all()


def test_position_in_the_ridge_space_is_that_of_the_regression_on_the_others():
    from aeverse.models._joint._prediction import RIDGE, ridge_space

    rng = np.random.default_rng(0)
    reference, query, values = (rng.normal(size=s) for s in ((40, 3), (5, 3), (40, 2)))
    same = np.array([-1, 7, -1, -1, -1])
    found, own = ridge_space(query, reference, values, same, standardize=False)
    kept = np.arange(40) != 7
    z = reference - reference.mean(0)  # penalty and centring are those of all
    design = np.hstack([np.ones((40, 1)), z])
    penalty = np.diag([0, *[RIDGE * (z**2).sum() / 3] * 3])
    beta = np.linalg.solve(design[kept].T @ design[kept] + penalty, design[kept].T @ values[kept])
    np.testing.assert_allclose(own[7], design[7] @ beta, rtol=1e-4)
    np.testing.assert_array_equal(found[1], own[7])
    assert not np.allclose(found[0], own[7])


def test_bridge_predicts_a_modality_that_the_query_never_had(model, tmp_path):
    query = md.MuData({"rna": simulate(45, seed=8)["rna"]})
    model.save(tmp_path / "m.ae")
    ae.tl.predict_modality(query, "prot", model=tmp_path / "m.ae", features=["protein3", "protein0"])
    table = query.obsm["predicted_prot"]
    assert list(table.columns) == ["protein3", "protein0"]
    np.testing.assert_array_equal(table, model.predict(query, "prot")[0][table.columns])


def test_prediction_of_many_features_goes_through_components():
    model = ae.models.MultimodalAutoencoder(n_steps=100).fit(simulate(shared=True))
    new = simulate(60, seed=9, shared=True)
    mean, sd = model.predict(new, "rna")
    assert mean.shape == (60, 600)
    assert (sd > 0).all(axis=None)
    kind = new.obs["kind"].to_numpy()
    truth = np.log1p(new["rna"].X.toarray())
    difference = truth[kind == "0"].mean(0) - truth[kind != "0"].mean(0)
    found = mean[kind == "0"].mean() - mean[kind != "0"].mean()
    assert np.corrcoef(found, difference)[0, 1] > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "adt"}, "target='adt' is not a modality"),
        ({"target": "prot", "features": ["CD3"]}, "features not found"),
        ({"target": "prot", "modalities": ["prot"]}, "nothing to predict 'prot' from"),
    ],
)
def test_predictions_refused(arguments, message):
    mdata = simulate(60)
    before = fingerprint(mdata)
    with pytest.raises((ValueError, KeyError), match=message):
        ae.tl.predict_modality(mdata, **arguments)
    assert fingerprint(mdata) == before


# ---- graphs and fusion -------------------------------------------------------------------------------------------
def test_nearest_is_exact():
    from sklearn.neighbors import NearestNeighbors

    x = np.random.default_rng(0).normal(size=(200, 5)) + 1000  # far from zero, where float32 cancels
    distances, indices = ae.nn.nearest(x, 7)
    expected, where = NearestNeighbors(n_neighbors=8).fit(x).kneighbors(x)
    np.testing.assert_array_equal(indices, where[:, 1:])
    np.testing.assert_allclose(distances, expected[:, 1:], rtol=1e-3)


def test_sparse_and_dense_diffusion_coordinates_agree(monkeypatch):
    from aeverse.nn import _graph

    x = np.random.default_rng(0).normal(size=(300, 3))
    kernel = ae.nn.local_kernel(*ae.nn.nearest(x, 20))
    np.testing.assert_allclose(kernel.sum(1), 1, rtol=1e-5)
    dense = ae.nn.diffusion_coordinates(kernel, 3)
    monkeypatch.setattr(_graph, "DENSE_UP_TO", 0)
    np.testing.assert_allclose(ae.nn.diffusion_coordinates(kernel, 3), dense, atol=1e-2 * np.abs(dense).max())


def test_fusion_averages_what_a_sample_has():
    a = sp.csr_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]))
    graph = ae.nn.fuse([a, a], [np.array([0, 1]), np.array([1, 2])], [3.0, 1.0], 4).toarray()
    np.testing.assert_allclose(graph, [[0, 1, 0, 0], [0.75, 0, 0.25, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_smoothing_ignores_samples_without_a_value():
    graph = sp.csr_matrix(np.full((4, 4), 0.25))
    smoothed = ae.nn.smooth(graph, np.array([[1.0], [3.0]]), np.array([0, 2]), 1)
    np.testing.assert_allclose(smoothed, 2.0)


def test_values_of_a_missing_modality_change_nothing():
    import torch

    net = ae.nn.FusionNet({"a": 3, "b": 2}, 4, n_members=2)
    x = {"a": torch.randn(2, 5, 3), "b": torch.randn(2, 5, 2)}
    weights = torch.tensor([1.0, 0.0]).expand(2, 5, 2)
    code = net.encode(x, weights)
    torch.testing.assert_close(net.encode({**x, "b": torch.randn(2, 5, 2)}, weights), code)


# ---- proteins: background and foreground ---------------------------------------------------------------------------
def stained(n: int = 300) -> tuple[md.MuData, np.ndarray]:
    """Five proteins, each carried by one of three kinds of cells; foreground and background overlap."""
    rng = np.random.default_rng(0)
    carries = (np.arange(n) % 3)[:, None] == np.arange(5) % 3
    mean = np.where(carries, 40.0, 8.0) * rng.gamma(3, 1 / 3, (n, 5))
    names = [f"cell{i}" for i in range(n)]
    prot = ad.AnnData(rng.poisson(mean).astype(np.float32), obs=pd.DataFrame(index=names))
    rna = ad.AnnData(sp.csr_matrix(rng.poisson(1.0, (n, 600)).astype(np.float32)), obs=pd.DataFrame(index=names))
    return md.MuData({"rna": rna, "prot": prot}), carries


def test_foreground_is_told_from_background():
    from sklearn.metrics import roc_auc_score

    mdata, carries = stained()
    counts = mdata["prot"].X.copy()
    ae.tl.protein_foreground(mdata)
    found = mdata["prot"].layers["foreground_prob"]
    assert ((found >= 0) & (found <= 1)).all()
    assert roc_auc_score(carries.ravel(), found.ravel()) > roc_auc_score(carries.ravel(), counts.ravel()) + 0.01
    background, foreground = (mdata["prot"].var[f"foreground_prob_{what}"] for what in ("background", "mean"))
    assert (abs(background - 8) < 3).all()
    assert (abs(foreground - 40) < 12).all()
    np.testing.assert_array_equal(mdata["prot"].X, counts)
    assert not mdata.uns
    ae.tl.protein_foreground(mdata, modality="prot")  # takes over what it wrote


def test_foreground_by_hand_at_the_fitted_parameters():
    """Without neighbors the probability is Bayes' rule for two negative binomials."""
    from scipy.stats import nbinom

    mdata, _ = stained()
    y = mdata["prot"].X[:, :1].astype(float)
    r, means = ae.nn.foreground_probability(y)
    density = []
    for w, mean in ((1 - r, means[0]), (r, means[1])):
        variance = (w * (y - mean) ** 2).sum() / w.sum()
        theta = mean**2 / (variance - mean)
        density.append(w.mean() * nbinom.pmf(np.maximum(y, means[0].round()), theta, theta / (theta + mean)))
    np.testing.assert_allclose(r, density[1] / (density[0] + density[1]), atol=0.03)


def test_counts_not_measured_have_no_foreground():
    mdata, _ = stained(90)
    mdata["prot"].X[:5] = np.nan
    mdata["prot"].X[7, 1] = np.nan
    expected = np.isnan(mdata["prot"].X)
    ae.tl.protein_foreground(mdata, key_added="fg")
    np.testing.assert_array_equal(np.isnan(mdata["prot"].layers["fg"]), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "adt"}, "modality='adt' is not there"),
        ({"modality": "prot", "layer": "raw"}, "'prot'.*layers.'raw'. does not exist"),
        ({"use_rep": "X_ae"}, "use_rep='X_ae' is not in obsm"),
        ({"modality": "prot"}, "values that are not integers"),
        ({}, "need one modality of protein counts, found .. among"),
    ],
)
def test_foreground_refused(arguments, message):
    mdata, _ = stained(60)
    if not arguments or arguments == {"modality": "prot"}:
        mdata["prot"].X = np.log1p(mdata["prot"].X)
    before = fingerprint(mdata)
    with pytest.raises((ValueError, KeyError), match=message):
        ae.tl.protein_foreground(mdata, **arguments)
    assert fingerprint(mdata) == before
