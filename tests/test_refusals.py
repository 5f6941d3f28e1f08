"""Odd input is refused with one clear message, before anything is done, and what is unlike counts is warned of."""

from __future__ import annotations

import warnings

import anndata as ad
import matplotlib
import matplotlib.pyplot as plt
import mudata as md
import numpy as np
import pandas as pd
import pytest

import aeverse as ae

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
CODE, LABELS = RNG.normal(size=(20, 3)), np.array(["a", "b"] * 10)
WORDS = np.full((20, 3), "x")
VALUES = RNG.normal(size=(40, 12))


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    """Counts, an embedding, subtypes, and survival."""
    adata = ae.datasets.simulate_counts(60, 30, n_types=3)
    adata.obs["months"], adata.obs["dead"] = RNG.exponential(20, 60), RNG.random(60) < 0.6
    adata.obs["arm"] = np.where(np.arange(60) % 2, "drug", "None")
    adata.obs["age"] = np.r_[np.inf, RNG.normal(size=59)]
    adata.obs["$a_{"] = np.array(["$x$_{", "y$"] * 30)
    ae.tl.denoise(adata, n_models=1, n_latent=4)
    ae.tl.subtypes(adata, max_subtypes=3, n_resamples=10)
    return adata


@pytest.fixture(scope="module")
def model(cells):
    """The model of the counts."""
    return ae.get.model(cells)


@pytest.fixture(scope="module")
def joint():
    """Two modalities, and a model of them."""
    mdata = md.MuData({"a": ad.AnnData(VALUES[:, :6].copy()), "b": ad.AnnData(VALUES[:, 6:].copy())})
    return mdata, ae.models.MultimodalAutoencoder(n_steps=2).fit(mdata)


def table(columns, rows=((1.0, 2.0), (3.0, 4.0))) -> dict[str, pd.DataFrame]:
    """One modality of a cohort."""
    return {"rna": pd.DataFrame(rows, index=["s1", "s2"], columns=columns)}


def with_huge(value: float) -> ad.AnnData:
    """Values, one of which is odd."""
    values = VALUES.copy()
    values[0, 0] = value
    return ad.AnnData(values)


def with_levels() -> ad.AnnData:
    """Features with names of two levels."""
    adata = ad.AnnData(VALUES.copy())
    adata.var.index = pd.MultiIndex.from_product([["a"], range(12)])
    return adata


