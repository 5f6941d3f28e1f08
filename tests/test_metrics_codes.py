"""Scores of codes: against scIB's own implementation, at their bounds, and with what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import aeverse as ae


def blobs(n: int = 240, n_types: int = 4, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A code with types of different sizes."""
    rng = np.random.default_rng(seed)
    types = rng.choice(n_types, n, p=np.arange(n_types, 0, -1) / np.arange(n_types, 0, -1).sum())
    return rng.normal(size=(n, 5)) + apart * rng.normal(size=(n_types, 5))[types], np.array(list("abcdefgh"))[types]


def test_parts_agree_with_scib():
    scib = pytest.importorskip("scib_metrics")
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    def results(code, k):
        distances, indices = NearestNeighbors(n_neighbors=k).fit(code).kneighbors(code)
        return NeighborsResults(indices=indices, distances=distances)

    rng = np.random.default_rng(0)
    labels, batches = np.repeat(["a", "b", "c"], 64), np.tile(["x", "y", "z"], 64)
    code = rng.normal(size=(192, 5)) + 2.0 * rng.normal(size=(3, 5))[np.repeat(np.arange(3), 64)]
    code = code + 1.6 * (batches == "x")[:, None]
    biology = ae.metrics.biology_score(code, labels, parts=True)
    batch = ae.metrics.batch_score(code, batches, labels=labels, parts=True)
    assert biology["silhouette"] == pytest.approx(float(scib.silhouette_label(code, labels)), abs=1e-4)
    assert biology["clisi"] == pytest.approx(float(scib.clisi_knn(results(code, 90), labels)), abs=1e-3)
    assert batch["silhouette"] == pytest.approx(float(scib.silhouette_batch(code, labels, batches)), abs=1e-4)
    assert batch["ilisi"] == pytest.approx(float(scib.ilisi_knn(results(code, 90), batches)), abs=1e-3)
    assert batch["connectivity"] == pytest.approx(float(scib.graph_connectivity(results(code, 15), labels)))
    kbet = [scib.kbet(results(code[labels == t], 50), batches[labels == t])[0] for t in np.unique(labels)]
    assert batch["kbet"] == pytest.approx(float(np.mean(kbet)), abs=0.01)
    assert 0.05 < batch["kbet"] < 0.95


# ---- bounds and order --------------------------------------------------------------------------------------------
def test_biology_is_one_for_types_far_apart_and_falls_with_distance():
    far, near, none = (ae.metrics.biology_score(*blobs(apart=a)) for a in (40.0, 2.0, 0.0))
    assert far > 0.97 > near > none
    assert none < 0.6


def test_mixed_batches_score_higher_than_separate_ones():
    code, labels = blobs()
    batches = np.random.default_rng(0).choice(["x", "y"], len(code))
    scores = [
        ae.metrics.batch_score(code + shift * (batches == "x")[:, None], batches, labels=labels) for shift in (0, 2, 20)
    ]
    assert scores[0] > 0.85
    assert scores[0] > scores[1] > scores[2]


def test_labels_are_read_from_held_out_codes():
    code, labels = blobs(n=400, apart=8.0)
    parts = {"test_code": code[200:], "test_labels": labels[200:]}
    assert ae.metrics.knn_accuracy(code[:200], labels[:200], **parts) > 0.99
    assert ae.metrics.linear_probe(code[:200], labels[:200], **parts) > 0.99
    shuffled = np.random.default_rng(0).permutation(labels[:200])
    assert ae.metrics.knn_accuracy(code[:200], shuffled, **parts) < 0.45
    assert ae.metrics.linear_probe(code[:200], shuffled, **parts) < 0.5
    assert ae.metrics.cluster_agreement(code, labels)["ari"] > 0.9
    assert abs(ae.metrics.cluster_agreement(code, np.random.default_rng(0).permutation(labels))["ari"]) < 0.05


