"""Subtypes: the right number where there is structure, one where there is none, the same for the same patients."""

import warnings

import anndata
import matplotlib
import mudata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import aeverse as ae

matplotlib.use("Agg")


def cohort(code):
    adata = anndata.AnnData(np.zeros((len(code), 1), np.float32))
    adata.obs_names = [f"patient {i}" for i in range(len(code))]
    adata.obsm["X_ae"] = np.asarray(code)
    return adata


def blobs(n_blobs, n=120, n_dims=6, *, apart=7.0, shares=None, seed=0):
    rng = np.random.default_rng(seed)
    centers = apart / np.sqrt(2) * np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0][:n_blobs]
    truth = rng.choice(n_blobs, n, p=shares)
    return centers[truth] + rng.normal(size=(n, n_dims)), truth


@pytest.fixture(scope="module")
def found():
    code, truth = blobs(3)
    adata = cohort(code)
    adata.obs["truth"] = truth
    ae.tl.subtypes(adata, max_subtypes=6)
    return adata


@pytest.mark.parametrize(("n_blobs", "shares"), [(2, None), (3, [0.6, 0.3, 0.1]), (4, None), (5, None)])
def test_finds_as_many_as_there_are(n_blobs, shares):
    code, truth = blobs(n_blobs, 150, shares=shares, seed=n_blobs)
    adata = cohort(code)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae.tl.subtypes(adata, max_subtypes=7, n_resamples=40)
    assert adata.obs["subtype"].nunique() == n_blobs
    assert adjusted_rand_score(truth, adata.obs["subtype"]) > 0.9


def test_evidence_can_be_asked_of_a_linear_code():
    code, truth = blobs(3, 90)
    adata = cohort(code)
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(90, 5))  # the data themselves hold nothing
    with pytest.warns(UserWarning, match="no stable subtypes"):
        ae.tl.subtypes(adata, evidence_rep="X_pca", max_subtypes=4, n_resamples=30)
    assert adata.obs["subtype"].nunique() == 1
    adata.obsm["X_pca"] = code @ np.random.default_rng(1).normal(size=(6, 5))
    ae.tl.subtypes(adata, evidence_rep="X_pca", max_subtypes=4, n_resamples=30)
    assert adjusted_rand_score(truth, adata.obs["subtype"]) > 0.9
    assert adata.uns["ae"]["subtype"]["evidence"]["p_value"].min() <= 0.05


def test_blobs_of_blobs_are_told_apart_to_the_last():
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=160)
    adata = cohort(np.array([[0, 0], [0, 7], [25, 0], [25, 7.0]])[truth] + rng.normal(size=(160, 2)))
    ae.tl.subtypes(adata, max_subtypes=6)
    assert adjusted_rand_score(truth, adata.obs["subtype"]) > 0.95


STRUCTURELESS = {
    "round": lambda rng: rng.normal(size=(120, 8)),
    "longer in some directions": lambda rng: rng.normal(size=(120, 8)) * np.array([8, 4, 2, 1, 1, 1, 1, 1]),
    "heavy tails": lambda rng: rng.standard_t(3, size=(120, 8)),
    "one outlier": lambda rng: np.r_[rng.normal(size=(119, 8)), np.full((1, 8), 20.0)],
    "more dimensions than patients": lambda rng: rng.normal(size=(40, 80)),
}


@pytest.mark.parametrize("draw", STRUCTURELESS.values(), ids=STRUCTURELESS)
def test_structureless_data_have_one_subtype_and_a_warning(draw):
    adata = cohort(draw(np.random.default_rng(3)))
    with pytest.warns(UserWarning, match="no stable subtypes"):
        ae.tl.subtypes(adata, max_subtypes=5, n_resamples=30)
    assert list(adata.obs["subtype"].cat.categories) == ["1"]
    assert (adata.obs["subtype_confidence"] == 1).all()


