"""Covariates: what categories and numbers do to the data is gone from the embedding, and the types are kept."""

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import aeverse as ae
from aeverse.cli import main

ASKED = ["donor", "percent_mito"]
SMALL = {"n_models": 1, "n_latent": 8}  # of a tool
QUICK = {**SMALL, "max_steps": 200}


def simulate(n=450, p=150, seed=0):
    """Three types in three donors; donor and a number change a third of the genes each, whatever the type."""
    rng = np.random.default_rng(seed)
    kind, donor, number = rng.integers(3, size=n), rng.integers(3, size=n), rng.normal(size=n)
    few = [rng.random((k, p)) < 0.3 for k in (3, 3, 1)]
    types, donors, slope = (rng.normal(0, s, f.shape) * f for s, f in zip((0.8, 0.5, 0.4), few, strict=True))
    rate = np.exp(rng.normal(-1, 1, p) + types[kind] + donors[donor] + number[:, None] * slope)
    rate *= rng.lognormal(np.log(1500), 0.3, n)[:, None] / rate.sum(1, keepdims=True)
    names = {"type": np.array(list("ABC"))[kind], "donor": np.array(["d1", "d2", "d3"])[donor]}
    obs = pd.DataFrame({**names, "percent_mito": 5 + 2 * number}, index=[f"c{i}" for i in range(n)])
    return ad.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs)


def scores(embedding, obs):
    """Accuracy of neighbors for type and donor (a third by chance), and what of the number a linear model explains."""
    accuracy = [cross_val_score(KNeighborsClassifier(15), embedding, obs[key]).mean() for key in ("type", "donor")]
    ridge = RidgeCV(np.logspace(-2, 4, 7))
    return *accuracy, cross_val_score(ridge, embedding, obs["percent_mito"], scoring="r2").mean()


@pytest.fixture(scope="module")
def cells():
    return simulate()


@pytest.fixture(scope="module")
def model(cells):
    return ae.models.Autoencoder(**QUICK).fit(cells, covariates=ASKED)


# ---- what is gone and what is kept ---------------------------------------------------------------------------------
def test_the_embedding_loses_what_covariates_explain_and_keeps_the_types(cells, model):
    kind, donor, number = scores(ae.models.Autoencoder(**QUICK).fit(cells).encode(cells), cells.obs)
    assert (kind > 0.95, donor > 0.8, number > 0.8) == (True, True, True)  # else there is nothing to lose
    kind, donor, number = scores(model.encode(cells), cells.obs)
    assert (kind > 0.95, donor < 0.5, number < 0.1) == (True, True, True)


def test_a_number_that_comes_with_the_type_does_not_take_the_type_away(cells):
    adata = cells.copy()
    adata.obs["percent_mito"] += 3 * (adata.obs["type"] == "A")
    embedding = ae.models.Autoencoder(**QUICK).fit(adata, covariates="percent_mito").encode(adata)
    assert scores(embedding, adata.obs)[0] > 0.95


def test_denoised_as_average_holds_neither(cells):
    ae.tl.denoise(cells, n_models=1, covariates=ASKED, transform_batch="average", log1p=True, key_added="average")
    components = PCA(10, random_state=0).fit_transform(
        cells.layers["average"]
    )  # what little a gene keeps adds up over all genes
    kind, donor, number = scores(components, cells.obs)
    assert (kind > 0.95, donor < 0.55, number < 0.2) == (True, True, True)
    gene = cells.var_names[:2]
    again = ae.get.denoised(cells, list(gene), key="average")
    np.testing.assert_allclose(again.to_numpy(), cells[:, gene].layers["average"], rtol=1e-3, atol=1e-4)


