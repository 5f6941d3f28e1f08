"""Plots return Axes, show what the object holds, and change nothing."""

import inspect

import matplotlib

matplotlib.use("Agg")

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

import aeverse as ae


def small_model(adata):
    """One that is trained in a second."""
    return ae.models.Autoencoder(n_models=1, n_latent=8, max_epochs=2).fit(adata, progress=False)


@pytest.fixture(scope="module")
def result():
    adata = ae.datasets.pbmc68k_counts()
    ae.tl.denoise(adata, model=small_model(adata), genes=["LYZ", "CD79A"])
    return adata


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def content(adata, folder):
    """All that an object holds, as bytes."""
    adata.write_h5ad(folder / "content.h5ad")
    return (folder / "content.h5ad").read_bytes()


CALLS = {
    "history": lambda a, **kw: ae.pl.history(a, **kw),
    "denoised one gene": lambda a, **kw: ae.pl.denoised(a, "LYZ", **kw),
    "denoised a gene not in the layer": lambda a, **kw: ae.pl.denoised(a, "CST3", **kw),
    "denoised two genes": lambda a, **kw: ae.pl.denoised(a, "LYZ", "CST3", **kw),
    "latent by label": lambda a, **kw: ae.pl.latent(a, color=["bulk_labels", "LYZ"], **kw),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_returns_axes_and_leaves_the_object_as_it_was(result, call, tmp_path):
    before = content(result, tmp_path)
    axes = call(result, show=False)
    assert isinstance(axes, np.ndarray)
    assert axes.shape == (2,)
    assert all(isinstance(ax, Axes) and ax.get_title(loc="left") and ax.get_xlabel() and ax.get_ylabel() for ax in axes)
    axes[0].figure.canvas.draw()
    assert content(result, tmp_path) == before


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_draws_on_the_axes_it_is_given_and_opens_no_other_figure(result, call):
    _, mine = plt.subplots(1, 2)
    axes = call(result, ax=mine)
    assert list(axes) == list(mine)
    assert len(plt.get_fignums()) == 1
    with pytest.raises(ValueError, match="ax must be 2 matplotlib Axes"):
        call(result, ax=mine[0])


def test_latent_returns_one_axes_for_one_color(result):
    for color in (None, "bulk_labels", "percent_mito", "LYZ"):
        assert isinstance(ae.pl.latent(result, color=color, show=False), Axes)


def test_show_is_called_unless_axes_or_a_file_are_given(result, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    ae.pl.history(result)
    assert len(shown) == 1
    ae.pl.history(result, save=tmp_path / "history.png")
    ae.pl.history(result, ax=plt.subplots(1, 2)[1])
    ae.pl.history(result, show=False)
    assert len(shown) == 1
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_denoised_draws_the_denoised_values(result):
    axes = ae.pl.denoised(result, "LYZ", "CST3", show=False)
    drawn = np.asarray(axes[1].collections[0].get_offsets())
    np.testing.assert_allclose(drawn, ae.get.denoised(result, ["LYZ", "CST3"]).to_numpy(), rtol=1e-5)
    raw = np.asarray(axes[0].collections[0].get_offsets())
    np.testing.assert_array_equal(np.rint(raw[:, 0]), result[:, "LYZ"].X.toarray().ravel())


def test_denoised_draws_raw_counts_on_the_scale_of_the_result():
    adata = ae.datasets.pbmc68k_counts()
    ae.tl.denoise(adata, model=small_model(adata), target_sum=1e4)
    axes = ae.pl.denoised(adata, "LYZ", "CST3", show=False)
    raw = np.asarray(axes[0].collections[0].get_offsets())
    expected = adata.X.toarray() / np.asarray(adata.X.sum(1)) * 1e4
    np.testing.assert_allclose(raw[:, 0], expected[:, adata.var_names.get_loc("LYZ")], rtol=1e-4)
    assert "counts per 10,000" in axes[0].get_xlabel()


def test_latent_draws_the_umap_only_if_it_is_of_the_code(result):
    adata = result.copy()
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    adata.uns["neighbors"] = {"params": {"use_rep": "X_pca"}}
    assert ae.pl.latent(adata, show=False).get_xlabel().startswith("PC 1 of X_ae")
    adata.uns["neighbors"] = {"params": {"use_rep": "X_ae"}}
    ax = ae.pl.latent(adata, show=False)
    assert ax.get_xlabel() == "UMAP 1"
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), adata.obsm["X_umap"])