def test_false_subtypes_are_rare():
    wrong = 0
    for seed in range(20):
        adata = cohort(np.random.default_rng(seed).normal(size=(40, 3)) * [3, 1, 1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ae.tl.subtypes(adata, max_subtypes=4, n_resamples=20)
        wrong += adata.obs["subtype"].nunique() > 1
    assert wrong <= 4  # 5 % is meant; with that chance more than 4 of 20 come about once in 400


def test_what_is_written(found):
    assert set(found.obs) == {"truth", "subtype", "subtype_confidence"}
    label, confidence = found.obs["subtype"], found.obs["subtype_confidence"]
    assert isinstance(label.dtype, pd.CategoricalDtype)
    assert (np.diff(label.value_counts(sort=False)) <= 0).all()  # the largest is the first
    assert confidence.between(0, 1).all()
    consensus = found.obsp["subtype_consensus"]
    np.testing.assert_array_equal(consensus, consensus.T)
    assert consensus.dtype == np.float32
    np.testing.assert_allclose(np.diag(consensus), 1)
    same = label.to_numpy()[:, None] == label.to_numpy()
    assert consensus[same].mean() > 0.95
    assert consensus[~same].mean() < 0.05
    record = found.uns["ae"]["subtype"]
    assert record["curve"]["n_subtypes"].tolist() == [2, 3, 4, 5, 6]
    assert record["clusters"]["size"].tolist() == label.value_counts(sort=False).tolist()
    assert (record["clusters"]["stability"] > 0.9).all()


def test_doubtful_patients_have_less_confidence():
    code, truth = blobs(2, 100, 2, apart=8)
    between = (code[truth == 0].mean(0, keepdims=True) + code[truth == 1].mean(0)) / 2
    adata = cohort(np.r_[code, between])
    ae.tl.subtypes(adata, n_subtypes=2, max_subtypes=3)
    assert adata.obs["subtype_confidence"].iloc[-1] < adata.obs["subtype_confidence"].quantile(0.05)


def test_the_same_patients_get_the_same_subtypes_again(found, tmp_path):
    found.write_h5ad(tmp_path / "found.h5ad")
    for model in (found, found.uns["ae"]["subtype"], anndata.read_h5ad(tmp_path / "found.h5ad")):
        again = cohort(found.obsm["X_ae"][10:40])
        ae.tl.subtypes(again, reference=model)
        np.testing.assert_array_equal(again.obs["subtype"], found.obs["subtype"][10:40])
        np.testing.assert_array_equal(again.obs["subtype_confidence"], found.obs["subtype_confidence"][10:40])
        assert not again.obsp


def test_new_patients_are_assigned(found):
    code, truth = blobs(3)
    new = cohort(code + np.random.default_rng(9).normal(0, 0.3, code.shape))
    ae.tl.subtypes(new, reference=found)
    assert adjusted_rand_score(truth, new.obs["subtype"]) > 0.9
    one = cohort(code[:1])
    ae.tl.subtypes(one, reference=found)
    assert list(one.obs["subtype"].cat.categories) == ["1", "2", "3"]
    chained = cohort(code[:5])
    ae.tl.subtypes(chained, reference=new)  # what was assigned carries the subtypes on
    np.testing.assert_array_equal(chained.obs["subtype"], found.obs["subtype"][:5])


def test_scale_shift_and_order_do_not_matter(found):
    rng = np.random.default_rng(1)
    order = rng.permutation(found.n_obs)
    other = cohort(found.obsm["X_ae"][order] * 1e6 - 1e7)
    ae.tl.subtypes(other, max_subtypes=6)
    assert adjusted_rand_score(found.obs["subtype"].to_numpy()[order], other.obs["subtype"]) > 0.95


def test_repeats_with_its_seed_and_leaves_the_object_of_a_copy(found, random_states):
    before = random_states()
    adata = cohort(found.obsm["X_ae"])
    again = ae.tl.subtypes(adata, max_subtypes=6, copy=True)
    assert random_states() == before
    assert not list(adata.obs)
    assert not adata.uns
    np.testing.assert_array_equal(again.obsp["subtype_consensus"], found.obsp["subtype_consensus"])
    pd.testing.assert_frame_equal(again.uns["ae"]["subtype"]["curve"], found.uns["ae"]["subtype"]["curve"])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mudata_and_its_file(tmp_path):
    code, truth = blobs(2, 60)
    mdata = mudata.MuData({"rna": cohort(code), "prot": cohort(code)[:40].copy()})
    mdata.obsm["X_ae"] = code
    ae.tl.subtypes(mdata, max_subtypes=4)
    assert adjusted_rand_score(truth, mdata.obs["subtype"]) > 0.9
    mdata.write_h5mu(tmp_path / "cohort.h5mu")
    again = mudata.read_h5mu(tmp_path / "cohort.h5mu")
    np.testing.assert_array_equal(again.obsp["subtype_consensus"], mdata.obsp["subtype_consensus"])
    axes = ae.pl.subtypes(again, show=False)
    assert axes.shape == (2,)
    ae.tl.subtypes(again, max_subtypes=4)  # replaces its own results
    assert sorted(again.uns["ae"]) == ["subtype"]


def test_few_or_equal_patients():
    rng = np.random.default_rng(0)
    for code in (rng.normal(size=(1, 3)), rng.normal(size=(8, 3)), np.ones((30, 3))):
        adata = cohort(code)
        with pytest.warns(UserWarning, match="too few"):
            ae.tl.subtypes(adata)
        assert (adata.obs["subtype"] == "1").all()
    apart = cohort(np.r_[rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) + 10])
    ae.tl.subtypes(apart)
    assert apart.obs["subtype"].tolist() in (["1"] * 6 + ["2"] * 6, ["2"] * 6 + ["1"] * 6)


def test_duplicated_patients_are_no_trouble():
    adata = cohort(np.repeat(np.random.default_rng(0).normal(size=(3, 2)) * 5, 20, axis=0))
    ae.tl.subtypes(adata)
    assert adata.obs["subtype"].value_counts().tolist() == [20, 20, 20]
    with pytest.raises(ValueError, match="between 1 and 3"):
        ae.tl.subtypes(adata, n_subtypes=4)


def test_small_clusters_are_made_only_when_asked_for():
    code, _ = blobs(2, 60, 3)
    code = np.r_[code, np.full((2, 3), 60.0)]
    adata = cohort(code)
    with pytest.warns(UserWarning, match="1 of 3 subtypes have fewer than 5"):
        ae.tl.subtypes(adata, n_subtypes=3, max_subtypes=3)
    assert adata.obs["subtype"].value_counts().min() == 2


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        (lambda a: a.obsm["X_ae"].__setitem__((3, 1), np.nan), {}, ValueError, "missing or infinite.*patient 3"),
        (lambda a: None, {"use_rep": "X_none"}, KeyError, "X_none.*X_ae"),
        (lambda a: None, {"n_subtypes": 0}, ValueError, "n_subtypes: found 0"),
        (lambda a: None, {"max_subtypes": 1}, ValueError, "max_subtypes: found 1"),
        (lambda a: None, {"n_resamples": 3}, ValueError, "n_resamples: found 3"),
        (lambda a: a.obs.__setitem__("subtype", "mine"), {}, ValueError, "was not written by aeverse"),
        (lambda a: None, {"reference": {"decoder": 1}}, ValueError, "no result of aeverse.tl.subtypes"),
        (
            lambda a: None,
            {"reference": {"centroids": np.zeros((10, 2, 5))}},
            ValueError,
            "5 dimensions, this one has 6",
        ),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(change, arguments, error, message, fingerprint):
    adata = cohort(blobs(2, 40)[0])
    change(adata)
    before = fingerprint(adata)
    with pytest.raises(error, match=message):
        ae.tl.subtypes(adata, **arguments)
    assert fingerprint(adata) == before
    with pytest.raises(TypeError, match="AnnData or a MuData"):
        ae.tl.subtypes(adata.obsm["X_ae"])


def test_picture(found, fingerprint, tmp_path):
    import matplotlib.pyplot as plt

    before = fingerprint(found)
    axes = ae.pl.subtypes(found, save=tmp_path / "subtypes.png")
    assert (tmp_path / "subtypes.png").read_bytes().startswith(b"\x89PNG")
    assert fingerprint(found) == before
    drawn = axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.sort(drawn.ravel()), np.sort(found.obsp["subtype_consensus"].ravel()))
    assert "3 subtypes" in axes[1].get_title(loc="left")
    np.testing.assert_allclose(axes[1].lines[1].get_ydata(), found.uns["ae"]["subtype"]["curve"]["stability"])
    _, mine = plt.subplots(1, 2)
    assert list(ae.pl.subtypes(found, ax=mine)) == list(mine)
    new = cohort(found.obsm["X_ae"])
    ae.tl.subtypes(new, reference=found)
    with pytest.raises(ValueError, match="assigned by model="):
        ae.pl.subtypes(new)
    with pytest.raises(KeyError, match="nothing"):
        ae.pl.subtypes(found, key="nothing")
    plt.close("all")


