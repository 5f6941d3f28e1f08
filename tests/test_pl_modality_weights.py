"""The picture of how much each modality counts."""

from __future__ import annotations

import anndata as ad
import matplotlib
import mudata as md
import numpy as np
import pandas as pd
import pytest

import aeverse as ae

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore:Cannot join columns:UserWarning")


@pytest.fixture
def mdata():
    names = [f"s{i}" for i in range(6)]
    mods = {m: ad.AnnData(np.ones((6, 2), np.float32), obs=pd.DataFrame(index=names)) for m in ("rna", "protein")}
    mdata = md.MuData(mods)
    mdata.obs["kind"] = pd.Categorical(["a", "a", "a", "b", "b", None])
    weights = np.array([[0.5, 0.5], [0.7, 0.3], [0.0, 0.0], [1.0, 0.0], [0.6, 0.4], [0.5, 0.5]])
    mdata.obsm["ae_weights"] = pd.DataFrame(weights, index=names, columns=["rna", "protein"])
    return mdata


def widths(ax):
    return [[bar.get_width() for bar in container] for container in ax.containers]


def test_bars_are_the_means_of_the_groups(mdata, tmp_path):
    ax = ae.pl.modality_weights(mdata, groupby="kind", save=tmp_path / "w.png")
    np.testing.assert_allclose(widths(ax), [[0.6, 0.8], [0.4, 0.2]])  # without samples that have no modality or group
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a (2)", "b (2)"]
    assert (tmp_path / "w.png").stat().st_size > 1000
    np.testing.assert_allclose(np.ravel(widths(ae.pl.modality_weights(mdata, show=False))), [0.66, 0.34])


def test_groups_with_the_same_shares_are_one_bar(mdata):
    mdata.obs["kind"] = list("abcdea")
    mdata.obsm["ae_weights"] = pd.DataFrame([[0.6, 0.4]] * 5 + [[1.0, 0.0]], mdata.obs_names, ["rna", "protein"])
    ax = ae.pl.modality_weights(mdata, groupby="kind", show=False)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a (2)", "b, c and 2 more (4)"]
    np.testing.assert_allclose(widths(ax), [[0.8, 0.6], [0.2, 0.4]])


def test_what_is_missing_is_named(mdata):
    with pytest.raises(KeyError, match="groupby='stage' is not a column"):
        ae.pl.modality_weights(mdata, groupby="stage", show=False)
    with pytest.raises(KeyError, match=r"run aeverse\.tl\.multimodal_embed"):
        ae.pl.modality_weights(mdata, key="other", show=False)
    mdata.obsm["ae_weights"] = mdata.obsm["ae_weights"] * 0
    with pytest.raises(ValueError, match="no sample has"):
        ae.pl.modality_weights(mdata, show=False)