REFUSED = {
    # no observation
    "dropouts, no cell": (lambda c, m: ae.tl.dropouts(c[:0].copy(), model=m), ValueError, "no observations"),
    "attribute, no cell": (lambda c, m: ae.tl.attribute(c[:0].copy(), m), ValueError, "no observations"),
    "pca, no cell": (lambda c, m: ae.tl.embed(c[:0].copy(), method="pca"), ValueError, "no observations"),
    # layers and names
    "layer of modalities": (lambda c, m: ae.tl.map_query(c.copy(), m, layer={"a": "x"}), TypeError, "layer={'a': 'x'} must"),
    "masked array": (
        lambda c, m: ae.tl.embed(ad.AnnData(np.ma.masked_less(VALUES, 0))), TypeError, r"masked array.*filled\(numpy.nan\)"),
    "MultiIndex": (lambda c, m: ae.models.Autoencoder().fit(with_levels()), TypeError, "MultiIndex"),
    "gene set that is none": (lambda c, m: ae.models.Autoencoder(gene_sets={"a": 5}), TypeError, "'a'.*list of genes"),
    # values
    "pca, infinite": (lambda c, m: ae.tl.embed(with_huge(np.inf), method="pca"), ValueError, "infinite values"),
    "kernel pca, infinite": (lambda c, m: ae.tl.embed(with_huge(-np.inf), method="kernel_pca"), ValueError, "infinite"),
    "beyond single precision": (lambda c, m: ae.tl.embed(with_huge(1e200)), ValueError, "beyond single precision"),
    "pca, nothing": (lambda c, m: ae.tl.embed(ad.AnnData(VALUES * np.nan), method="pca"), ValueError, "other than NaN"),
    "target_sum": (lambda c, m: ae.tl.denoise(c.copy(), model=m, target_sum=1e300), ValueError, "target_sum: found 1e.300"),
    "not integers": (lambda c, m: ae.pp.check_counts(ad.AnnData(np.full((2, 2), 354.0001))), ValueError, r"as 354\.0001\)"),
    # codes
    "code, NaN": (lambda c, m: m.denoise(c, code=m.encode(c) * np.nan), ValueError, "missing or infinite values in 60 of 60"),
    "code, width": (lambda c, m: m.denoise(c, code=m.encode(c)[:, :2]), ValueError, r"code has shape \(60, 2\)"),
    "code, length": (lambda c, m: m.dropouts(c, code=m.encode(c)[:5]), ValueError, "code has 5 rows for 60 cells"),
    "code, words": (lambda c, m: m.decode(np.full((2, 4), "x")), TypeError, "code must hold numbers"),
    "code, decoded NaN": (lambda c, m: m.decode(m.encode(c) * np.nan), ValueError, "missing or infinite"),
    # records
    "record": (lambda c, m: ae.get.denoised(ad.AnnData(VALUES, uns={"ae": {"denoised": 5}}), "1"), ValueError, "'denoised'"),
    # subtypes
    "centroids, NaN": (
        lambda c, m: ae.tl.subtypes(c.copy(), reference={"centroids": np.full((10, 3, 4), np.nan)}), ValueError, "120 NaN"),
    "centroids, shape": (
        lambda c, m: ae.tl.subtypes(c.copy(), reference={"centroids": np.zeros((10, 4))}), ValueError, r"shape \(10, 4\)"),
    "centroids, words": (
        lambda c, m: ae.tl.subtypes(c.copy(), reference={"centroids": "x"}), TypeError, "no numbers"),
    # survival
    "covariate": (
        lambda c, m: ae.tl.survival(c.copy(), time_key="months", event_key="dead", covariates="age"), ValueError,
        r"obs\['age'\] holds infinite"),
    "times": (
        lambda c, m: ae.tl.survival(negative(c), time_key="months", event_key="dead", groupby="arm"), ValueError,
        "no patient of 60 can be used.*time of 60 is zero or negative"),
    # metrics
    "D2, counts": (lambda c, m: ae.metrics.deviance_explained(c.X, -c.X, c.X), ValueError, "train has negative"),
    "D2, words": (lambda c, m: ae.metrics.deviance_explained(WORDS, CODE**2, CODE**2), TypeError, "denoised must hold numbers"),
    "D2, shape": (lambda c, m: ae.metrics.deviance_explained([1.0], [1.0], [1.0]), ValueError, r"train must have the shape"),
    "clusters": (
        lambda c, m: ae.metrics.cluster_deviance(np.c_[LABELS, LABELS], CODE**2, CODE**2), ValueError, r"clusters.*\(20, 2\)"),
    "labels": (
        lambda c, m: ae.metrics.knn_accuracy(CODE, np.c_[LABELS, LABELS], test_code=CODE, test_labels=LABELS), ValueError,
        r"labels must be one for each sample, found an array of shape \(20, 2\)"),
    "batches": (lambda c, m: ae.metrics.batch_score(CODE, np.c_[LABELS, LABELS]), ValueError, "batches must be one for each"),
    "code of words": (lambda c, m: ae.metrics.biology_score(WORDS, LABELS), TypeError, "code must hold numbers"),
    "data, shape": (lambda c, m: ae.metrics.trustworthiness(CODE, np.ones(20)), ValueError, "x must have the shape"),
    "data, infinite": (
        lambda c, m: ae.metrics.variance_explained(CODE, CODE * np.inf, test_code=CODE, test_x=CODE), ValueError, "infinite"),
    # plots
    "save, folder": (lambda c, m: ae.pl.latent(c, save="/nowhere/x.png"), FileNotFoundError, "no folder '/nowhere'"),
    "save, format": (lambda c, m: ae.pl.latent(c, save="x.foo"), ValueError, "save='x.foo' cannot be written"),
    # cohorts
    "cohort, name": (lambda c, m: ae.datasets.cohort_from_tables({"a/b": table(["A", "B"])["rna"]}), ValueError, "a/b"),
    "cohort, infinite": (
        lambda c, m: ae.datasets.cohort_from_tables(table(["A", "B"], ((1.0, np.inf), (2.0, 3.0)))), ValueError,
        "'B' of 's1' is infinite"),
    # benchmark
    "benchmark, option": (
        lambda c, m: ae.tl.benchmark(c, {"pca": {"n_latent": -1}}, n_splits=2), ValueError, "n_latent: found -1"),
}  # fmt: skip


def negative(cells: ad.AnnData) -> ad.AnnData:
    """Patients whose times are all negative."""
    cells = cells.copy()
    cells.obs["months"] = -1.0
    return cells


@pytest.mark.parametrize("case", REFUSED)
def test_odd_input_is_refused_clearly(cells, model, case, fingerprint):
    call, error, message = REFUSED[case]
    before = fingerprint(cells)
    with pytest.raises(error, match=message):
        call(cells, model)
    assert fingerprint(cells) == before
    plt.close("all")


