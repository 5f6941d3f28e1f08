"""Trees of models that were changed: refused, with the place, before anything is built from them."""

import copy

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
    "a batch more": ("fit.batches.names", ["a", "b", "c"]),
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
    with pytest.raises(ValueError, match=r"fit\.\S+: found .*; expected "):
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
