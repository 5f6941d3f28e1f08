"""`label_key`: types that are known make the embedding's populations, also for cells whose type is not known."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import aeverse as ae


@pytest.fixture(scope="module")
def counts() -> ad.AnnData:
    """Two types near each other, in each of which one program goes on and off, more strongly than the types differ."""
    rng = np.random.default_rng(0)
    n, p = 600, 150
    kind, state = rng.integers(0, 2, n), rng.integers(0, 2, n)
    log = rng.normal(0, 1, p) + np.zeros((n, p))
    log[:, :30] += 0.8 * kind[:, None] * rng.choice([-1, 1], 30)
    log[:, 30:80] += 1.2 * state[:, None] * rng.choice([-1, 1], 50)
    mean = np.exp(log)
    x = rng.poisson(600 * mean / mean.sum(1, keepdims=True)).astype(np.float32)
    labels = pd.Series(np.where(kind, "a", "b"), dtype=object)
    obs = pd.DataFrame({"type": labels, "state": state.astype(str)}).set_axis(np.arange(n).astype(str))
    obs["known"] = obs["type"].where(rng.random(n) < 0.5)
    return ad.AnnData(x, obs=obs)


def ratio(embedding: np.ndarray, groups: np.ndarray) -> float:
    """Squared distance of the means of two groups beside the variance within."""
    first, second = (embedding[groups == name] for name in np.unique(groups))
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() / (first.var(0).sum() + second.var(0).sum()))


def embedded(adata: ad.AnnData, **options) -> np.ndarray:
    model = ae.models.Autoencoder(likelihood="nb", n_models=1, max_steps=60)
    return model.fit(adata, progress=False, **options).encode(adata)


def test_types_come_apart_and_what_varies_within_them_counts_less_also_of_cells_without_a_label(counts):
    plain, labeled = embedded(counts), embedded(counts, label_key="known")
    hidden = counts.obs["known"].isna().to_numpy()
    types, states = (counts.obs[key].to_numpy()[hidden] for key in ("type", "state"))
    assert ratio(labeled[hidden], types) > 1.5 * ratio(plain[hidden], types)
    assert ratio(labeled[hidden], states) < 0.5 * ratio(plain[hidden], states)


def test_few_labels_change_little(counts):
    few = counts.copy()
    few.obs["few"] = few.obs["type"].where(np.arange(few.n_obs) < 10)
    plain, labeled = embedded(few), embedded(few, label_key="few")
    assert ratio(labeled, few.obs["type"].to_numpy()) > 0.8 * ratio(plain, few.obs["type"].to_numpy())


def test_unknown_words_are_no_type(counts):
    words = counts.copy()
    words.obs["known"] = words.obs["known"].fillna("unknown").astype("category")
    assert np.array_equal(embedded(words, label_key="known"), embedded(counts, label_key="known"))


def test_a_model_with_labels_is_found_again_and_not_taken_for_one_without(counts):
    adata = counts[:150].copy()
    ae.tl.embed(adata, n_models=1, label_key="known")
    first = adata.obsm["X_ae"].copy()
    ae.tl.denoise(adata, model=ae.get.model(adata, key="X_ae"))
    assert np.array_equal(adata.obsm["X_ae"], first)
    ae.tl.embed(adata, n_models=1, key_added="X_plain")
    assert not np.allclose(adata.obsm["X_plain"], first)
    relabeled = adata.copy()
    relabeled.obs["known"] = relabeled.obs["type"]
    ae.tl.embed(relabeled, n_models=1, label_key="known", key_added="X_all")
    assert not np.allclose(relabeled.obsm["X_all"], first)


def test_saved_with_its_units(counts, tmp_path):
    model = ae.models.Autoencoder(n_models=1, max_steps=30).fit(counts, label_key="known", progress=False)
    model.save(tmp_path / "model")
    assert np.array_equal(ae.models.load(tmp_path / "model").encode(counts), model.encode(counts))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"label_key": "nope"}, KeyError, "label_key"),
        ({"label_key": "one"}, ValueError, "there must be two"),
        ({"label_key": "number"}, TypeError, "not labels"),
        ({"label_key": "known", "regularizer": "sparse"}, ValueError, "units of noise"),
        ({"label_key": "known", "method": "pca"}, ValueError, "label_key="),
    ],
)
def test_refusals(counts, options, error, words):
    adata = counts[:60].copy()
    adata.obs["one"], adata.obs["number"] = "a", np.linspace(0, 1, 60)
    with pytest.raises(error, match=words):
        ae.tl.embed(adata, **options)
    assert not adata.obsm
    assert "ae" not in adata.uns
