"""`--report`: every command that computes writes one page that needs no other file and holds the figures of the call."""

import re
import warnings

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest

import aeverse as ae
from aeverse import _commands
from aeverse.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small inputs of every kind, a model of counts and one of two modalities."""
    path = tmp_path_factory.mktemp("inputs")
    counts = ae.datasets.simulate_counts(150, 60, n_types=3)
    counts.write_h5ad(path / "counts.h5ad")
    ae.models.Autoencoder(n_models=1, n_latent=4, max_epochs=2).fit(counts, progress=False).save(path / "counts.ae")
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(90, 3)) + 6 * np.eye(3)[np.arange(90) % 3]
    mods = {m: anndata.AnnData(factors @ rng.normal(size=(3, 12)) + rng.normal(size=(90, 12))) for m in ("a", "b")}
    mods["a"].write_h5ad(path / "values.h5ad")
    cohort = anndata.AnnData(obs=pd.DataFrame(index=mods["a"].obs_names), obsm={"X_ae": factors})
    cohort.obs["group"] = pd.Categorical(np.arange(90) % 3).rename_categories(["x", "y", "z"])
    cohort.obs["one"] = "everyone"
    cohort.obs["age"] = rng.normal(60, 9, 90)
    cohort.obs["months"], cohort.obs["dead"] = rng.exponential(20.0 + 20 * (np.arange(90) % 3)), rng.random(90) < 0.6
    cohort.write_h5ad(path / "cohort.h5ad")
    prot = anndata.AnnData(rng.poisson(np.where(rng.random((90, 4)) < 0.4, 80.0, 4.0)).astype("float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = mudata.MuData({"a": mods["a"], "b": mods["b"][:60].copy()})
        mdata.write_h5mu(path / "two.h5mu")
        mudata.MuData({"prot": prot}).write_h5mu(path / "prot.h5mu")
        ae.models.MultimodalAutoencoder(n_latent=4).fit(mdata, progress=False).save(path / "two.ae")
    return path


SURVIVAL = ["--time-key", "months", "--event-key", "dead"]
# command, input, ending of the output, options, what the page says, how many pictures it has
CALLS = {
    "denoise": (
        "denoise",
        "counts.h5ad",
        ".h5ad",
        ["--model", "counts.ae"],
        ["Beside other methods", "Not trained"],
        3,
    ),
    "embed": ("embed", "counts.h5ad", ".h5ad", ["--model", "counts.ae"], ["held-out deviance explained"], 3),
    "embed by PCA": ("embed", "counts.h5ad", ".h5ad", ["--method", "pca"], ["The embedding", "cell_type"], 1),
    "fit to values": ("fit", "values.h5ad", ".ae", ["--n-models", "1"], ["entries of every sample"], 3),
    "dropouts": ("dropouts", "counts.h5ad", ".h5ad", ["--model", "counts.ae"], ["probably missed", "--genes"], 2),
    "dropouts of genes": (
        "dropouts",
        "counts.h5ad",
        ".h5ad",
        ["--model", "counts.ae", "--genes", "gene 3,gene 5"],
        ["gene 3", "gene 5"],
        3,
    ),
    "markers": ("markers", "counts.h5ad", ".h5ad", ["--groupby", "cell_type", "--n-splits", "2"], ["type 0"], 1),
    "multimodal": ("multimodal", "two.h5mu", ".h5mu", ["--model", "two.ae"], ["held-out variance explained"], 3),
    "multimodal by PCA": ("multimodal", "two.h5mu", ".h5mu", ["--method", "concat_pca"], ["continuous"], 1),
    "predict": ("predict", "two.h5mu", ".h5mu", ["--model", "two.ae", "--target", "b"], ["mean prediction"], 2),
    "foreground": ("foreground", "prot.h5mu", ".h5mu", [], ["foreground"], 0),
    "map": ("map", "counts.h5ad", ".h5ad", ["--model", "counts.ae"], ["unlike the training data"], 1),
    "map labels": (
        "map",
        "counts.h5ad",
        ".h5ad",
        ["--model", "counts.ae", "--transfer", "cell_type"],
        ["Labels: cell_type", "mean confidence"],
        2,
    ),
    "subtypes": ("subtypes", "cohort.h5ad", ".h5ad", ["--max-subtypes", "4"], ["stability", "patients"], 2),
    "survival": (
        "survival",
        "cohort.h5ad",
        ".h5ad",
        [*SURVIVAL, "--groupby", "group", "--use-rep", "X_ae"],
        ["held-out C-index", "Kaplan-Meier", "hazard_ratio"],
        2,
    ),
    "survival by age": ("survival", "cohort.h5ad", ".h5ad", [*SURVIVAL, "--covariates", "age"], ["age"], 1),
    "survival of all": ("survival", "cohort.h5ad", ".h5ad", [*SURVIVAL, "--groupby", "one"], ["everyone"], 1),
    "associations": (
        "associations",
        "cohort.h5ad",
        ".h5ad",
        ["--groupby", "group", "--columns", "age"],
        ["Kruskal-Wallis"],
        1,
    ),
    "benchmark": ("benchmark", "counts.h5ad", ".csv", ["--methods", "pca,kernel_pca", "--n-splits", "2"], ["pca"], 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_page_of_each_command(name, folder, tmp_path):
    command, source, ending, options, words, n_pictures = CALLS[name]
    options = [str(folder / word) if word.endswith(".ae") else word for word in options]
    page = tmp_path / "page.html"
    arguments = [command, str(folder / source), str(tmp_path / f"out{ending}"), *options, "--report", str(page)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about small data
        assert main(arguments) == 0
    text = page.read_text("utf-8")
    assert not re.search(r"https?://|<script|url\(", text)
    pictures = re.findall(r'src="([^"]*)"', text)
    assert all(picture.startswith("data:image/png;base64,") for picture in pictures)
    assert len(pictures) == n_pictures
    assert f"aeverse {command} " in text
    assert [word for word in words if word not in text] == []


def test_every_command_is_called_here():
    assert {call[0] for call in CALLS.values()} == set(_commands.COMMANDS)


def test_the_figures_of_a_page_are_those_of_the_file(folder, tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "out.h5ad"
    options = ["--model", str(folder / "counts.ae"), "--transfer", "cell_type", "--report", str(page)]
    assert main(["map", str(folder / "counts.h5ad"), str(out), *options]) == 0
    adata, text = anndata.read_h5ad(out), page.read_text("utf-8")
    assert f"<b>{adata.uns['ae']['X_ae']['share_unlike']:.1%}</b>" in text
    for label, n in adata.obs["cell_type_predicted"].value_counts().items():
        assert f"<td class=word>{label}</td><td class=n>{n}</td>" in text


def test_names_cannot_write_to_the_page(folder, tmp_path):
    adata = anndata.read_h5ad(folder / "cohort.h5ad")
    adata.obs["group"] = adata.obs["group"].cat.rename_categories(["<script>x", "y & z", "z"])
    adata.write_h5ad(tmp_path / "in.h5ad")
    page = tmp_path / "page.html"
    options = [*SURVIVAL, "--groupby", "group", "--report", str(page)]
    assert main(["survival", str(tmp_path / "in.h5ad"), str(tmp_path / "out.h5ad"), *options]) == 0
    assert "<script" not in page.read_text("utf-8")
    assert "&lt;script&gt;x" in page.read_text("utf-8")
