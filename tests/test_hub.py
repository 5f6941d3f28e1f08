"""Shared models: a page that says what they are, the hub as a local folder, and the command `aeverse info`."""

from __future__ import annotations

import inspect
import shutil
import sys
import types
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import aeverse as ae
from aeverse.cli import main
from aeverse.models._card import facts

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mudata", "ignore:Cannot join columns:UserWarning")


@pytest.fixture(scope="module")
def adata():
    adata = ae.datasets.pbmc68k_counts()
    adata.obs["donor"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "a", "b"))
    return adata


@pytest.fixture(scope="module")
def model(adata):
    return ae.models.Autoencoder(n_models=1, n_latent=4, max_epochs=2).fit(adata, batch_key="donor")


@pytest.fixture(scope="module")
def joint():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(60, 2))
    mods = {m: ad.AnnData(factors @ rng.normal(size=(2, 20)) + rng.normal(size=(60, 20))) for m in ("rna", "protein")}
    return ae.models.MultimodalAutoencoder(n_steps=20).fit(md.MuData(mods))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """huggingface_hub with a folder in the place of the hub: what is uploaded lies there, and is downloaded from there.

    Calls are bound to the signatures of huggingface_hub, so that an argument it does not know fails.
    """

    def create_repo(repo_id, *, token=None, private=None, repo_type=None, exist_ok=False):
        (tmp_path / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(*, repo_id, folder_path, path_in_repo=None, commit_message=None, token=None, repo_type=None):
        shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)

    def hf_hub_download(repo_id, filename, *, revision=None, library_name=None, token=None, repo_type=None):
        path = tmp_path / (repo_id if revision is None else f"{repo_id}-{revision}") / filename
        assert path.exists(), path
        return str(path)

    class HfApi:
        def __init__(self, endpoint=None, token=None, library_name=None):
            self.create_repo, self.upload_folder = create_repo, upload_folder

    fake = types.SimpleNamespace(HfApi=HfApi, hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return tmp_path


def test_the_stand_in_takes_what_huggingface_hub_takes(hub):
    fake = sys.modules["huggingface_hub"]
    sys.modules.pop("huggingface_hub")
    real = pytest.importorskip("huggingface_hub", reason='pip install "aeverse[hub]"')
    for mine, theirs in (
        (fake.HfApi().create_repo, real.HfApi().create_repo),
        (fake.HfApi().upload_folder, real.HfApi().upload_folder),
        (fake.hf_hub_download, real.hf_hub_download),
        (fake.HfApi, real.HfApi),
    ):
        assert set(inspect.signature(mine).parameters) <= set(inspect.signature(theirs).parameters)


def test_a_model_goes_to_the_hub_and_comes_back(model, adata, hub):
    address = ae.models.push_to_hub(model, "lab/blood", license="bsd-3-clause", description="Blood of one donor.")
    assert address == "hf://lab/blood"
    assert sorted(path.name for path in (hub / "lab/blood").iterdir()) == ["README.md", "model.ae"]
    again = ae.models.load(address)
    np.testing.assert_array_equal(again.encode(adata), model.encode(adata))
    shutil.copytree(hub / "lab/blood", hub / "lab/blood-v1")
    assert ae.models.load("hf://lab/blood@v1").saved_with == again.saved_with
    query = adata[:30].copy()
    ae.tl.map_query(query, "hf://lab/blood", transfer="bulk_labels")
    assert query.obs["bulk_labels_predicted"].notna().all()
    ae.models.push_to_hub(model, "lab/blood", license="mit")  # replaces the page
    assert "license: mit" in (hub / "lab/blood/README.md").read_text("utf-8")


def test_the_page_says_what_the_model_is(model, hub):
    ae.models.push_to_hub(model, "lab/blood", license="bsd-3-clause", description="Blood of one donor.")
    page = (hub / "lab/blood/README.md").read_text("utf-8")
    head, body = page.removeprefix("---\n").split("\n---\n", 1)
    assert head.splitlines()[:2] == ["license: bsd-3-clause", "library_name: aeverse"]
    assert "- anndata" in head.splitlines()
    for words in (
        "Blood of one donor.",
        "700 samples x 765 features",
        "| likelihood | nb |",
        f"{model.heldout_deviance_explained:.4f}",
        "a, b (donor)",
        'ae.models.load("hf://lab/blood")',
        "bulk_labels (CD4+/CD25 T Reg",
    ):
        assert words in body
    best = model.var_names[np.nanargmax(model.deviance_explained)]
    assert f"{best} {np.nanmax(model.deviance_explained):.2f}" in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert all(row.replace("\\|", "").count("|") == 3 for row in rows)


def test_the_page_of_several_modalities(joint, hub):
    ae.models.push_to_hub(joint, "lab/joint", license="mit")
    page = (hub / "lab/joint/README.md").read_text("utf-8")
    assert "60 samples: rna (continuous, 20 features), protein (continuous, 20 features)" in page
    assert f"rna {joint.variance_explained['rna']:.4f}" in page
    assert "their names" in page  # names of samples are in such a file
    assert "ae.tl.map_query(mdata, model)" in page
    assert ae.models.load("hf://lab/joint").kinds == joint.kinds


def test_what_cannot_be_shared_or_found_is_named(model, hub, monkeypatch):
    for repo in ("blood", "a/b/c", "", "a/b c"):
        with pytest.raises(ValueError, match="must be 'owner/name'"):
            ae.models.push_to_hub(model, repo, license="mit")
        with pytest.raises(ValueError, match="must be 'hf://owner/name'"):
            ae.models.load(f"hf://{repo}")
    with pytest.raises(RuntimeError, match="not fitted"):
        ae.models.push_to_hub(ae.models.Autoencoder(), "lab/none", license="mit")
    assert not (hub / "lab").exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"aeverse\[hub\]"):
        ae.models.load("hf://lab/blood")
    with pytest.raises(ImportError, match=r"aeverse\[hub\]"):
        ae.models.push_to_hub(model, "lab/blood", license="mit")


def test_facts_survive_a_file(model, joint, tmp_path):
    for fitted in (model, joint):
        assert "versions" not in facts(fitted)  # of a file, and there is none
        fitted.save(tmp_path / "model.ae")
        again = facts(ae.models.load(tmp_path / "model.ae"))
        assert "aeverse " in again.pop("versions")
        assert again == facts(fitted)


def test_info_on_the_command_line(model, joint, tmp_path, capsys):
    model.save(tmp_path / "model.ae")
    assert main(["info", str(tmp_path / "model.ae")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"model: {model!r}"
    assert f"held-out deviance explained: {model.heldout_deviance_explained:.4f}" in lines
    assert "trained on: 700 samples x 765 features" in lines
    assert lines[-1].startswith("versions: aeverse ")
    joint.save(tmp_path / "joint.ae")
    assert main(["info", str(tmp_path / "joint.ae")]) == 0
    assert "recipe: samples" in capsys.readouterr().out
    (tmp_path / "broken.ae").write_bytes(b"no model")
    for name, found in (("broken.ae", "not an aeverse model"), ("none.ae", "No model file")):
        assert main(["info", str(tmp_path / name)]) == 1
        assert found in capsys.readouterr().err
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["broken.ae", "joint.ae", "model.ae"]
