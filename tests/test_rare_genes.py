"""Rare genes that share an output while training."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

import aeverse as ae
from aeverse.models._matrix._rare_genes import RareGenes
from aeverse.nn import Decoder


def some_counts(seed: int = 0) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.poisson(np.r_[np.full(6, 3.0), np.full(8, 0.02), 0.0], size=(200, 15)).astype(np.float32))


def test_a_softmax_with_pooled_genes_is_the_same_when_they_are_spread():
    counts = some_counts()
    molecules = np.asarray(counts.sum(0)).ravel()
    bias = np.where(molecules > 0, np.log(np.maximum(molecules, 0.5) / molecules.sum()), -1e4)
    pool = RareGenes.among(np.asarray(counts.sum(0)).ravel(), bias, precision=1000.0)
    assert pool.output.tolist() == [0, 1, 2, 3, 4, 5] + [6] * 9
    assert (pool.pooled_counts(counts).toarray()[:, 6] == counts[:, 6:].sum(1).A1).all()
    decoder = Decoder(2, (), 7, bias=torch.as_tensor(pool.pooled_bias, dtype=torch.float32), n_covariates=2)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    code, batch = torch.randn(5, 2), torch.eye(2)[[0, 1, 0, 1, 0]]

    def profiles() -> torch.Tensor:
        return torch.softmax(decoder(code, batch) @ decoder.weight.T + decoder.bias, 1)

    pooled = profiles()
    pool.split(decoder)
    spread = profiles()
    assert torch.allclose(spread[:, :6], pooled[:, :6], atol=1e-6)
    assert torch.allclose(spread[:, 6:].sum(1), pooled[:, 6], atol=1e-6)
    expected = torch.as_tensor(molecules[6:] / molecules[6:].sum(), dtype=torch.float32)
    assert torch.allclose(spread[:, 6:] / pooled[:, 6:], expected.expand(5, -1), atol=1e-3)


def test_nothing_is_pooled_where_all_genes_or_none_are_rare():
    counts = some_counts()
    assert RareGenes.among(np.asarray(counts.sum(0)).ravel(), np.zeros(15), precision=1e-6) is None
    assert RareGenes.among(np.asarray(counts.sum(0)).ravel(), np.zeros(15), precision=1e9) is None


def test_a_model_answers_for_every_gene_and_survives_saving(tmp_path):
    adata = ae.datasets.simulate_counts(150, 60, random_state=1)
    rare = sp.random(150, 40, density=0.01, random_state=0, data_rvs=lambda n: np.ones(n), dtype=np.float32)
    import anndata as ad

    wide = ad.AnnData(sp.hstack([adata.X, rare], format="csr"))
    model = ae.models.Autoencoder(n_models=2, n_latent=4, max_epochs=30).fit(wide, progress=False)
    assert model.net.members[0].decoder.loadings.shape == (100, 4)
    code = model.encode(wide)
    mean = model.decode(code, library=np.asarray(wide.X.sum(1)).ravel())
    assert mean.shape == (150, 100)
    np.testing.assert_allclose(mean.sum(1), np.asarray(wide.X.sum(1)).ravel(), rtol=1e-4)
    model.save(tmp_path / "m.ae")
    again = ae.models.load(tmp_path / "m.ae")
    np.testing.assert_array_equal(again.denoise(wide), model.denoise(wide))