def test_latent_draws_every_cell_in_scanpys_colors_where_there_are_some(result):
    adata = result.copy()
    adata.obs.loc[adata.obs_names[:5], "bulk_labels"] = np.nan
    names = list(adata.obs["bulk_labels"].cat.categories)
    adata.uns["bulk_labels_colors"] = [f"#{i:02x}0000" for i in range(len(names))]
    ax = ae.pl.latent(adata, color="bulk_labels", show=False)
    points = {c.get_label(): c for c in ax.collections}
    assert sum(len(c.get_offsets()) for c in points.values()) == adata.n_obs
    assert len(points["missing"].get_offsets()) == 5
    for i, name in enumerate(names):
        assert matplotlib.colors.to_hex(points[name].get_facecolor()[0]) == f"#{i:02x}0000"


def test_plots_work_on_a_file_that_was_read_again(result, tmp_path):
    result.write_h5ad(tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad")
    for call in CALLS.values():
        call(adata, show=False)
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    ae.pl.latent(backed, color="LYZ", show=False)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: ae.pl.history(a, key="nothing"), KeyError, "nothing"),
        (lambda a: ae.pl.denoised(a, "NO_GENE"), KeyError, "NO_GENE"),
        (lambda a: ae.pl.denoised(a, "LYZ", color="bulk_labels"), ValueError, "two genes"),
        (lambda a: ae.pl.denoised(a, "LYZ", layer="nothing"), KeyError, "nothing"),
        (lambda a: ae.pl.denoised(a, "LYZ", layer="denoised"), ValueError, "not integers"),
        (lambda a: ae.pl.latent(a, color="nothing"), KeyError, "nothing"),
        (lambda a: ae.pl.latent(a, basis="X_nothing"), KeyError, "X_nothing"),
    ],
)
def test_a_mistake_is_named_and_opens_no_figure(result, call, error, message):
    with pytest.raises(error, match=message):
        call(result)
    assert not plt.get_fignums()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_latent_of_patients_by_column_or_feature_of_a_modality():
    import mudata

    rng = np.random.default_rng(0)
    rna = anndata.AnnData(rng.normal(size=(20, 3)).astype(np.float32))
    rna.var_names = ["TP53", "ESR1", "A:B"]
    mdata = mudata.MuData({"rna": rna, "mut": anndata.AnnData(np.ones((15, 1), np.float32))})
    mdata.obsm["X_ae"] = rng.normal(size=(20, 4))
    mdata.obs["stage"] = ["I", "II", "[Not Available]", "NA"] * 5
    axes = ae.pl.latent(mdata, color=["stage", "rna:ESR1", "rna:A:B", "mut:0"], show=False)
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == ["I", "II"]  # what is unknown is gray
    np.testing.assert_allclose(np.sort(axes[1].collections[0].get_array()), np.sort(rna.X[:, 1]), rtol=1e-6)
    assert np.ma.count_masked(axes[3].collections[0].get_array()) == 5  # patients without the modality
    with pytest.raises(KeyError, match=r"neither a column of obs nor 'modality:feature' of \['rna', 'mut'\]"):
        ae.pl.latent(mdata, color="TP53", show=False)


# ---- options as in scanpy ----------------------------------------------------------------------------------------
@pytest.fixture
def figdir(tmp_path):
    import scanpy as sc

    before = sc.settings.figdir, sc.settings.file_format_figs
    sc.settings.figdir, sc.settings.file_format_figs = tmp_path / "figures", "png"
    yield tmp_path / "figures"
    sc.settings.figdir, sc.settings.file_format_figs = before


def test_figures_are_saved_where_scanpy_saves_them(result, figdir, tmp_path):
    ae.pl.history(result, save=True)
    ae.pl.history(result, save="_x.pdf")
    ae.pl.latent(result, save="_run.2")
    ae.pl.latent(result, save=str(tmp_path / "_there.png"))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == [
        "history.png",
        "history_x.pdf",
        "latent_run.2.png",
    ]
    assert (tmp_path / "_there.png").exists()