def test_layers_and_values_of_several_modalities_are_checked(joint):
    mdata, model = joint
    for call, error, message in (
        (lambda: ae.tl.map_query(mdata.copy(), model, layer="x"), TypeError, "layer='x' must be a dict from modality"),
        (lambda: model.encode(mdata[:0].copy()), ValueError, "no observations"),
        (lambda: model.fit(md.MuData({"a": with_huge(1e200)})), ValueError, "'a'.*beyond single precision"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_subtypes_are_not_assigned_in_the_embedding_of_another_model(cells, model, tmp_path):
    patients = ae.datasets.simulate_counts(40, 30, n_types=3, random_state=1)
    model.save(tmp_path / "m.ae")
    same = ae.tl.map_query(patients, tmp_path / "m.ae", copy=True)
    ae.tl.subtypes(same, reference=cells)
    assert same.obs["subtype"].nunique() > 0
    ae.tl.denoise(patients, n_models=1, n_latent=4, random_state=1)
    with pytest.raises(
        ValueError, match=r"made with another model than the embedding in which the subtypes were found"
    ):
        ae.tl.subtypes(patients, reference=cells)
    assert "subtype" not in patients.obs
    patients.obsm["X_ae"] = model.encode(
        patients
    )  # by hand, over that of the other model, which the record still names
    with pytest.raises(ValueError, match=r"that you made yourself belongs under another key, which use_rep= names"):
        ae.tl.subtypes(patients, reference=cells)
    patients.obsm["X_mine"] = model.encode(patients)
    ae.tl.subtypes(patients, reference=cells, use_rep="X_mine")
    assert (patients.obs["subtype"].astype(str) == same.obs["subtype"].astype(str)).all()


def test_groups_that_read_as_unknown_are_named(cells):
    keys = {"time_key": "months", "event_key": "dead", "groupby": "arm", "copy": True}
    with pytest.warns(UserWarning, match=r"obs\['arm'\] reads \['None'\] in 30 of 60 rows, which is taken for unknown"):
        found = ae.tl.survival(cells, **keys).uns["ae"]["survival"]
    assert found["patients"]["group_missing"] == 30
    with pytest.warns(UserWarning, match="one group only, 'drug', so that there is nothing to compare"):
        ae.tl.survival(cells, **keys)
    lonely = cells.copy()
    lonely.obs["arm"] = ["x"] + ["y"] * 59
    with pytest.warns(UserWarning, match=r"\['x'\] hold one patient each"):
        ae.tl.survival(lonely, **keys)


def test_names_with_dollars_are_drawn_as_they_are(cells, tmp_path):
    adata = cells.copy()
    adata.var_names = ["a$_{", "$b$_{", *adata.var_names[2:]]
    for draw in (
        lambda: ae.pl.latent(adata, color="$a_{", show=False),
        lambda: ae.pl.latent(adata, color="a$_{", show=False),
        lambda: ae.pl.latent(adata, color="$b$_{", save=tmp_path / "figure"),
    ):
        drawn = draw()
        drawn.figure.canvas.draw()
        plt.close("all")
    assert [f.name for f in tmp_path.iterdir()] == ["figure.png"]


def test_patients_and_features_without_a_name_are_dropped_and_reported():
    frame = pd.DataFrame({"sample": ["s1", np.nan, "s3"], "A": [1.0, 2, 3], "B": [2.0, 3, 4], "nan": [0.0, 1, 2]})
    mdata = ae.datasets.cohort_from_tables({"rna": frame})
    assert list(mdata.obs_names) == ["s1", "s3"]
    assert list(mdata["rna"].var_names) == ["A", "B"]
    dropped = mdata.uns["ae"]["cohort"]["dropped"]
    assert {"samples without a name", "features without a name"} <= set(dropped["what"])
    twice = pd.DataFrame([[1.0, 2, 3]], index=["g"], columns=["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-AA-0002"])
    mdata = ae.datasets.cohort_from_tables({"rna": twice})
    assert list(mdata.obs_names) == ["TCGA-AA-0001", "TCGA-AA-0002"]
    assert "further samples of a patient" in set(mdata.uns["ae"]["cohort"]["dropped"]["what"])


def test_what_is_unlike_counts_is_warned_of():
    adata = ae.datasets.simulate_counts(60, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae.pp.check_counts(adata)
    doubled, rounded = adata.copy(), adata.copy()
    doubled.X = doubled.X * 2
    counts = rounded.X.toarray()
    rounded.X = np.rint(counts * 1e4 / counts.sum(1, keepdims=True))
    transposed = ae.datasets.simulate_counts(30, 20)
    transposed.obs_names = ["GAPDH", *transposed.obs_names[1:]]
    for odd, message in (
        (doubled, "all counts are multiples of 2"),
        (rounded, "nearly the same library size.*raw counts"),
        (transposed, "obs_names hold names of genes; cells must be rows"),
    ):
        with pytest.warns(UserWarning, match=message):
            ae.pp.check_counts(odd)
        with pytest.warns(UserWarning, match=message):
            ae.models.Autoencoder(n_models=1, n_latent=2, max_epochs=1).fit(odd)
