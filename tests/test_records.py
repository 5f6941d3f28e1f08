"""Every tool records every parameter in ``uns["ae"]``, and uses or refuses every option."""

import inspect
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import aeverse as ae
from aeverse._slots import _record, _write

WRITES_NOTHING = {"benchmark"}  # returns a table


def cells(n: int = 80) -> ad.AnnData:
    adata = ae.datasets.simulate_counts(n, 40, n_types=2)
    rng = np.random.default_rng(0)
    adata.obs["group"] = pd.Categorical(np.where(adata.obs["cell_type"] == "type 0", "a", "b"))
    adata.obs["months"], adata.obs["dead"] = rng.exponential(20, n), rng.random(n) < 0.6
    adata.obs["batch"] = pd.Categorical(np.where(np.arange(n) % 2, "x", "y"))
    adata.obsm["X_linear"] = rng.normal(size=(n, 3)) + 8 * (adata.obs["group"] == "a").to_numpy()[:, None]
    return adata


def joint(n: int = 60) -> md.MuData:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(n, 2))
    shapes = {"rna": 20, "other": 15}
    mdata = md.MuData(
        {m: ad.AnnData(factors @ rng.normal(size=(2, d)) + rng.normal(size=(n, d))) for m, d in shapes.items()}
    )
    carries = rng.random((n, 6)) < 0.4
    mdata.mod["prot"] = ad.AnnData(rng.poisson(np.where(carries, 80.0, 4.0)).astype(np.float32))
    mdata.update()
    return mdata


def model() -> ae.models.Autoencoder:
    return ae.models.Autoencoder(n_models=1, n_latent=3, max_epochs=2).fit(cells())


# Of each tool the data and the arguments of the smallest call that works.
CALLS = {
    "denoise": lambda: (cells(), {"n_models": 1, "n_latent": 2, "genes": ["gene 1"]}),
    "dropouts": lambda: (cells(), {"mask_var": None}),
    "embed": lambda: (cells(), {"n_models": 1, "n_latent": 2, "batch_key": "batch"}),
    "multimodal_embed": lambda: (joint(), {"modalities": ["rna", "other"], "layer": {"rna": None}}),
    "predict_modality": lambda: (joint(), {"target": "other", "modalities": "rna"}),
    "map_query": lambda: (cells(), {"model": model(), "transfer": "cell_type"}),
    "markers": lambda: (cells(), {"groupby": "group", "n_splits": 2}),
    "protein_foreground": lambda: (joint(), {}),
    "attribute": lambda: (cells(), {"model": model(), "groupby": "group"}),
    "subtypes": lambda: (cells(), {"use_rep": "X_linear", "max_subtypes": 3, "n_resamples": 10}),
    "survival": lambda: (cells(), {"time_key": "months", "event_key": "dead", "groupby": "group"}),
    "associations": lambda: (cells(), {"groupby": "group", "columns": "months"}),
}


def test_every_tool_is_tried():
    assert set(CALLS) == set(ae.tl.__all__) - WRITES_NOTHING


@pytest.mark.parametrize("tool", CALLS)
def test_every_parameter_is_recorded(tool, monkeypatch, few_steps):
    """Before None is left out, as files cannot hold it."""
    data, arguments = CALLS[tool]()
    recorded = []
    write = _write.write

    def spy(data, results):
        recorded.append(results.record["params"])
        return write(data, results)

    monkeypatch.setattr(_write, "write", spy)
    monkeypatch.setattr(ae._slots, "write", spy)
    function = getattr(ae.tl, tool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few samples and steps
        function(data, **arguments)
    expected = set(inspect.signature(function).parameters) - set(_record.NOT_RECORDED)
    assert any(expected <= set(params) for params in recorded), tool  # a tool may call another one on a copy


def test_what_is_recorded_is_what_was_passed(few_steps):
    adata = cells()
    ae.tl.denoise(adata, n_models=1, n_latent=2, genes="gene 1", target_sum=1e4, mask_var=np.arange(40) < 30)
    params = adata.uns["ae"]["denoised"]["params"]
    assert params["genes"].tolist() == ["gene 1"]
    assert params["target_sum"] == 1e4
    assert params["mask_var"].sum() == 30
    assert params["device"] == "auto"


# ---- options that have no effect -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("pca", {"batch_key": "batch"}),
        ("kernel_pca", {"batch_key": "batch"}),
        ("pca", {"regularizer": "sparse"}),
        ("pca", {"regularizer": None}),
        ("scvi", {"decoder": "mlp"}),
        ("kernel_pca", {"n_models": 2}),
        ("pca", {"device": "cpu"}),
        ("pca", {"gene_sets": {"a": ["gene 1"]}}),
    ],
)
def test_embed_refuses_what_its_method_cannot_use(method, options, fingerprint):
    adata = cells()
    before = fingerprint(adata)
    [name] = options
    with pytest.raises(ValueError, match=f"method='{method}' cannot use {name}="):
        ae.tl.embed(adata, method=method, **options)
    assert fingerprint(adata) == before


@pytest.mark.parametrize("method", ["concat_pca", "kernel_pca", "mfa", "snf", "wnn", "mofa"])
def test_multimodal_embed_refuses_batches_that_its_method_cannot_use(method):
    mdata = joint()
    mdata.obs["batch"] = "one"
    with pytest.raises(ValueError, match=f"method='{method}' cannot use batch_key="):
        ae.tl.multimodal_embed(mdata, method=method, batch_key="batch")


def test_a_model_beside_options_that_would_describe_another_warns():
    adata, fitted = cells(), model()
    with pytest.warns(UserWarning, match="model= is used as it is: regularizer= would describe"):
        ae.tl.embed(adata, model=fitted, regularizer="sparse", n_latent=5)
    assert adata.obsm["X_ae"].shape == (80, 3)


def test_mask_none_reads_all_features_and_auto_the_variable_ones(few_steps):
    adata = cells()
    adata.var["highly_variable"] = np.arange(40) < 20
    changed = adata.copy()
    x = changed.X.toarray()
    x[:, 30] = x[::-1, 30]  # a gene that "auto" does not read
    changed.X = x

    def code(data: ad.AnnData, mask_var) -> np.ndarray:
        return ae.tl.embed(data, method="pca", mask_var=mask_var, n_latent=3, copy=True).obsm["X_ae"]

    assert not np.allclose(code(adata, None), code(changed, None))
    assert not np.allclose(code(adata, None), code(adata, "auto"))
    fitted = {
        mask: ae.models.Autoencoder(n_models=1, n_latent=3, max_epochs=1).fit(adata, mask_var=mask)
        for mask in ("auto", None)
    }
    assert [len(fitted[mask].inputs) for mask in ("auto", None)] == [20, 40]