def test_decoded_again_with_its_own_covariates_nothing_changes(cells, model, tmp_path):
    model.save(tmp_path / "m.ae")
    raw = ae.models.load(tmp_path / "m.ae")
    raw.net.correction = None
    assert not np.allclose(raw.encode(cells), model.encode(cells), atol=0.05)
    np.testing.assert_allclose(model.denoise(cells), raw.denoise(cells), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", ["cells", "samples"])
def test_of_several_modalities_too(cells, recipe, tmp_path):
    protein = np.log1p(cells.X.toarray()[:, :40])
    protein += 0.3 * cells.obs["percent_mito"].to_numpy()[:, None]
    mdata = md.MuData({"rna": cells.copy(), "protein": ad.AnnData(protein.astype(np.float32), obs=cells.obs[[]])})
    mdata.obs = cells.obs.copy()
    found = []
    for covariates in (None, ASKED):
        model = ae.models.MultimodalAutoencoder(recipe=recipe, n_steps=60, n_models=1)
        model.fit(mdata, covariates=covariates)
        found.append(scores(model.encode(mdata), cells.obs))
    assert found[0][2] > 0.8
    assert found[1][0] > found[0][0] - 0.02
    assert found[1][1] < max(found[0][1] - 0.2, 0.5)
    assert found[1][2] < 0.15
    model.save(tmp_path / "m.ae")
    again = ae.models.load(tmp_path / "m.ae")
    assert again.covariates == ASKED
    np.testing.assert_allclose(again.encode(mdata), model.encode(mdata), atol=1e-5)


# ---- new samples ---------------------------------------------------------------------------------------------------
def test_new_samples_lie_among_their_type_whatever_their_donor(cells, tmp_path):
    training, query = cells[:350].copy(), cells[350:].copy()
    ae.models.Autoencoder(**QUICK).fit(training, covariates=ASKED, batch_key=None).save(tmp_path / "m.ae")
    ae.tl.map_query(query, tmp_path / "m.ae", transfer="type")
    assert (query.obs["type_predicted"].astype(str) == query.obs["type"]).mean() > 0.95
    query.obs["donor"] = query.obs["donor"].replace("d3", "d9")
    with pytest.warns(UserWarning, match=r"categories \['d9'\] of obs\['donor'\] are not known to the model"):
        ae.tl.map_query(query, tmp_path / "m.ae")
    del query.obs["percent_mito"]
    with pytest.warns(UserWarning, match="'(donor|percent_mito)' is not a column|are not known"):
        ae.tl.map_query(query, tmp_path / "m.ae")
    with pytest.raises(KeyError, match="'percent_mito' is not a column of obs; columns are"):
        ae.models.load(tmp_path / "m.ae").encode(query)
    query.obs["percent_mito"] = "high"
    with pytest.raises(TypeError, match=r"obs\['percent_mito'\] holds .*; the model knows it as numbers"):
        ae.models.load(tmp_path / "m.ae").encode(query)


# ---- what is refused -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"percent_mito": np.nan}, ValueError, r"obs\['percent_mito'\] has 450 missing or infinite values"),
        ({"percent_mito": 3.0}, ValueError, r"obs\['percent_mito'\] holds the same number everywhere"),
        ({"donor": None}, ValueError, r"'donor'.* has 450 missing values"),
    ],
)
def test_columns_that_say_nothing_are_refused(cells, change, error, named):
    adata = ad.AnnData(cells.X, obs=cells.obs)
    adata.obs = adata.obs.assign(**change).astype({name: object for name, value in change.items() if value is None})
    with pytest.raises(error, match=named):
        ae.tl.embed(adata, covariates=ASKED)
    assert not adata.obsm


def test_a_column_is_named_once_and_other_methods_take_none(cells):
    with pytest.raises(ValueError, match=r"'donor' is both batch_key= and one of covariates="):
        ae.tl.embed(cells, batch_key="donor", covariates=ASKED, copy=True)
    with pytest.raises(KeyError, match="'plate' is not a column of obs"):
        ae.tl.denoise(cells, covariates=["plate"], copy=True)
    with pytest.raises(ValueError, match="method='pca' cannot use covariates="):
        ae.tl.embed(cells, method="pca", covariates="donor", copy=True)


# ---- records -------------------------------------------------------------------------------------------------------
def test_a_model_is_used_again_only_with_the_same_covariates(cells, tmp_path):
    adata = cells[:150].copy()
    ae.tl.embed(adata, **SMALL, covariates=ASKED)
    assert list(adata.uns["ae"]["X_ae"]["params"]["covariates"]) == ASKED
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad")
    known = ae.get.model(adata, key="X_ae").record()["checksum"]
    ae.tl.embed(adata, **SMALL, covariates=ASKED, key_added="X_again")
    assert ae.get.model(adata, key="X_again").record()["checksum"] == known
    adata.obs["percent_mito"] = adata.obs["percent_mito"].to_numpy()[::-1]
    ae.tl.embed(adata, **SMALL, covariates=ASKED, key_added="X_other")
    assert ae.get.model(adata, key="X_other").record()["checksum"] != known


def test_get_denoised_refuses_other_covariates(cells):
    adata = cells[:150].copy()
    ae.tl.denoise(adata, **SMALL, covariates=ASKED)
    adata.obs["percent_mito"] += 1
    with pytest.raises(ValueError, match=r"covariates in obs\['donor'\] and obs\['percent_mito'\] of 150 of 150"):
        ae.get.denoised(adata, adata.var_names[0])


def test_the_command_line_takes_them(cells, tmp_path):
    cells[:150].copy().write_h5ad(tmp_path / "in.h5ad")
    options = ["--covariates", "donor,percent_mito", "--n-latent", "4", "--n-models", "1"]
    assert main(["embed", str(tmp_path / "in.h5ad"), str(tmp_path / "out.h5ad"), *options]) == 0
    params = ad.read_h5ad(tmp_path / "out.h5ad").uns["ae"]["X_ae"]["params"]
    assert list(params["covariates"]) == ASKED


def test_a_covariate_that_is_no_column_is_refused_by_the_name_of_the_argument():
    adata = ae.datasets.simulate_counts(40, 20)
    with pytest.raises(KeyError, match=r"'nope' is not a column of obs.*covariates= name"):
        ae.tl.denoise(adata, covariates=["nope"], n_models=1, progress=False)
