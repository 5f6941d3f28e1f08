"""Methods side by side on samples that they never saw."""

from __future__ import annotations

import warnings

import anndata as ad
import matplotlib
import mudata as md
import numpy as np
import pandas as pd
import pytest

import aeverse as ae
from aeverse import _slots, methods
from aeverse.tl import _benchmark

matplotlib.use("Agg")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore:Cannot join columns:UserWarning"),
    pytest.mark.usefixtures("few_steps"),
]
COSTS = ["fit_seconds", "encode_seconds", "memory_mb"]


@pytest.fixture(scope="module")
def cells():
    adata = ae.datasets.simulate_counts(160, 80, n_types=3)
    adata.obs["batch"] = pd.Categorical(np.where(np.arange(160) % 2, "a", "b"))
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(object)
    adata.obs.loc[adata.obs_names[:6], "cell_type"] = "unknown"
    return adata


def patients(n: int = 90, seed: int = 0) -> md.MuData:
    """Two kinds of patients, told apart by both layers; the second layer is missing in some; the kinds live longer."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    names = [f"p{i}" for i in range(n)]
    mods = {}
    for m, size in (("rna", 30), ("protein", 12)):
        x = rng.normal(size=(n, size)) + 1.5 * kind[:, None] * (np.arange(size) < size // 2)
        mods[m] = ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(index=names))
        mods[m].var_names = [f"{m}{i}" for i in range(size)]
    mods["protein"] = mods["protein"][10:].copy()
    mdata = md.MuData(mods)
    mdata.obs["kind"] = pd.Categorical(np.array(["x", "y"])[kind])
    mdata.obs["months"] = rng.exponential(np.where(kind == 1, 10.0, 50.0))
    mdata.obs["dead"] = rng.random(n) < 0.8
    return mdata


# ---- what comes back ---------------------------------------------------------------------------------------------
def test_a_row_for_each_method_and_fold(cells, fingerprint):
    before = fingerprint(cells)
    wanted = {"denoising": {"method": "ae", "n_models": 1}, "pca": {}, "kernel_pca": {}}
    table = ae.tl.benchmark(cells, wanted, label_key="cell_type", batch_key="batch", n_splits=2, n_latent=5)
    assert fingerprint(cells) == before
    assert table[["method", "split"]].to_numpy().tolist() == [[m, s] for m in wanted for s in range(2)]
    scores = ["variance_explained", "trustworthiness", "knn", "probe", "ari", "nmi", "silhouette", "batch"]
    assert table[scores].notna().all(axis=None)
    assert (table[scores] <= 1).all(axis=None)
    assert (table["n_dims"] == 5).all()
    assert not table["saw_test"].any()
    assert (table[["fit_seconds", "encode_seconds"]] > 0).all(axis=None)
    assert table.loc[table["method"] == "denoising", "deviance_explained"].notna().all()
    assert table.loc[table["method"] != "denoising", "deviance_explained"].isna().all()
    assert table.groupby("method")["knn"].mean()["pca"] > 0.9  # the types are far apart
    assert "c_index" not in table
    alone = {"denoising": wanted["denoising"]}  # what a method scores does not depend on the others
    again = ae.tl.benchmark(cells, alone, label_key="cell_type", batch_key="batch", n_splits=2, n_latent=5)
    pd.testing.assert_frame_equal(again.drop(columns=COSTS), table[:2].drop(columns=COSTS), check_like=True)


def test_without_labels_only_unsupervised_scores(cells):
    table = ae.tl.benchmark(cells, ["pca"], n_splits=2)
    assert list(table.columns) == [
        "method", "split", "variance_explained", "trustworthiness", "cluster_deviance", "n_clusters", "n_dims", *COSTS,
        "saw_test",
    ]  # fmt: skip


def test_clusters_are_judged_on_molecules_that_no_method_saw(cells, warm_neighbors):
    """By hand: the first half of all cells' molecules is embedded, the second judges; the layer is the one asked for."""
    moved = cells.copy()
    moved.layers["counts"], moved.X = moved.X, np.log1p(moved.X.toarray())
    table = ae.tl.benchmark(moved, {"pca": {}, "ae": {"n_models": 1}}, n_splits=2, n_latent=4, layer="counts")
    halves = ae.pp.thin_counts(cells, 0.5, copy=True)
    embedded = ae.tl.embed(halves, method="pca", n_latent=4, layer="thinned", copy=True).obsm["X_ae"]
    clusters = ae.metrics.default_clusters(embedded)
    expected = ae.metrics.cluster_deviance(
        clusters["clusters"], halves.layers["thinned"], halves.layers["thinned_rest"]
    )
    own = table[table["method"] == "pca"]
    assert own["cluster_deviance"].tolist() == pytest.approx([expected] * 2)
    assert own["n_clusters"].tolist() == [clusters["n_clusters"]] * 2
    assert table["cluster_deviance"].notna().all()
    assert expected > 0.1


