"""Which features drive a code or a group: integrated gradients against their definition, and known programs."""

from __future__ import annotations

import anndata as ad
import matplotlib
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

import aeverse as ae
from aeverse.models._shared._attribution import mean_jacobian, net_of_ensemble
from aeverse.nn import DenseInput, Encoder

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore:Cannot join columns:UserWarning")


# ---- integrated gradients ----------------------------------------------------------------------------------------
@given(seed=st.integers(0, 10**6), skip=st.booleans(), linear=st.booleans())
def test_integrated_gradients_are_complete(seed, skip, linear):
    """In float64, the attributions of a sample add up to what the code changes by from the baseline."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(seed)
    code_layer = torch.nn.Identity() if linear else None
    layer = DenseInput(torch.zeros(6), torch.ones(6))
    encoder = Encoder(layer, 6, (10,), 8, skip=skip, code_layer=code_layer).double()
    x, baseline = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (5, 1))
    hidden = encoder.hidden(torch.cat([x, baseline])).detach()
    start, end = hidden[-1:].expand(5, -1), hidden[:5]

    def code(hidden, told):
        return encoder.from_hidden(hidden).mean

    jacobian = mean_jacobian(code, start, end, torch.zeros(5, 0), n_steps=256)
    by_feature = (x - baseline)[:, None] * (jacobian @ encoder.first.T)
    change = code(end, None) - code(start, None)
    np.testing.assert_allclose(by_feature.sum(2).detach(), change.detach(), atol=1e-4)


def test_of_a_linear_encoder_the_values_are_its_weights():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(
        (rng.normal(size=(300, 3)) @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(300, 12))).astype("f4")
    )
    model = ae.models.Autoencoder(likelihood="gaussian", regularizer=None, n_hidden=(), n_latent=3, n_models=1).fit(
        adata
    )
    ae.tl.attribute(adata, model)
    encoder = model.net.members[0].encoder
    weights = (encoder.input_weights @ encoder.axes).detach().numpy() / model.encode(adata).std(0)
    spread = (adata.X.std(0) * encoder.input_layer.inner.scale.numpy())[:, None]
    np.testing.assert_allclose(adata.varm["ae_attributions"], weights * spread, rtol=2e-3, atol=2e-4)


def test_the_net_that_is_explained_gives_the_models_embedding(model, small):
    net = net_of_ensemble(model.net, model.inputs, model.fitted.samples(small, None))
    np.testing.assert_allclose(net.code(net.hidden, net.context).detach(), model.encode(small), rtol=1e-4, atol=1e-4)


def assert_net_gives_the_code(model, mdata):
    fit = model.fitted
    data = fit.read(mdata)
    scores = fit.scores(mdata, data)
    net = fit.fusion.net(data, scores, fit.training, fit.twins(mdata, scores))
    np.testing.assert_allclose(net.code(net.hidden, net.context).detach(), model.encode(mdata), rtol=1e-4, atol=1e-4)


def test_the_net_that_is_explained_gives_the_code_of_cells_some_of_which_lack_a_modality(small):
    prot = ad.AnnData(np.random.default_rng(0).poisson(20, (small.n_obs, 12)).astype(np.float32), obs=small.obs[[]])
    mdata = md.MuData({"rna": small.copy(), "prot": prot[:200].copy()})
    model = ae.models.MultimodalAutoencoder(recipe="cells", n_steps=20).fit(mdata)
    assert_net_gives_the_code(model, mdata)
    ae.tl.attribute(mdata, model)
    assert np.isfinite(mdata["prot"].varm["ae_attributions"].to_numpy()).all()


# ---- known programs --------------------------------------------------------------------------------------------
def programs(n: int = 240, seed: int = 0) -> ad.AnnData:
    """Group a has large values of features 0-4, group b small ones of 5-9, group c large ones of 10-14; 40 are noise."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 3
    x = rng.normal(size=(n, 55))
    x[:, :5] += 2 * (group == 0)[:, None]
    x[:, 5:10] -= 2 * (group == 1)[:, None]
    x[:, 10:15] += 2 * (group == 2)[:, None]
    adata = ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(n)]))
    adata.obs["group"] = pd.Categorical(np.array(list("abc"))[group])
    return adata


@pytest.mark.parametrize("regularizer", [("denoising", "graph"), "sparse", "variational"])
def test_known_programs_are_found(regularizer):
    adata = programs()
    model = ae.models.Autoencoder(likelihood="gaussian", regularizer=regularizer, n_latent=8, n_models=1).fit(adata)
    ae.tl.attribute(adata, model, groupby="group", n_top=10)
    values, stability = adata.varm["ae_attributions"], adata.varm["ae_attributions_stability"]
    assert list(values.columns) == ["a", "b", "c"]
    for group, own, sign in (("a", range(5), 1), ("b", range(5, 10), -1), ("c", range(10, 15), 1)):
        strongest = np.argsort(-values[group].abs().to_numpy())[:10]  # the other groups' features tell it apart too
        assert len({*strongest} & {*own}) >= 4, group
        assert (np.sign(values[group].iloc[list(own)]) == sign).all()
        assert stability[group].iloc[list(own)].mean() > 0.7
        assert stability[group].iloc[15:].mean() < 0.15


