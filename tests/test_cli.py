"""The command line: files in, files out; a mistake gives one line and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import aeverse as ae
from aeverse.cli import main

FAST = ["--n-models", "1", "--n-latent", "8"]


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "counts.h5ad"
    adata = ae.datasets.pbmc68k_counts()[::2].copy()
    adata.layers["logs"] = adata.X.log1p()
    adata.obs["batch"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model(counts, tmp_path_factory):
    """A small model in a file: what is not about training need not wait for it."""
    path = tmp_path_factory.mktemp("model") / "pbmc.ae"
    ae.models.Autoencoder(n_models=1, n_latent=8, max_epochs=2).fit(anndata.read_h5ad(counts), progress=False).save(
        path
    )
    return path


def failed(capsys, folder, arguments, *, left=()):
    """Run, expecting exit code 1, one line on stderr, and nothing new in the folder; return the line."""
    assert main([str(a) for a in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("aeverse: error: ")
    assert sorted(p.name for p in folder.iterdir()) == sorted(left)
    return captured.err


class Page(HTMLParser):
    """Collects what a page refers to and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag in ("section", "figure", "table", "div", "main"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("section", "figure", "table", "div", "main"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


# ---- what works ------------------------------------------------------------------------------------------------
def test_denoise_writes_what_the_tool_writes_and_a_report(counts, tmp_path, capsys):
    out, page = tmp_path / "out.h5ad", tmp_path / "page.html"
    options = ["--genes", "LYZ,CD79A", "--target-sum", "1e4", "--batch-key", "batch", "--report", page]
    assert main([str(a) for a in ["denoise", counts, out, *FAST, *options]]) == 0
    found, expected = anndata.read_h5ad(out), anndata.read_h5ad(counts)
    ae.tl.denoise(
        expected, n_models=1, n_latent=8, genes=["LYZ", "CD79A"], target_sum=1e4, batch_key="batch", progress=False
    )
    np.testing.assert_array_equal(found.layers["denoised"].toarray(), expected.layers["denoised"].toarray())
    np.testing.assert_array_equal(found.obsm["X_ae"], expected.obsm["X_ae"])
    assert "350 cells x 765 genes" in capsys.readouterr().out

    content = Page(page.read_text("utf-8"))
    assert content.open == []
    assert len(content.sources) >= 5
    assert all(source.startswith("data:image/png;base64,") for source in content.sources)
    assert not re.search(r"https?://|<script|url\(", page.read_text("utf-8"))
    best = expected.var["denoised_deviance_explained"]
    best = best[np.asarray(expected.X.sum(0)).ravel() >= 200].idxmax()
    assert best in content.text
    assert "counts.h5ad" in content.text
    assert "10,000" in content.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5ad", "page.html"]


def test_embed_from_zarr_to_zarr_replaces_an_output_when_asked(counts, model, tmp_path):
    source, out = tmp_path / "in.zarr", tmp_path / "out.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr's notes on its own formats
        anndata.read_h5ad(counts).write_zarr(source)
    assert main(["embed", str(source), str(out), "--model", str(model)]) == 0
    first = anndata.read_zarr(out)
    assert first.obsm["X_ae"].shape == (350, 8)
    page = tmp_path / "page.html"
    other = ["--model", str(model), "--key-added", "X_other", "--overwrite", "--report", str(page)]
    assert main(["embed", str(source), str(out), *other]) == 0
    assert set(anndata.read_zarr(out).obsm) == {"X_other"}
    assert "aeverse embed" in Page(page.read_text("utf-8")).text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zarr", "out.zarr", "page.html"]


def test_a_saved_model_is_used(counts, model, tmp_path, capsys):
    options = ["--model", model, "--report", tmp_path / "page.html"]
    assert main([str(a) for a in ["denoise", counts, tmp_path / "out.h5ad", *options]]) == 0
    expected = ae.models.load(model).encode(anndata.read_h5ad(counts))
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_ae"], expected)
    assert "where the model was trained" in capsys.readouterr().out
    assert "Not trained on these cells" in (tmp_path / "page.html").read_text("utf-8")


def test_warnings_are_one_line_each(counts, model, tmp_path, capsys):
    anndata.read_h5ad(counts)[:, ::2].copy().write_h5ad(tmp_path / "half.h5ad")
    files = [str(tmp_path / name) for name in ("half.h5ad", "out.h5ad")]
    assert main(["embed", *files, "--model", str(model)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"aeverse: warning: \d+ of the \d+ features .* found.*", lines[0])


def test_the_command_runs_in_a_process_of_its_own(counts, model, tmp_path):
    command = [sys.executable, "-m", "aeverse", "embed", str(counts), str(tmp_path / "out.h5ad"), "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "--overwrite" in done.stderr


def test_demo(tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "--out", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert re.search(r"held-out deviance explained +0\.\d{3}", said.out)
    for gene in ("CD8A", "CCR7"):  # markers that counts miss
        raw, denoised = re.search(rf"{gene}, counted in .*: raw (0\.\d+), denoised (0\.\d+)", said.out).groups()
        assert float(denoised) > float(raw) + 0.1
    assert str(folder) in said.out
    adata = anndata.read_h5ad(folder / "pbmc68k_denoised.h5ad")
    assert adata.layers["denoised"].shape == adata.shape
    assert {"X_ae", "X_umap"} <= set(adata.obsm)
    assert adata.obs["leiden"].nunique() > 3
    pictures = list(folder.glob("*.png"))
    assert len(pictures) == 5
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)
    page = Page((folder / "report.html").read_text("utf-8"))
    assert page.open == []
    assert "CCR7, denoised" in (folder / "report.html").read_text("utf-8")
    assert "Beside other methods" in page.text
    assert "not empty" in failed(capsys, tmp_path, ["demo", "--out", folder], left=["demo"])


def test_hints_speak_the_language_of_the_command_line(counts, tmp_path, capsys):
    adata = anndata.read_h5ad(counts)
    adata.layers["counts"], adata.X = adata.X, adata.layers["logs"]
    adata.write_h5ad(tmp_path / "in.h5ad")
    said = failed(capsys, tmp_path, ["denoise", tmp_path / "in.h5ad", tmp_path / "out.h5ad"], left=["in.h5ad"])
    assert "Pass --layer counts, which exists here." in said
    arguments = ["denoise", tmp_path / "in.h5ad", tmp_path / "out.h5ad", "--layer", "logs"]
    adata.layers.pop("counts")
    adata.write_h5ad(tmp_path / "in.h5ad")
    said = failed(capsys, tmp_path, arguments, left=["in.h5ad"])
    assert "Choose another --layer, or no --layer for adata.X." in said


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_mudata_under_the_name_of_an_anndata_is_named(counts, tmp_path, capsys, suffix):
    import mudata

    path = tmp_path / f"in.{suffix}"
    mdata = mudata.MuData({"rna": anndata.read_h5ad(counts)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if suffix == "zarr":
            mdata.write_zarr(path)
        else:
            mdata.write_h5mu(tmp_path / "in.h5mu")
            (tmp_path / "in.h5mu").rename(path)
    said = failed(capsys, tmp_path, ["embed", path, tmp_path / "out.h5ad"], left=[path.name])
    assert "holds a MuData" in said


def test_an_error_that_nobody_thought_of_is_one_line_too(counts, tmp_path, capsys, monkeypatch):
    class OddError(Exception): ...

    def broken(*args, **options):
        raise OddError("something\nodd")

    monkeypatch.setattr(ae.tl, "embed", broken)
    assert failed(capsys, tmp_path, ["embed", counts, tmp_path / "out.h5ad"]) == "aeverse: error: something odd\n"


# ---- help ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", [[], ["denoise"], ["embed"], ["demo"]])
def test_help_and_usage(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "usage: aeverse" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--no-such-option"])
    assert stopped.value.code == 2
    assert "usage: aeverse" in capsys.readouterr().err


def test_the_bare_command_shows_help(capsys):
    assert main([]) == 0
    assert "usage: aeverse" in capsys.readouterr().out


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys; from aeverse.cli import main\n"
        "for arguments in (['--help'], ['denoise', '--help'], ['--version']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit as stopped: assert stopped.code == 0\n"
        "heavy = {'numpy', 'torch', 'anndata', 'matplotlib', 'scanpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"aeverse {ae.__version__}" in done.stdout


# ---- what is refused -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "logs"], "not integers"),
        (["--layer", "nothing"], "layers['nothing'] does not exist"),
        (["--batch-key", "nothing"], "'nothing' is not a column"),
        (["--genes", "LYZ,NO_GENE"], "NO_GENE"),
        (["--likelihood", "nothing"], "--likelihood: found 'nothing'"),
        (["--n-latent", "0"], "--n-latent: found 0; pass an integer of at least 1"),
        (["--device", "nothing"], "--device nothing is not a device"),
        (["--device", "mps"], "--device mps is not supported; use 'auto', 'cpu' or 'cuda'"),
        (["--device", "meta"], "--device meta is not supported"),
        (["--device", "cuda:99"], "no such CUDA device here; use --device cpu or 'auto'"),
        (["--model", "nothing.ae"], "nothing.ae"),
        (["--mask-var", "nothing"], "--mask-var nothing"),
    ],
)
def test_a_mistake_in_an_option(counts, tmp_path, capsys, options, message):
    page = ["--report", tmp_path / "page.html"]
    assert message in failed(capsys, tmp_path, ["denoise", counts, tmp_path / "out.h5ad", *options, *page])


def test_a_mistake_in_a_file(counts, tmp_path, capsys):
    out, here = tmp_path / "out.h5ad", tmp_path / "here.h5ad"
    assert "does not exist" in failed(capsys, tmp_path, ["denoise", tmp_path / "no.h5ad", out])
    assert "must end in .h5ad or .zarr" in failed(capsys, tmp_path, ["denoise", counts, tmp_path / "out.csv"])
    assert "There is no folder" in failed(capsys, tmp_path, ["denoise", counts, tmp_path / "no" / "out.h5ad"])
    here.write_text("not an h5ad file")
    left = ["here.h5ad"]
    assert "cannot read" in failed(capsys, tmp_path, ["embed", here, out], left=left)
    assert "--overwrite" in failed(capsys, tmp_path, ["embed", counts, here], left=left)
    assert "both input and output" in failed(capsys, tmp_path, ["embed", here, here, "--overwrite"], left=left)
    assert "both input and output" in failed(
        capsys, tmp_path, ["embed", here, out, "--report", here, "--overwrite"], left=left
    )
    assert here.read_text() == "not an h5ad file"
    (tmp_path / "link.h5ad").symlink_to(here)
    left = ["here.h5ad", "link.h5ad"]
    assert "both input and output" in failed(
        capsys, tmp_path, ["embed", here, tmp_path / "link.h5ad", "--overwrite"], left=left
    )


def test_a_folder_that_cannot_be_written(counts, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere, save in /proc
        folder = "/proc"
    assert "cannot write" in failed(capsys, tmp_path, ["denoise", counts, f"{folder}/out.h5ad"], left=["folder"])


def test_an_existing_output_survives_a_failure(counts, model, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.h5ad"
    out.write_text("precious")

    def broken(self, path, **options):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", broken)
    arguments = ["embed", counts, out, "--model", model, "--overwrite"]
    assert "disk full" in failed(capsys, tmp_path, arguments, left=["out.h5ad"])
    assert out.read_text() == "precious"


def test_a_report_survives_when_the_output_fails(counts, model, tmp_path, capsys, monkeypatch):
    out, page = tmp_path / "out.h5ad", tmp_path / "page.html"
    page.write_text("precious")
    arguments = ["embed", counts, out, "--model", model, "--overwrite", "--report", page]

    def broken(self, path, **options):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(anndata.AnnData, "write_h5ad", broken)
        assert "disk full" in failed(capsys, tmp_path, arguments, left=["page.html"])
    replace = os.replace

    def refused(source, target):
        if str(target).endswith(".h5ad"):
            raise PermissionError("not allowed")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    assert "not allowed" in failed(capsys, tmp_path, arguments, left=["page.html"])
    assert page.read_text() == "precious"


def test_inputs_and_outputs_that_contain_one_another_are_refused(counts, tmp_path, capsys):
    folder = tmp_path / "out.zarr"
    folder.mkdir()
    inner = folder / "in.h5ad"
    inner.write_bytes(counts.read_bytes())
    (tmp_path / "link.zarr").symlink_to(folder)
    left = ["out.zarr", "link.zarr"]
    for out in (folder, tmp_path / "link.zarr"):
        said = failed(capsys, tmp_path, ["denoise", inner, out, "--overwrite"], left=left)
        assert "in.h5ad lies inside" in said
    for arguments in (
        ["embed", folder, folder / "new.h5ad"],
        ["embed", counts, folder, "--report", folder / "page.html", "--overwrite"],
        ["embed", counts, folder, "--model", inner, "--overwrite"],
    ):
        assert "lies inside" in failed(capsys, tmp_path, arguments, left=left)
    assert inner.read_bytes() == counts.read_bytes()


def test_links_and_permissions_of_an_output_stay(counts, model, tmp_path):
    there, link = tmp_path / "there.h5ad", tmp_path / "out.h5ad"
    there.write_text("old")
    there.chmod(0o600)
    link.symlink_to(there)
    assert main(["embed", str(counts), str(link), "--model", str(model), "--overwrite"]) == 0
    assert link.is_symlink()
    assert there.stat().st_mode & 0o777 == 0o600
    assert anndata.read_h5ad(there).obsm["X_ae"].shape == (350, 8)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_writing_leaves_the_old_output(counts, model, tmp_path, number):
    out = tmp_path / "out.zarr"
    command = ["embed", str(counts), str(out), "--model", str(model), "--overwrite"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(command) == 0
    before = anndata.read_zarr(out).obsm["X_ae"]
    code = (
        "import os, sys, anndata, aeverse.cli as cli\n"
        "write = anndata.AnnData.write_zarr\n"
        "def slow(self, path):\n"
        f"    write(self, path); os.kill(os.getpid(), {int(number)}); import time; time.sleep(5)\n"
        "anndata.AnnData.write_zarr = slow\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    other = [*command, "--key-added", "X_other"]
    done = subprocess.run(
        [sys.executable, "-c", code, *other], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    np.testing.assert_array_equal(anndata.read_zarr(out).obsm["X_ae"], before)
    assert len(list(tmp_path.iterdir())) == (1 if number == signal.SIGTERM else 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(other) == 0  # and cleans up
    assert list(tmp_path.iterdir()) == [out]
    assert set(anndata.read_zarr(out).obsm) == {"X_other"}


def test_ctrl_c_in_the_middle_of_training_writes_nothing(counts, tmp_path, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    epochs = []

    class Bar:
        """A progress bar during which the user presses Ctrl-C, after the first epoch."""

        def set_postfix_str(self, text): ...

        def update(self, n=1):
            epochs.append(n)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

        def close(self): ...

    monkeypatch.setattr("aeverse._runtime.progress_bar", lambda *args, **kwargs: Bar())
    assert main(["embed", str(counts), str(tmp_path / "out.h5ad"), *FAST]) == 130
    assert len(epochs) == 1
    assert capsys.readouterr().err == "aeverse: error: interrupted; nothing was written.\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("way", ["swallowed", "made another error"])
def test_a_signal_that_a_library_does_not_pass_on_ends_the_command(counts, tmp_path, capsys, monkeypatch, way):
    def tool(data, **options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        except BaseException as error:  # as destructors and callbacks from C do
            if way != "swallowed":
                raise ValueError("cannot call back") from error

    monkeypatch.setattr("aeverse.tl.embed", tool)
    assert main(["embed", str(counts), str(tmp_path / "out.h5ad")]) == 130
    assert capsys.readouterr().err == "aeverse: error: interrupted; nothing was written.\n"
    assert not list(tmp_path.iterdir())


def test_runs_in_a_thread(tmp_path):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["embed", str(tmp_path / "no.h5ad"), "out.h5ad"])))
    thread.start()
    thread.join()
    assert codes == [1]


def test_scores_of_other_methods_are_those_of_the_benchmark():
    results = Path(__file__).parents[1] / "benchmarks" / "results" / "denoise.csv"
    measured = pd.read_csv(results).groupby(["method", "data"])["D2"].mean().unstack()
    shown = pd.read_csv(Path(ae.__file__).parent / "_denoising_scores.csv").set_index(["method", "data"]).unstack()
    np.testing.assert_allclose(shown["deviance_explained"], measured, atol=1e-4)


# ---- other tools -------------------------------------------------------------------------------------------------
def test_every_parameter_of_a_tool_is_an_option(capsys):
    import inspect

    from aeverse import _commands

    for name, command in _commands.COMMANDS.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        page = capsys.readouterr().out
        _, *parameters = inspect.signature(getattr(ae.tl, command.tool)).parameters
        missing = [p for p in parameters if f"--{p.replace('_', '-')}" not in page]
        of_fit = _commands.NOT_OF_A_MODEL if name == "fit" else ()
        assert set(missing) <= {*_commands.NO_OPTIONS, *of_fit}, name


def test_a_model_is_saved_and_maps_new_samples(counts, tmp_path, capsys):
    saved = tmp_path / "pbmc.ae"
    fast = [*FAST, "--log1p", "--genes", "LYZ,CST3", "--save-model", str(saved)]
    assert main(["denoise", str(counts), str(tmp_path / "out.h5ad"), *fast]) == 0
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert out.uns["ae"]["denoised"]["params"]["log1p"]
    assert (
        main(["map", str(counts), str(tmp_path / "map.h5ad"), "--model", str(saved), "--transfer", "bulk_labels"]) == 0
    )
    assert "bulk_labels_predicted" in anndata.read_h5ad(tmp_path / "map.h5ad").obs
    assert "mapped 350 cells" in capsys.readouterr().out
    said = failed(
        capsys,
        tmp_path,
        ["map", counts, tmp_path / "x.h5ad", "--model", saved, "--alpha", 2],
        left=["out.h5ad", "pbmc.ae", "map.h5ad"],
    )
    assert "--alpha: found 2.0" in said
    said = failed(
        capsys,
        tmp_path,
        ["denoise", counts, tmp_path / "x.h5ad", "--save-model", saved],
        left=["out.h5ad", "pbmc.ae", "map.h5ad"],
    )
    assert "pbmc.ae exists; pass --overwrite" in said


def test_files_of_several_modalities_and_of_10x(tmp_path, capsys):
    import mudata
    import scipy.io
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    factors = rng.normal(size=(60, 2))
    mods = {m: anndata.AnnData(factors @ rng.normal(size=(2, 9)) + rng.normal(size=(60, 9))) for m in ("a", "b")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mudata.MuData(mods).write_h5mu(tmp_path / "in.h5mu")
        call = ["predict", str(tmp_path / "in.h5mu"), str(tmp_path / "out.h5mu"), "--target", "b", "--features", "0,3"]
        assert main(call) == 0
        assert list(mudata.read_h5mu(tmp_path / "out.h5mu").obsm["predicted_b"].columns) == ["0", "3"]
    folder = tmp_path / "10x"
    folder.mkdir()
    small = ae.datasets.simulate_counts(60, 30)
    scipy.io.mmwrite(folder / "matrix.mtx", sp.coo_matrix(small.X.T))
    (folder / "genes.tsv").write_text("".join(f"id{i}\tgene{i}\n" for i in range(30)))
    (folder / "barcodes.tsv").write_text("".join(f"cell{i}\n" for i in range(60)))
    for source in (folder, folder / "matrix.mtx"):
        assert main(["embed", str(source), str(tmp_path / "e.h5ad"), *FAST, "--overwrite"]) == 0
        assert anndata.read_h5ad(tmp_path / "e.h5ad").obsm["X_ae"].shape == (60, 8)


def test_fit_writes_a_model_with_the_options_of_a_file(counts, tmp_path, capsys):
    saved, config = tmp_path / "pbmc.ae", tmp_path / "small.toml"
    config.write_text('n_models = 1\nn_latent = 6\nlikelihood = "poisson"\nregularizer = ["sparse"]\n')
    assert main(["fit", str(counts), str(saved), "--config", str(config), "--n-latent", "5"]) == 0
    model = ae.models.load(saved)
    assert (model.config.n_latent, model.config.likelihood) == (5, "poisson")  # the command line counts more
    assert model.settings.regularizer == "sparse"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pbmc.ae", "small.toml"]
    assert "fitted to 350 cells" in capsys.readouterr().out
    left = ["pbmc.ae", "small.toml"]
    said = failed(capsys, tmp_path, ["fit", counts, tmp_path / "x.ae", "--config", tmp_path / "no.toml"], left=left)
    assert "cannot read --config" in said
    config.write_text("n_latent 6")
    said = failed(capsys, tmp_path, ["fit", counts, tmp_path / "x.ae", f"--config={config}"], left=left)
    assert "cannot read --config" in said
    assert "must end in .ae" in failed(capsys, tmp_path, ["fit", counts, tmp_path / "x.h5ad"], left=left)


def test_an_option_that_there_is_not_in_a_file_is_wrong_usage(counts, tmp_path, capsys):
    config = tmp_path / "wrong.toml"
    config.write_text("n_latents = 6")
    with pytest.raises(SystemExit, match="2"):
        main(["embed", str(counts), str(tmp_path / "x.h5ad"), "--config", str(config)])
    assert "--n-latents=6" in capsys.readouterr().err


def test_markers_and_benchmark_write_what_the_tools_return(counts, tmp_path):
    out, table = tmp_path / "out.h5ad", tmp_path / "scores.csv"
    config = tmp_path / "benchmark.toml"  # an option that a command needs may stand in the file, too
    config.write_text('methods = ["pca", "kernel_pca"]\nlabel_key = "bulk_labels"\nn_splits = 2\nn_latent = 4\n')
    assert main(["markers", str(counts), str(out), "--groupby", "bulk_labels", "--n-splits", "2"]) == 0
    assert "names" in anndata.read_h5ad(out).uns["markers"]
    assert main(["benchmark", str(counts), str(table), "--config", str(config)]) == 0
    scores = pd.read_csv(table)
    assert sorted(scores["method"]) == ["kernel_pca", "kernel_pca", "pca", "pca"]
    assert scores["knn"].between(0, 1).all()