def test_scores_are_those_of_the_method_fitted_to_the_training_samples_alone(cells):
    """By hand, for one fold: nothing of the test samples is used."""
    table = ae.tl.benchmark(cells, ["pca"], label_key="cell_type", n_splits=2, n_latent=4, random_state=3)
    truth = _benchmark.read_known(cells, "cell_type", None, None, None)
    train, test = _benchmark.draw_folds(cells.n_obs, truth, 2, 3)[1]
    assert not set(train) & set(test)
    assert sorted([*train, *test]) == list(range(cells.n_obs))
    seen, unseen = ({"X": _slots.as_modality(cells[rows], None, "auto")} for rows in (train, test))
    fitted = methods.MATRIX["pca"](seen, {"X": "counts"}, n_latent=4, random_state=4)
    labels = cells.obs["cell_type"].to_numpy()
    held_out = {"test_code": fitted.encode(unseen, len(test)), "test_labels": labels[test]}
    row = table[table["split"] == 1].iloc[0]
    assert row["knn"] == pytest.approx(ae.metrics.knn_accuracy(fitted.code, labels[train], **held_out))
    assert row["probe"] == pytest.approx(ae.metrics.linear_probe(fitted.code, labels[train], **held_out))


def test_folds_are_alike_in_labels(cells):
    truth = _benchmark.read_known(cells, "cell_type", None, None, None)
    shares = [
        pd.Series(truth.labels[test]).value_counts(normalize=True)
        for _, test in _benchmark.draw_folds(160, truth, 4, 0)
    ]
    assert np.ptp([s["type 0"] for s in shares]) < 0.05


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli"])
def test_values_that_are_no_counts(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)) @ rng.normal(size=(3, 25)) + 0.3 * rng.normal(size=(120, 25))
    adata = ad.AnnData((x if kind == "gaussian" else x > 0).astype(np.float32))
    table = ae.tl.benchmark(
        adata, {"ae": {"likelihood": kind, "regularizer": None, "max_epochs": 150}, "pca": {}}, n_splits=2, n_latent=4
    )
    assert table[["cluster_deviance", "n_clusters"]].isna().all(axis=None)
    ours, pca = (table[table["method"] == m].mean(numeric_only=True) for m in ("ae", "pca"))
    assert 0.1 < ours["deviance_explained"] < 1
    assert pca["variance_explained"] > (0.85 if kind == "gaussian" else 0.3)
    assert ours["variance_explained"] > 0.7 * pca["variance_explained"]


# ---- several modalities ------------------------------------------------------------------------------------------
def test_mudata_with_survival_and_missing_layers():
    pytest.importorskip("lifelines")
    wanted = {"ae": {"n_steps": 60}, "concat_pca": {}, "snf": {}}
    options = {"label_key": "kind", "time_key": "months", "event_key": "dead", "n_splits": 2, "drop_modalities": True}
    table = ae.tl.benchmark(patients(), wanted, **options)
    assert table.loc[table["saw_test"], "method"].unique().tolist() == ["snf"]
    shown = {m: set(own["modalities"]) for m, own in table.groupby("method")}
    assert shown["snf"] == {"all"}
    assert shown["ae"] == shown["concat_pca"] == {"all", "without rna", "without protein"}
    whole = table[table["modalities"] == "all"].groupby("method").mean(numeric_only=True)
    assert (whole["knn"] > 0.9).all()
    assert (whole.loc[["ae", "concat_pca"], "c_index"] > 0.55).all()
    assert table["variance_explained"].notna().all()


