"""tl.dropouts and pl.dropouts: true probabilities, kept where they are said to be, and pictured."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from sklearn.metrics import roc_auc_score

import aeverse as ae
from aeverse import _slots

GENES = ["LYZ", "CD79A", "CD3D"]


@pytest.fixture
def probabilities(small, model):
    """All of them, of the 100 x 100 corner."""
    copy = small.copy()
    ae.tl.dropouts(copy, model=model, threshold=0.0)
    return copy


@pytest.fixture(scope="module")
def blood(pbmc):
    """Blood cells with the probabilities of three genes, not to be changed."""
    adata = pbmc.copy()
    ae.tl.dropouts(adata, genes=GENES, model=ae.models.Autoencoder(n_models=1, max_epochs=8).fit(adata))
    return adata


# ---- the truth -------------------------------------------------------------------------------------------------
def _calibration_error(p, truth, n_bins=15):
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    return np.abs(np.bincount(bins, p, n_bins) - np.bincount(bins, truth, n_bins)).sum() / len(p)


def test_zeros_that_deeper_sequencing_fills_are_foretold(pbmc):
    """Half the molecules of real cells are taken away, and tell which zeros of the other half were dropouts."""
    adata = ae.pp.thin_counts(pbmc, 0.5, copy=True)
    half, rest = AnnData(adata.layers["thinned"]), adata.layers["thinned_rest"].toarray()
    zero, by_means = half.X.toarray() == 0, np.asarray(half.X.sum(1)) * np.asarray(half.X.sum(0)) / half.X.sum()
    truth = rest[zero] > 0
    model = ae.models.Autoencoder(n_models=1).fit(half)

    def foretold(depth):
        values, *_ = model.dropouts(half, depth=depth, threshold=0.0)
        return values.toarray()[zero]

    p, error = foretold(2.0), {"means": _calibration_error(-np.expm1(-by_means[zero]), truth)}
    error |= {depth: _calibration_error(foretold(depth), truth) for depth in (1.5, 2.0, 4.0)}
    assert error[2.0] < 0.015
    assert min(error["means"], error[1.5], error[4.0]) > 0.03  # what is not so fails
    assert roc_auc_score(truth, p) > roc_auc_score(truth, by_means[zero]) + 0.04


def test_genes_that_are_off_are_told_from_genes_that_were_missed():
    adata = ae.datasets.simulate_counts(800, 200, n_types=3, library_size=400)
    ae.tl.dropouts(adata, depth=2.0, threshold=0.0, model=ae.models.Autoencoder(n_models=1).fit(adata))
    zero = adata.X.toarray() == 0
    p, rate = adata.layers["dropout_prob"].toarray()[zero], adata.layers["rate"][zero]
    deeper = np.random.default_rng(0).poisson(rate) > 0
    assert _calibration_error(p, deeper) < 0.03
    assert p[rate == 0].mean() < 0.2 * p[rate > 0].mean()
    assert roc_auc_score(rate > 0, p) > 0.85


# ---- what is written -------------------------------------------------------------------------------------------
def test_what_is_written_and_nothing_else(small, model):
    before = small.copy()
    assert ae.tl.dropouts(small, model=model) is None
    values = small.layers["dropout_prob"]
    assert isinstance(values, sp.csr_matrix)
    assert values.shape == small.shape
    assert values.data.min() >= 0.5
    assert values.data.max() <= 1
    assert values.multiply(small.X).nnz == 0
    assert set(_slots.layer_names(small)) == {"dropout_prob"}
    assert list(small.var) == ["dropout_prob_mean"]
    assert list(small.obs) == [*before.obs, "dropout_prob_mean"]
    assert list(small.uns) == ["ae"]
    assert not small.obsm
    assert (small.X != before.X).nnz == 0
    params = small.uns["ae"]["dropout_prob"]["params"]
    assert (params["depth"], params["threshold"]) == (10.0, 0.5)


def test_threshold_leaves_out_small_probabilities_but_not_from_the_summaries(small, model, probabilities):
    ae.tl.dropouts(small, model=model, threshold=0.3)
    p, zero = probabilities.layers["dropout_prob"].toarray(), small.X.toarray() == 0
    np.testing.assert_array_equal(small.layers["dropout_prob"].toarray(), np.where(p >= 0.3, p, 0))
    with np.errstate(invalid="ignore"):
        for axis, found in ((0, small.var), (1, small.obs)):
            expected = p.sum(axis) / zero.sum(axis)
            np.testing.assert_allclose(found["dropout_prob_mean"], expected, rtol=1e-5)
    np.testing.assert_array_equal(small.var["dropout_prob_mean"], probabilities.var["dropout_prob_mean"])


def test_genes_keeps_all_zeros_of_these_genes_only(small, model, probabilities):
    genes = [small.var_names[7], small.var_names[3]]
    ae.tl.dropouts(small, model=model, genes=genes)
    p, found = probabilities.layers["dropout_prob"].toarray(), small.layers["dropout_prob"].toarray()
    np.testing.assert_allclose(found[:, [3, 7]], p[:, [3, 7]], rtol=1e-6)
    assert (np.delete(found, [3, 7], 1) == 0).all()
    assert np.isnan(np.delete(small.var["dropout_prob_mean"].to_numpy(), [3, 7])).all()
    expected = probabilities.var["dropout_prob_mean"].iloc[[3, 7]]
    np.testing.assert_allclose(small.var["dropout_prob_mean"].iloc[[3, 7]], expected, rtol=1e-6)
    assert list(small.uns["ae"]["dropout_prob"]["params"]["genes"]) == genes


def test_deeper_sequencing_sees_more(small, model, probabilities):
    ae.tl.dropouts(small, model=model, threshold=0.0, depth=2.0)
    shallow, deep = small.layers["dropout_prob"].toarray(), probabilities.layers["dropout_prob"].toarray()
    assert (shallow <= deep).all()
    assert shallow.sum() < 0.6 * deep.sum()


def test_a_saved_model_and_a_dense_matrix_give_the_same(small, model, probabilities, tmp_path):
    model.save(tmp_path / "model.ae")
    small.X = small.X.toarray()
    ae.tl.dropouts(small, model=tmp_path / "model.ae", threshold=0.0)
    assert (small.layers["dropout_prob"] != probabilities.layers["dropout_prob"]).nnz == 0


def test_training_is_that_of_denoise_and_repeats(small, few_steps):
    copies = [ae.tl.dropouts(small, random_state=seed, threshold=0.0, copy=True) for seed in (1, 1, 2)]
    first, again, other = (copy.layers["dropout_prob"] for copy in copies)
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0
    assert "dropout_prob" not in small.layers


def test_counts_of_zero_and_one_are_counts_as_they_are_to_denoise(few_steps):
    shallow = AnnData(sp.csr_matrix(np.random.default_rng(0).binomial(1, 0.05, (80, 30)).astype(np.float32)))
    ae.tl.dropouts(shallow, threshold=0.0)
    p = shallow.layers["dropout_prob"]
    assert 0 < p.data.min() <= p.data.max() < 1


def test_genes_and_cells_without_counts_are_no_trouble(small, few_steps):
    x = small.X.toarray()
    x[::7], x[:, [0, 50]] = 0, 0
    small.X = sp.csr_matrix(x)
    ae.tl.dropouts(small, threshold=0.0)
    values = small.layers["dropout_prob"].toarray()
    assert np.isfinite(values).all()
    assert (values[::7] == 0).all()  # a cell without molecules has none at any multiple of its depth
    assert (values[:, [0, 50]] == 0).all()
    assert np.isfinite(small.obs["dropout_prob_mean"]).all()
    summary = small.var["dropout_prob_mean"]
    assert (summary.iloc[[0, 50]] == 0).all()
    assert (summary.notna() == (x == 0).any(0)).all()


# ---- what is refused -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"depth": 1.0}, ValueError, "argument depth: found .*; pass a number above 1"),
        ({"depth": 0.5}, ValueError, "argument depth: found .*; pass a number above 1"),
        ({"depth": float("nan")}, ValueError, "argument depth: found .*; pass a number above 1"),
        ({"genes": ["nope"]}, KeyError, "nope"),
        ({"layer": "nope"}, KeyError, "nope"),
        ({"layer": "logs"}, ValueError, "raw counts"),
        ({"key_added": "mine"}, ValueError, "not written by aeverse"),
    ],
)
def test_a_call_that_fails_changes_nothing(small, model, fingerprint, arguments, error, words):
    small.layers["mine"], small.layers["logs"] = small.X.copy(), small.X.log1p()
    before = fingerprint(small)
    with pytest.raises(error, match=words):
        ae.tl.dropouts(small, model=model, **arguments)
    assert fingerprint(small) == before


# ---- standard deviations ---------------------------------------------------------------------------------------
def test_standard_deviations_of_denoised_values(small, few_steps):
    ae.tl.denoise(small, n_models=1, n_latent=4, uncertainty=True)
    one = small.copy()
    ae.tl.denoise(small, n_models=3, n_latent=4, uncertainty=True)
    for adata in (one, small):
        mean, sd = adata.layers["denoised"], adata.layers["denoised_sd"]
        assert sd.shape == mean.shape
        assert np.isfinite(sd).all()
        assert ((sd > 0) == (mean > 0)).all()
    # the share of a gamma posterior's variance in its mean is mu / (mu + theta), so never above 1 at the own scale
    ratio = one.layers["denoised_sd"] ** 2 / np.maximum(one.layers["denoised"], 1e-12)
    assert np.quantile(ratio, 0.99) < 1.5
    ae.tl.denoise(one, n_models=1, n_latent=4)
    assert "denoised_sd" not in one.layers  # it belonged to the call that is replaced


def test_lines_through_denoised_values_are_their_standard_deviations(small, few_steps):
    genes = list(small.var_names[[3, 7]])
    ae.tl.denoise(small, n_models=1, n_latent=4, uncertainty=True)
    axes = ae.pl.denoised(small, *genes, show=False)
    assert not axes[0].containers
    (lines,) = axes[1].containers
    mean, sd = (small[:, genes].layers[name] for name in ("denoised", "denoised_sd"))
    for axis, bars in enumerate(lines[2]):
        ends = np.array(bars.get_segments())[:, :, axis]
        np.testing.assert_allclose(ends[:, 0], np.maximum(mean[:, axis] - sd[:, axis], 0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ends[:, 1], mean[:, axis] + sd[:, axis], rtol=1e-4)
    ae.tl.denoise(small, n_models=1, n_latent=4)
    assert not ae.pl.denoised(small, *genes, show=False)[1].containers
    plt.close("all")


# ---- the picture -----------------------------------------------------------------------------------------------
def test_bars_are_shares_of_the_cells(blood, fingerprint):
    before = fingerprint(blood)
    axes = ae.pl.dropouts(blood, GENES, groupby="bulk_labels", show=False)
    assert fingerprint(blood) == before
    assert [ax.get_title(loc="left") for ax in axes] == GENES
    groups = blood.obs["bulk_labels"].cat.categories
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(groups)
    counts, p = blood[:, "LYZ"].X.toarray().ravel(), blood[:, "LYZ"].layers["dropout_prob"].toarray().ravel()
    seen, missed, absent = (np.array([bar.get_width() for bar in part]) for part in axes[0].containers)
    for i, group in enumerate(groups):
        cells = (blood.obs["bulk_labels"] == group).to_numpy()
        assert seen[i] == pytest.approx((counts[cells] > 0).mean())
        assert missed[i] == pytest.approx(p[cells].sum() / cells.sum())
    np.testing.assert_allclose(seen + missed + absent, 1)
    plt.close("all")


def test_picture_on_own_axes_after_a_file(blood, tmp_path):
    import anndata

    blood.write_h5ad(tmp_path / "blood.h5ad")
    _, ax = plt.subplots()
    found = ae.pl.dropouts(anndata.read_h5ad(tmp_path / "blood.h5ad"), "LYZ", groupby="bulk_labels", ax=ax, show=False)
    assert found is ax
    ae.pl.dropouts(blood, "LYZ", groupby="bulk_labels", save=tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 5000
    plt.close("all")


def test_picture_says_what_it_needs(blood, small, model):
    call = ae.pl.dropouts
    with pytest.raises(ValueError, match=r"does not hold \['CST3'\].*genes=\['CST3'\]"):
        call(blood, "CST3", groupby="bulk_labels")
    with pytest.raises(KeyError, match="nope"):
        call(blood, "LYZ", groupby="nope")
    with pytest.raises(KeyError, match="nope"):
        call(blood, "nope", groupby="bulk_labels")
    with pytest.raises(KeyError, match="does not exist"):
        call(small, small.var_names[0], groupby="batch")
    with pytest.raises(ValueError, match="argument genes: found"):
        call(blood, [], groupby="bulk_labels")
    with pytest.raises(ValueError, match="2 matplotlib Axes"):
        call(blood, GENES[:2], groupby="bulk_labels", ax=plt.subplots()[1])
    plt.close("all")
    ae.tl.dropouts(small, model=model)
    with pytest.raises(ValueError, match=r"from 0\.5 on only.*genes="):
        call(small, small.var_names[0], groupby="batch")
    ae.tl.denoise(small, model=model)
    with pytest.raises(KeyError, match=r"not written by aeverse\.tl\.dropouts"):
        call(small, small.var_names[0], groupby="batch", key="denoised")
