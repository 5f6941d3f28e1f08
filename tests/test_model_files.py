"""Trees of models that were changed: refused, with the place, before anything is built from them."""

import copy

import anndata as ad
import mudata as md
import numpy as np
import pytest

import aeverse as ae
from aeverse.models import Autoencoder


@pytest.fixture(scope="module")
def model():
    adata = ae.datasets.simulate_counts(60, 30)
    adata.obs["batch"] = ["a", "b"] * 30
    return Autoencoder(n_latent=4, n_models=2, max_epochs=1, likelihood="nb").fit(
        adata, batch_key="batch", progress=False
    )


def _saved(model, path):
    model.save(path)
    header, arrays, _ = ae.io.load_arrays(path)
    return ae.io.unpack(header, copy.deepcopy(arrays))


CHANGES = {
    "more members than arrays": ("fit.settings.n_models", 10**9),
    "a member more": ("fit.settings.n_models", 3),
    "a huge code": ("fit.settings.n_latent", 10**12),
    "wide layers": ("fit.settings.n_hidden", [10**12]),
    "another likelihood": ("fit.settings.likelihood", "poisson"),
    "infinite rate": ("fit.settings.learning_rate", float("inf")),
    "a setting of another type": ("fit.settings.batch_size", "128"),
    "inputs beyond the features": ("fit.features.inputs", np.arange(1, 31)),
    "no names": ("fit.features.names", None),
    "a name less": ("fit.features.names", [f"g{i}" for i in range(29)]),
    "a batch more": ("fit.covariates.categories.0.names", ["a", "b", "c"]),
    "a category twice": ("fit.covariates.categories.0.names", ["a", "a"]),
    "a batch that is no column": ("fit.covariates.batch_key", "plate"),
    "history of words": ("fit.history", {"step": ["one"]}),
    "a code of other width": ("fit.reference.code", np.zeros((50, 3), np.float32)),
    "labels beyond the categories": ("fit.reference.labels.0.codes", np.full(55, 9, np.int16)),
    "no posterior": ("fit.network.posterior", None),
    "infinite dispersions": ("fit.network.posterior.theta", np.full(30, np.inf, np.float32)),
    "integers for weights": ("fit.network.ensemble.members+0+decoder+bias", np.zeros(30, int)),
    "a weight of other shape": ("fit.network.ensemble.members+1+encoder+axes", np.zeros((4, 5), np.float32)),
    "an array that nobody knows": ("fit.network.ensemble.more", np.zeros(3, np.float32)),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changed_trees_are_refused_before_anything_is_built(model, tmp_path, monkeypatch, case):
    tree = _saved(model, tmp_path / "model.ae")
    place, value = CHANGES[case]
    *path, last = (part.replace("+", ".") for part in place.split("."))
    node = tree
    for part in path:
        node = node[int(part) if part.isdigit() else part]
    node[last] = value
    monkeypatch.setattr(ae.models.Autoencoder.fit_class, "from_tree", lambda tree: pytest.fail("built"))
    ae.io.save_arrays(tmp_path / "changed.ae", "Autoencoder", *ae.io.pack(tree))
    with pytest.raises(ValueError, match=r"(fit\.\S+|argument n_\w+): found .*; (expected|pass) "):
        ae.models.load(tmp_path / "changed.ae")


CONFIGS = [
    {"likelihood": "nb", "regularizer": ("denoising", "graph")},
    {"likelihood": "poisson", "decoder": "mlp", "n_hidden": (9, 7)},
    {"likelihood": "gaussian", "regularizer": "variational", "decoder": "mlp"},
    {"likelihood": "gaussian", "regularizer": ("sparse", "contractive"), "n_hidden": ()},
    {"likelihood": "gaussian", "regularizer": "graph", "n_hidden": (8, 6)},
    {"likelihood": "gaussian", "corruption": "gaussian", "n_models": 2},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_model_fits_its_own_schema(tmp_path, config):
    adata = ae.datasets.simulate_counts(60, 30)
    model = Autoencoder(n_latent=4, max_epochs=1, **config).fit(adata, progress=False)
    model.save(tmp_path / "model.ae")
    np.testing.assert_array_equal(ae.models.load(tmp_path / "model.ae").encode(adata), model.encode(adata))


@pytest.mark.parametrize(
    ("name", "value"),
    [("header", "{"), ("header", "[]"), ("header", "{}"), ("arrays", {}), ("arrays", 1), ("header", None)],
)
def test_records_that_were_changed_are_refused(model, name, value):
    record = {**model.record(), name: value}
    with pytest.raises(ValueError, match=r"is not as it was written"):
        Autoencoder.from_record(record)


# ---- several modalities ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["samples", "cells"])
def joint(request):
    counts = ae.datasets.simulate_counts(120, 60)
    protein = np.random.default_rng(0).poisson(4, size=(100, 8)).astype("float32")
    mdata = md.MuData({"rna": counts, "protein": ad.AnnData(protein, obs=counts.obs[:100])})
    mdata.obs["batch"] = np.array(["x", "y"] * 60)
    model = ae.models.MultimodalAutoencoder(recipe=request.param, n_steps=3)
    return model.fit(mdata, batch_key="batch", progress=False)


JOINT_CHANGES = {
    "another recipe": ("fit.recipe", "patients"),
    "a name twice": ("fit.modalities.1.name", "rna"),
    "a kind that nobody knows": ("fit.modalities.0.kind", "smells"),
    "scores of other length": ("fit.modalities.0.scores", np.zeros((119, 3), np.float32)),
    "rows beyond the samples": ("fit.modalities.0.target.rows", np.full(120, 120)),
    "values of other width": ("fit.modalities.0.target.values", np.zeros((120, 59), np.float32)),
    "an offset of nothing": ("fit.modalities.0.target.offset", np.zeros(60, np.float32)),
    "neither there nor missing": ("fit.has", np.full((120, 2), 2, np.uint8)),
    "labels beyond the categories": ("fit.labels.0.codes", np.full(120, 9, np.int16)),
    "a batch more": ("fit.covariates.categories.0.names", ["x", "y", "z"]),
    "names in another order": ("fit.fusion.modalities", ["protein", "rna"]),
    "a layer of another type": ("fit.layer", {"rna": 5}),
    "a setting of another type": ("config.n_latent", "32"),
}
OF_FUSIONS = {
    "samples": {
        "a member more": ("net.n_members", 5),
        "a huge network": ("net.n_latent", 10**12),
        "no weight": ("modality_weights", [0.5, float("nan")]),
        "columns beyond the features": ("views.0.columns", np.full(60, 60)),
        "shifts of other width": ("corrections", [{"alignments.0.shifts": np.zeros((2, 1, 99), np.float32)}, {}]),
        "infinite loadings": ("views.1.loadings", np.full((8, 2), np.inf, np.float32)),
        "an array of other shape": ("code.guided_mean", np.zeros((3, 3), np.float32)),
    },
    "cells": {
        "another size": ("sizes", [1, 2]),
        "another class": ("embeddings.1.class", "quadratic"),
        "a matrix of other shape": ("embeddings.1.matrix", np.zeros((3, 3), np.float32)),
        "no unit": ("embeddings.1.view.unit", float("inf")),
        "a kind of other data": ("embeddings.1.view.kind.name", "peaks"),
        "shifts of other width": ("embeddings.1.correction", {"alignments.0.shifts": np.zeros((2, 1, 99), np.float32)}),
        "a negative share": ("shares", [-1.0, 1.0]),
    },
}


def test_changed_trees_of_several_modalities_are_refused(joint, tmp_path, monkeypatch):
    whole = _saved(joint, tmp_path / "model.ae")
    assert ae.models.load(tmp_path / "model.ae").record()["checksum"] == joint.record()["checksum"]
    own = {name: (f"fit.fusion.{place}", value) for name, (place, value) in OF_FUSIONS[joint.recipe].items()}
    monkeypatch.setattr(type(joint).fit_class, "from_tree", lambda tree: pytest.fail("built"))
    for place, value in [*JOINT_CHANGES.values(), *own.values()]:
        tree = copy.deepcopy(whole)
        *path, last = place.split(".")
        node = tree
        for part in path:
            node = node[int(part) if part.isdigit() else part]
        node[last] = value
        ae.io.save_arrays(tmp_path / "changed.ae", "MultimodalAutoencoder", *ae.io.pack(tree))
        with pytest.raises(ValueError, match=r"(fit|config)\.\S+: found .*; expected "):
            ae.models.load(tmp_path / "changed.ae")