def test_known_programs_are_found_in_counts():
    rng = np.random.default_rng(0)
    group = np.arange(400) % 2
    rate = np.full((400, 80), 2.0)
    rate[:, :6] *= np.where(group == 1, 4.0, 0.5)[:, None]
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.obs["group"] = pd.Categorical(np.array(["low", "high"])[group])
    model = ae.models.Autoencoder(n_models=2, n_latent=6).fit(adata)
    ae.tl.attribute(adata, model, groupby="group")
    values = adata.varm["ae_attributions"]
    assert set(np.argsort(-values["high"].to_numpy())[:6]) == set(range(6))
    assert set(np.argsort(values["low"].to_numpy())[:6]) == set(range(6))
    ae.tl.attribute(adata, model, key_added="by_dimension")
    code, table = model.encode(adata), adata.varm["by_dimension"]
    assert table.shape == (80, code.shape[1])
    telling = np.abs(np.corrcoef(code.T, group)[-1, :-1]).argmax()
    assert set(np.argsort(-np.abs(table.to_numpy()[:, telling]))[:6]) == set(range(6))


def test_in_several_modalities_the_one_with_the_program_is_named():
    full = programs()
    other = ad.AnnData(np.random.default_rng(1).normal(size=(240, 20)).astype(np.float32), obs=full.obs[[]])
    other.var_names = [f"noise{i}" for i in range(20)]
    mdata = md.MuData({"signal": full, "noise": other[:200].copy()})
    mdata.obs["group"] = full.obs["group"]
    joint = ae.models.MultimodalAutoencoder(n_steps=150).fit(mdata)
    assert_net_gives_the_code(joint, mdata)
    ae.tl.attribute(mdata, joint, groupby="group")
    values = mdata["signal"].varm["ae_attributions"]
    assert len(set(np.argsort(-values["a"].to_numpy())[:5]) & set(range(5))) >= 4
    assert values.abs().to_numpy().max() > 3 * mdata["noise"].varm["ae_attributions"].abs().to_numpy().max()
    assert mdata.varm.keys().isdisjoint({"ae_attributions"})
    ae.tl.attribute(mdata, joint, key_added="by_dimension")
    assert mdata["noise"].varm["by_dimension"].shape == (20, joint.encode(mdata).shape[1])
    with pytest.raises(KeyError, match="modality="):
        ae.pl.attributions(mdata, show=False)
    ax = ae.pl.attributions(mdata, modality="signal", n_top=3, show=False)
    assert len(ax.get_xticklabels()) == 9


# ---- what is written and refused ---------------------------------------------------------------------------------
@pytest.fixture
def explained(model, small):
    small.obs["kind"] = pd.Categorical(["x", "y"] * 50)
    ae.tl.attribute(small, model, groupby="kind")
    return small


def test_results_are_written_to_a_file_and_seeds_repeat(explained, model, tmp_path):
    explained.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.varm["ae_attributions"], explained.varm["ae_attributions"])
    again = ae.tl.attribute(explained, model, groupby="kind", copy=True)
    for key in ("ae_attributions", "ae_attributions_stability"):
        pd.testing.assert_frame_equal(again.varm[key], explained.varm[key])


def test_features_in_another_order_get_the_same_values(explained, model):
    other = explained[:, ::-1].copy()
    ae.tl.attribute(other, model, groupby="kind")
    ours = explained.varm["ae_attributions"]
    np.testing.assert_allclose(other.varm["ae_attributions"].loc[ours.index], ours, atol=1e-5)


def test_bad_input_is_refused_and_changes_nothing(model, small, fingerprint):
    small.obs["one"] = "same"
    small.obs["score"] = np.arange(100.0)
    before = fingerprint(small)
    with pytest.raises(KeyError, match="groupby='missing' is not a column of obs"):
        ae.tl.attribute(small, model, groupby="missing")
    with pytest.raises(ValueError, match="one group only, 'same'"):
        ae.tl.attribute(small, model, groupby="one")
    with pytest.raises(ValueError, match="'score' holds numbers"):
        ae.tl.attribute(small, model, groupby="score")
    with pytest.raises(ValueError, match="n_top: found 0"):
        ae.tl.attribute(small, model, n_top=0)
    with pytest.raises(TypeError, match="expected an AnnData, found MuData"):
        ae.tl.attribute(md.MuData({"rna": small}), model)
    with pytest.raises(TypeError, match=r"argument model: found \{\}; pass"):
        ae.tl.attribute(small, {})
    assert fingerprint(small) == before


# ---- the picture -------------------------------------------------------------------------------------------------
def test_heat_map_of_the_strongest_features(explained, tmp_path):
    ax = ae.pl.attributions(explained, n_top=4, save=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    values = explained.varm["ae_attributions"]
    names = [t.get_text() for t in ax.get_xticklabels()]
    assert names[:4] == list(values["x"].nlargest(4).index)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["x", "y"]
    ax = ae.pl.attributions(explained, groups="y", n_top=3, sign="negative", show=False)
    assert [t.get_text() for t in ax.get_xticklabels()] == list(values["y"].nsmallest(3).index)


def test_heat_map_refuses_what_is_not_there(explained, small):
    with pytest.raises(KeyError, match=r"varm\['other'\] does not exist"):
        ae.pl.attributions(explained, key="other", show=False)
    with pytest.raises(KeyError, match=r"groups=\['z'\]"):
        ae.pl.attributions(explained, groups=["z"], show=False)
    with pytest.raises(ValueError, match="sign: found 'up'"):
        ae.pl.attributions(explained, sign="up", show=False)