def test_figure_and_panels_look_as_asked(result):
    fig = ae.pl.latent(
        result, color=["LYZ", "CD79A", "CST3"], ncols=2, title=["a", "b", "c"], figsize=(7, 5), return_fig=True
    )
    assert isinstance(fig, matplotlib.figure.Figure)
    assert tuple(fig.get_size_inches()) == (7, 5)
    axes = [ax for ax in fig.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in axes] == ["a", "b", "c"]
    assert [ax.get_subplotspec().colspan.start for ax in axes] == [0, 1, 0]
    with pytest.raises(ValueError, match="title must be 3"):
        ae.pl.latent(result, color=["LYZ", "CD79A", "CST3"], title="a", show=False)
    ax = ae.pl.latent(result, color="LYZ", size=3, cmap="magma", show=False)
    assert ax.collections[0].get_sizes() == [3]
    assert ax.collections[0].get_cmap().name == "magma"
    with pytest.raises(ValueError, match="cmap='no_such'"):
        ae.pl.latent(result, color="LYZ", cmap="no_such", show=False)


def test_palette_is_a_name_a_list_or_a_dict(result):
    names = list(result.obs["bulk_labels"].cat.categories)
    wanted = {name: f"#0000{i:02x}" for i, name in enumerate(names)}
    for palette in (wanted, list(wanted.values())):
        ax = ae.pl.latent(result, color="bulk_labels", palette=palette, show=False)
        points = {c.get_label(): matplotlib.colors.to_hex(c.get_facecolor()[0]) for c in ax.collections}
        assert points == wanted
    ax = ae.pl.latent(result, color="bulk_labels", palette="tab20", show=False)
    first = next(c for c in ax.collections if c.get_label() == names[0])
    assert np.allclose(first.get_facecolor()[0, :3], matplotlib.colormaps["tab20"](0)[:3])


# ---- the only training -------------------------------------------------------------------------------------------
def test_history_finds_the_only_training(result):
    adata = result.copy()
    adata.uns["ae"] = {"X_other": adata.uns["ae"]["denoised"], "no training": {"params": {}}}
    ae.pl.history(adata, show=False)
    other = dict(adata.uns["ae"]["X_other"])
    other["history"] = {name: values + 1 for name, values in other["history"].items()}
    adata.uns["ae"]["another"] = other
    with pytest.raises(ValueError, match=r"several trainings; pass key=, one of \['X_other', 'another'\]"):
        ae.pl.history(adata, show=False)
    adata.uns["ae"] = {"no training": {"params": {}}}
    with pytest.raises(KeyError, match="no training history"):
        ae.pl.history(adata, show=False)


# ---- plots of several results ------------------------------------------------------------------------------------
def test_several_genes_at_once(result):
    axes = ae.pl.denoised(result, ["LYZ", "CST3", "CD79A"], show=False)
    assert [ax.get_title(loc="left") for ax in axes] == [
        f"{gene}, {which}" for gene in ("LYZ", "CST3", "CD79A") for which in ("raw", "denoised")
    ]
    drawn = np.sort(axes[3].collections[0].get_array())
    np.testing.assert_allclose(drawn, np.sort(ae.get.denoised(result, "CST3")["CST3"]), rtol=1e-5)


def test_dotplot_shows_shares_above_the_cutoff_and_means(result):
    genes = ["LYZ", "CD79A"]
    raw, denoised = ae.pl.dotplot(result, genes, groupby="bulk_labels", expression_cutoff=5, show=False)
    depth = np.asarray(result.X.sum(1))
    for ax, counts in ((raw, result[:, genes].X.toarray()), (denoised, ae.get.denoised(result, genes).to_numpy())):
        values = counts / depth * 1e4
        sizes, colors = np.asarray(ax.collections[0].get_sizes()), np.asarray(ax.collections[0].get_array())
        groups = result.obs["bulk_labels"].to_numpy()
        means = np.stack([np.log1p(values[groups == g]).mean(0) for g in result.obs["bulk_labels"].cat.categories])
        np.testing.assert_allclose(colors, (means / means.max(0)).ravel(), rtol=1e-4, atol=1e-6)
        for i, name in enumerate(result.obs["bulk_labels"].cat.categories):
            cells = groups == name
            np.testing.assert_allclose(
                sizes[2 * i : 2 * i + 2], 110 * (values[cells] > 5).mean(0), rtol=1e-4, atol=1e-3
            )
    with pytest.raises(KeyError, match="NO_GENE"):
        ae.pl.dotplot(result, "NO_GENE", groupby="bulk_labels")