def test_unknown_labels_do_not_count():
    code, labels = blobs(n=300, apart=8.0)
    told = labels.astype(object).copy()
    told[::5], told[1::7] = "unknown", np.nan
    there = ~np.isin(np.arange(300), np.r_[np.arange(0, 300, 5), np.arange(1, 300, 7)])
    parts = {"test_code": code[150:], "test_labels": told[150:]}
    assert ae.metrics.knn_accuracy(code[:150], told[:150], **parts) > 0.99
    found = ae.metrics.biology_score(code, told, parts=True)
    alone = ae.metrics.biology_score(code[there], labels[there], parts=True)
    assert found["silhouette"] == pytest.approx(alone["silhouette"], abs=1e-5)
    assert found["clisi"] == pytest.approx(alone["clisi"], abs=1e-5)


def test_variance_explained_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    code = rng.normal(size=(300, 3))
    x = code @ rng.normal(size=(3, 20)) + 0.5 * rng.normal(size=(300, 20)) + 4
    found = ae.metrics.variance_explained(code[:200], x[:200], test_code=code[200:], test_x=x[200:])
    design = np.c_[np.ones(200), code[:200]]
    fitted = np.c_[np.ones(100), code[200:]] @ np.linalg.lstsq(design, x[:200], rcond=None)[0]
    expected = 1 - ((x[200:] - fitted) ** 2).sum() / ((x[200:] - x[:200].mean(0)) ** 2).sum()
    assert found == pytest.approx(expected, abs=2e-3)
    noise = rng.normal(size=(300, 3))
    assert abs(ae.metrics.variance_explained(noise[:200], x[:200], test_code=noise[200:], test_x=x[200:])) < 0.05


def test_variance_explained_takes_sparse_data_and_leaves_out_missing_entries():
    rng = np.random.default_rng(0)
    code = rng.normal(size=(100, 2))
    x = (code @ rng.normal(size=(2, 10))).round(2)
    dense = ae.metrics.variance_explained(code[:60], x[:60], test_code=code[60:], test_x=x[60:])
    sparse = ae.metrics.variance_explained(
        code[:60], sp.csr_matrix(x[:60]), test_code=code[60:], test_x=sp.csr_matrix(x[60:])
    )
    assert sparse == pytest.approx(dense)
    x[rng.random(x.shape) < 0.1] = np.nan
    assert ae.metrics.variance_explained(code[:60], x[:60], test_code=code[60:], test_x=x[60:]) > 0.9


def test_trustworthiness_falls_when_neighbors_are_torn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 4))
    assert ae.metrics.trustworthiness(x, x) == 1
    assert ae.metrics.trustworthiness(x[:, :2], x) > ae.metrics.trustworthiness(rng.normal(size=(1600, 2)), x) + 0.2


# ---- what is refused ---------------------------------------------------------------------------------------------
def test_bad_input_is_refused_by_name():
    code, labels = blobs(60)
    with pytest.raises(ValueError, match="59 labels for 60 samples"):
        ae.metrics.biology_score(code, labels[1:])
    with pytest.raises(ValueError, match="two are needed"):
        ae.metrics.biology_score(code, ["a"] * 60)
    with pytest.raises(ValueError, match="one batch only, 'a'"):
        ae.metrics.batch_score(code, ["a"] * 60)
    with pytest.raises(ValueError, match="1 cells have no batch"):
        ae.metrics.batch_score(code, ["a"] * 30 + ["b"] * 29 + [None])
    with pytest.raises(ValueError, match="no label of test_code is known"):
        ae.metrics.knn_accuracy(code, labels, test_code=code, test_labels=["NA"] * 60)
    with pytest.raises(ValueError, match="code has 5 dimensions, test_code has 4"):
        ae.metrics.linear_probe(code, labels, test_code=code[:, :4], test_labels=labels)
    with pytest.raises(ValueError, match="missing or infinite"):
        ae.metrics.cluster_agreement(np.full((3, 2), np.nan), ["a", "b", "c"])
    with pytest.raises(ValueError, match="shapes do not fit"):
        ae.metrics.variance_explained(code, code[1:], test_code=code, test_x=code)
    with pytest.raises(ValueError, match="4 are needed"):
        ae.metrics.trustworthiness(code[:2], code[:2])


def test_global_random_states_are_left_alone(random_states):
    before = random_states()
    ae.metrics.biology_score(*blobs(60))
    assert random_states() == before