def test_methods_without_a_code_for_new_samples_are_known_as_such():
    """Those of MULTIMODAL that are fitted to all samples return no `encode`; scvi-tools' are tried in test_multimodal."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(60, 3))
    data = {m: ad.AnnData(factors @ rng.normal(size=(3, 20)) + rng.normal(size=(60, 20))) for m in ("rna", "protein")}
    given = _slots.read_modalities(md.MuData(data))
    kinds = dict.fromkeys(given, "continuous")
    options = {"n_obs": 60, "batches": None, "n_latent": 3, "random_state": 0, "progress": False}
    for name in ("concat_pca", "kernel_pca", "mfa", "snf", "wnn"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # muon's and scanpy's own
            found = methods.MULTIMODAL[name](given, kinds, **options)
        assert (found.encode is not None) == methods.MULTIMODAL[name].embeds_new, name


# ---- what is refused ---------------------------------------------------------------------------------------------
def test_bad_input_is_refused_by_name(cells):
    with pytest.raises(ValueError, match=r"methods: found 'umap'; for this kind of data there are \['ae', 'pca'"):
        ae.tl.benchmark(cells, ["umap"])
    with pytest.raises(ValueError, match="methods: found 'mofa'"):
        ae.tl.benchmark(cells, ["mofa"])
    with pytest.raises(ValueError, match=r"argument methods: found"):
        ae.tl.benchmark(cells, [])
    with pytest.raises(TypeError, match=r"method 'pca' does not know \['regularizer'\]"):
        ae.tl.benchmark(cells, {"pca": {"regularizer": "sparse"}})
    with pytest.raises(ValueError, match="argument regularizer: found 'thick'"):
        ae.tl.benchmark(cells, {"ae": {"regularizer": "thick"}})
    with pytest.raises(KeyError, match="label_key='kind' is not a column of obs"):
        ae.tl.benchmark(cells, label_key="kind")
    with pytest.raises(KeyError, match="'plate' is not a column"):
        ae.tl.benchmark(cells, batch_key="plate")
    with pytest.raises(ValueError, match="n_splits=100 must be at most 80"):
        ae.tl.benchmark(cells, n_splits=100)
    with pytest.raises(ValueError, match="drop_modalities=True leaves out modalities"):
        ae.tl.benchmark(cells, drop_modalities=True)
    with pytest.raises(ValueError, match="time_key and event_key go together"):
        ae.tl.benchmark(cells, time_key="months")
    with pytest.raises(ValueError, match="must be at most 0, half the number"):
        ae.tl.benchmark(cells[:1].copy())
    with pytest.raises(TypeError, match=r"argument data: found .*; pass an AnnData"):
        ae.tl.benchmark(np.zeros((4, 4)))


def test_an_error_says_which_method_and_split(cells):
    broken = cells.copy()
    broken.X = broken.X.toarray() - 1
    with pytest.raises(ValueError, match="negative") as caught:
        ae.tl.benchmark(broken, {"mine": {"method": "ae", "likelihood": "nb"}}, n_splits=2)
    assert caught.value.__notes__ == ["in method 'mine', split 0"]


# ---- the picture -------------------------------------------------------------------------------------------------
def test_picture_marks_the_best_honest_method(tmp_path):
    table = pd.DataFrame({
        "method": ["a", "a", "b", "b", "c", "c"], "split": [0, 1] * 3, "knn": [0.5, 0.6, 0.7, 0.8, 0.9, 0.9],
        "ari": [0.3, 0.3, 0.1, 0.2, 0.9, 0.9], "fit_seconds": [1.0, 1.2, 9.0, 10.0, 5.0, 5.0],
        "saw_test": [False] * 4 + [True] * 2,
    })  # fmt: skip
    axes = ae.pl.benchmark(table, save=tmp_path / "b.png")
    assert [ax.get_title(loc="left") for ax in axes] == ["knn", "ari"]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["a", "b", "c *"]

    def filled(ax):
        means = ax.collections[1::2]
        return ["abc"[i] for i, m in enumerate(means) if tuple(m.get_facecolor()[0][:3]) != (1, 1, 1)]

    assert filled(axes[0]) == ["b"]
    assert filled(axes[1]) == ["a"]
    assert filled(ae.pl.benchmark(table, scores="fit_seconds", show=False)) == ["a"]
    with pytest.raises(KeyError, match="scores="):
        ae.pl.benchmark(table, scores="speed", show=False)
    with pytest.raises(ValueError, match="table must be"):
        ae.pl.benchmark(pd.DataFrame({"x": [1]}), show=False)
