"""Corrected expression: as if every cell came from one batch, in a simulation whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import aeverse as ae

N_GENES = 120


@pytest.fixture(scope="module")
def simulated():
    """Three types in two batches; each batch multiplies each gene by a factor of its own, the first 40 genes by much."""
    rng = np.random.default_rng(0)
    n = 600
    types, batches = rng.integers(0, 3, n), rng.integers(0, 2, n)
    profiles = rng.lognormal(0, 1, (1, N_GENES)) * np.exp(rng.normal(0, 0.8, (3, N_GENES)))
    effect = np.ones((2, N_GENES))
    effect[1, :40] = np.exp(rng.choice([-1.0, 1.0], 40))
    expression = profiles[types] * effect[batches]
    counts = rng.poisson(1500 * expression / expression.sum(1, keepdims=True))
    truth = profiles[types] / profiles[types].sum(1, keepdims=True)  # as in batch a
    obs = pd.DataFrame({"type": types.astype(str), "batch": np.where(batches, "b", "a")}, [f"c{i}" for i in range(n)])
    adata = AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=obs)
    model = ae.models.Autoencoder(n_models=1, n_latent=8).fit(adata, batch_key="batch")
    return adata, model, truth


def profile(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    total = values[cells].sum(0)
    return total / total.sum()


def gap(values: np.ndarray, adata: AnnData) -> float:
    """Mean log ratio of the two batches over types and the genes that the batches differ in."""
    found = []
    for kind in "012":
        a, b = (
            profile(values, ((adata.obs["type"] == kind) & (adata.obs["batch"] == name)).to_numpy()) for name in "ab"
        )
        found.append(np.abs(np.log(a[:40] / b[:40])).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("to", ["a", "b", "average"])
def test_batches_no_longer_differ(simulated, to):
    adata, model, _ = simulated
    assert gap(model.denoise(adata), adata) > 0.8
    assert gap(model.denoise(adata, transform_batch=to), adata) < 0.2


def test_types_are_those_of_the_batch(simulated):
    adata, model, truth = simulated
    moved = model.denoise(adata, transform_batch="a", target_sum=1.0)
    of_b = (adata.obs["batch"] == "b").to_numpy()
    for kind in "012":
        cells = of_b & (adata.obs["type"] == kind).to_numpy()
        error = np.abs(np.log(profile(moved, cells) / profile(truth, cells)))
        assert np.median(error) < 0.1
    np.testing.assert_allclose(moved[~of_b], model.denoise(adata, target_sum=1.0)[~of_b], rtol=1e-3)
    np.testing.assert_allclose(model.denoise(adata, transform_batch="a").sum(1), adata.X.sum(1).A1, rtol=1e-4)


def test_the_tool_and_values_on_request_agree(simulated):
    adata, model, _ = simulated
    adata = adata.copy()
    ae.tl.denoise(adata, model=model, transform_batch="b")
    again = ae.get.denoised(adata, ["3", "77"])
    np.testing.assert_allclose(adata[:, ["3", "77"]].layers["denoised"], again, rtol=1e-4)


def test_wrong_batches_are_named(simulated, model, small):
    adata, of_batches, _ = simulated
    with pytest.raises(ValueError, match=r"must be 'average' or a batch of the model: \['a', 'b'\]"):
        of_batches.denoise(adata, transform_batch="c")
    with pytest.raises(ValueError, match="needs a model that was trained with batch_key"):
        ae.tl.denoise(small, model=model, transform_batch="average")