# ---- codes of aeverse: judged by the data they were made of ------------------------------------------------------
def layers(*matrices, lacking=0):
    """A cohort of one layer a matrix; some patients lack the last."""
    mods = {}
    for i, x in enumerate(matrices):
        mods[f"layer{i}"] = anndata.AnnData(np.asarray(x, np.float32))
        mods[f"layer{i}"].obs_names = [f"patient {j}" for j in range(len(x))]
        mods[f"layer{i}"].var_names = [f"{i}_{j}" for j in range(x.shape[1])]
    last = f"layer{len(matrices) - 1}"
    mods[last] = mods[last][lacking:].copy()
    return mudata.MuData(mods)


def embedded(mdata):
    model = ae.models.MultimodalAutoencoder(recipe="samples", n_models=2, n_steps=100).fit(mdata)
    ae.tl.multimodal_embed(mdata, model=model)
    return mdata


def shared(rng, n=120, n_factors=5):
    return rng.normal(size=(n, n_factors)) @ rng.normal(size=(n_factors, 100)) + 2 * rng.normal(size=(n, 100))


NOISE = {
    "independent": lambda rng: layers(rng.normal(size=(120, 100)), rng.normal(size=(120, 40))),
    "correlated": lambda rng: layers(shared(rng), shared(rng)),
    "correlated between layers, some missing": lambda rng: layers(
        *np.split(shared(rng, n_factors=6), [60], axis=1), lacking=40
    ),
    "heavy tails": lambda rng: layers(rng.standard_t(3, size=(120, 100)), np.exp(rng.normal(size=(120, 40)))),
    "heavy-tailed patients": lambda rng: layers(shared(rng) * np.sqrt(5 / rng.chisquare(5, (120, 1))), shared(rng)),
    "mutations": lambda rng: layers(rng.random((120, 60)) < rng.uniform(0.02, 0.4, 60), rng.normal(size=(120, 40))),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("draw", NOISE.values(), ids=NOISE)
def test_embedded_noise_has_one_subtype_by_default(draw):
    mdata = embedded(draw(np.random.default_rng(5)))
    with pytest.warns(UserWarning, match="no stable subtypes"):
        ae.tl.subtypes(mdata, max_subtypes=5, n_resamples=30)
    assert mdata.obs["subtype"].nunique() == 1
    assert mdata.uns["ae"]["subtype"]["params"]["evidence_rep"] == "auto"
    assert mdata.uns["ae"]["subtype"]["evidence"]["n_subtypes"].tolist() == [2, 3, 4, 5]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_groups_of_the_code_alone_are_no_evidence():
    """As a guided code holds them even where its data are noise."""
    mdata = embedded(NOISE["correlated"](np.random.default_rng(0)))
    mdata.obsm["X_ae"] = blobs(3, 120)[0]
    ae.tl.subtypes(mdata, evidence_rep=None, max_subtypes=4, n_resamples=20)
    assert mdata.obs["subtype"].nunique() == 3
    with pytest.warns(UserWarning, match="no stable subtypes"):
        ae.tl.subtypes(mdata, max_subtypes=4, n_resamples=20)
    assert mdata.obs["subtype"].nunique() == 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("lacking", [0, 40])
def test_subtypes_that_the_layers_hold_are_found_by_default(lacking):
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    centers = rng.normal(size=(3, 100)) * 1.5
    mdata = embedded(
        layers(centers[truth] + shared(rng), centers[truth][:, ::2] + rng.normal(size=(120, 50)) * 2, lacking=lacking)
    )
    ae.tl.subtypes(mdata, max_subtypes=5, n_resamples=30)
    truth = pd.Series(truth, [f"patient {i}" for i in range(120)]).reindex(mdata.obs_names)
    assert adjusted_rand_score(truth, mdata.obs["subtype"]) > 0.8


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_batches_that_the_code_leaves_out_are_no_subtypes():
    rng = np.random.default_rng(1)
    batch = np.arange(120) % 2
    x = shared(rng) + 4 * np.outer(batch, rng.normal(size=100))
    mdata = layers(x, shared(rng))
    mdata.obs["batch"] = pd.Categorical(batch.astype(str))
    model = ae.models.MultimodalAutoencoder(recipe="samples", n_models=2, n_steps=100).fit(mdata, batch_key="batch")
    ae.tl.multimodal_embed(mdata, model=model)
    with pytest.warns(UserWarning, match="no stable subtypes"):
        ae.tl.subtypes(mdata, max_subtypes=4, n_resamples=30)


def test_subtypes_are_numbered_by_size_also_where_they_overlap():
    adata = cohort(np.random.default_rng(2).normal(size=(90, 6)))
    ae.tl.subtypes(adata, n_subtypes=6, max_subtypes=2, n_resamples=30)
    sizes = adata.obs["subtype"].value_counts(sort=False)
    assert (np.diff(sizes) <= 0).all()
    assert adata.uns["ae"]["subtype"]["clusters"]["size"].tolist() == sizes.tolist()


def test_no_more_subtypes_than_the_linear_code_supports():
    code, _ = blobs(5, 150, 6, seed=3)
    adata = cohort(code)
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(150, 3)) + 9 * (code[:, :1] > 1)  # two groups only
    ae.tl.subtypes(adata, evidence_rep="X_pca", max_subtypes=6, n_resamples=30)
    record = adata.uns["ae"]["subtype"]
    supported = record["evidence"].query("p_value <= 0.05 and stability >= 0.6")["n_subtypes"].max()
    assert adata.obs["subtype"].nunique() <= supported