def test_loadings_are_those_of_the_dimension():
    adata = ae.datasets.pbmc68k_counts()
    ae.tl.embed(adata, model=ae.models.Autoencoder(n_models=1, n_latent=4, max_epochs=2, decoder="linear").fit(adata))
    axes = ae.pl.loadings(adata, components=[2, 0], n_points=5, show=False)
    weights = adata.varm["ae_loadings"][:, 2]
    top = np.sort(weights[np.argsort(-np.abs(weights))[:5]])[::-1]
    np.testing.assert_allclose([bar.get_width() for bar in axes[0].patches], top, rtol=1e-5)
    assert len(ae.pl.loadings(adata, show=False)) == 4
    with pytest.raises(KeyError, match="components=7 is no dimension"):
        ae.pl.loadings(adata, components=7)
    with pytest.raises(KeyError, match=r"run aeverse\.tl\.embed"):  # also after tl.denoise, which writes no loadings
        ae.pl.loadings(ae.datasets.simulate_counts(20, 10))


def test_deviance_explained_is_that_of_the_genes(result):
    adata = result.copy()
    expected = np.random.default_rng(0).normal(0.1, 0.1, adata.n_vars)
    adata.var["denoised_deviance_explained"] = expected
    ax = ae.pl.deviance_explained(adata, genes=["LYZ"], show=False)
    drawn = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])
    means = np.asarray(adata.X.mean(0)).ravel()
    wanted = np.stack([means, expected], axis=1)[means > 0]
    np.testing.assert_allclose(drawn[np.argsort(drawn[:, 1])], wanted[np.argsort(wanted[:, 1])], rtol=1e-5)
    assert [t.get_text() for t in ax.texts] == ["LYZ"]
    with pytest.raises(KeyError, match="without model="):
        ae.pl.deviance_explained(result)


def test_associations_are_those_of_the_tool():
    adata = ae.datasets.pbmc68k_counts()
    adata.obs["coin"] = np.where(np.random.default_rng(0).random(adata.n_obs) < 0.5, "a", "b")
    ae.tl.associations(adata, groupby="bulk_labels", columns=["coin", "n_counts", "percent_mito"])
    tests = adata.uns["ae"]["associations"]["tests"].sort_values("effect", ascending=False)
    ax = ae.pl.associations(adata, show=False)
    points = np.asarray(ax.collections[1].get_offsets())
    np.testing.assert_allclose(points[:, 0], tests["effect"])
    assert [t.get_text().split(" (")[0] for t in ax.get_yticklabels()] == list(tests.index)
    assert len(ax.texts) == 3


def test_mapping_shows_p_values_and_confusion():
    adata = ae.datasets.simulate_counts(400, 100, n_types=3)
    training, query = adata[:300].copy(), adata[300:].copy()
    model = ae.models.Autoencoder(n_models=1, n_latent=8, max_epochs=5).fit(training, progress=False)
    ae.tl.map_query(query, model, transfer="cell_type")
    axes = ae.pl.mapping(query, "cell_type", truth="cell_type", show=False)
    assert len(axes) == 4
    assert sum(bar.get_height() for bar in axes[0].patches) == query.n_obs
    one = query.obs["cell_type_set"].astype(str) == query.obs["cell_type_predicted"].astype(str)
    sizes = query.obs["cell_type_predicted"].value_counts().sort_index().to_numpy()
    widths = np.array([bar.get_width() for bar in axes[2].containers[0]])  # of samples whose set is one label
    assert 0 < (widths * sizes).sum() == pytest.approx(one.sum())
    assert sum(bar.get_width() for part in axes[2].containers for bar in part) == pytest.approx(3)
    right = (query.obs["cell_type"].astype(str) == query.obs["cell_type_predicted"].astype(str)).mean()
    shares = np.asarray(axes[3].images[0].get_array())
    sizes = query.obs["cell_type"].value_counts().sort_index().to_numpy()
    np.testing.assert_allclose((np.diag(shares) * sizes).sum() / query.n_obs, right, rtol=1e-6)
    assert len(ae.pl.mapping(query, "cell_type", show=False)) == 3
    with pytest.raises(KeyError, match="label='other' was not transferred"):
        ae.pl.mapping(query, "other")


@pytest.mark.parametrize("name", ae.pl.__all__)
def test_help_of_every_plot_describes_the_parameters_that_plots_share(name):
    text = inspect.getdoc(getattr(ae.pl, name))
    assert "As in `aeverse.pl.latent`" not in text  # that is for those who read the source
    assert (
        "show\n    Call `matplotlib.pyplot.show`; None: unless `ax` or `save` is given.\nsave\n    File to write"
        in text
    )
