"""Ctrl-C while a tool trains, and processes that are forked or spawned after a fit, as the docstrings say."""

import os
import subprocess
import sys

import anndata as ad
import mudata as md
import numpy as np
import pytest
import torch

import aeverse as ae

QUICK = {"n_models": 1, "n_latent": 4, "progress": False}
SENTENCES = ("Ctrl-C before training has", "multiprocessing.get_context")


def cells():
    adata = ae.datasets.simulate_counts(60, 30, n_types=2)
    adata.obs["group"] = adata.obs["cell_type"]
    return adata


def cohort():
    x = np.random.default_rng(0).normal(size=(40, 12)).astype("float32")
    return md.MuData({"a": ad.AnnData(x[:, :6]), "b": ad.AnnData(x[:, 6:])})


TOOLS = {
    "denoise": (cells, QUICK),
    "embed": (cells, QUICK),
    "dropouts": (cells, {"progress": False}),
    "multimodal_embed": (cohort, {"n_latent": 4, "progress": False}),
    "predict_modality": (cohort, {"target": "b", "progress": False}),
    "markers": (cells, {"groupby": "group", "method": "ae", "n_splits": 2}),
    "benchmark": (cells, {"methods": ["ae"], "n_splits": 2, "n_latent": 4, "progress": False}),
}


def contents(data):
    """Keys of all slots, of the modalities too, and the content of X."""
    slots = {slot: sorted(getattr(data, slot)) for slot in ("obs", "var", "uns", "obsm", "varm", "obsp")}
    if isinstance(data, md.MuData):
        return slots | {name: contents(part) for name, part in data.mod.items()}
    return slots | {"layers": sorted(data.layers, key=str), "X": float(data.X.sum())}


def run(tool, data, monkeypatch, *, interrupted_at=None):
    """What a call gave in which Ctrl-C came at a step of training, and the number of steps."""
    plain, steps = torch.Tensor.backward, []

    def backward(*args, **kwargs):
        steps.append(1)
        if len(steps) == interrupted_at:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", backward)
        result = getattr(ae.tl, tool)(data, **TOOLS[tool][1])
    return result, len(steps)


@pytest.fixture(autouse=True)
def _few_steps(few_steps, monkeypatch):
    monkeypatch.setattr("aeverse.models._joint._sample_fusion.N_STEPS", 16)


def test_every_tool_that_trains_says_what_an_interrupt_does():
    trained = {name for name in ae.tl.__all__ if "progress" in getattr(ae.tl, name).__wrapped__.__annotations__}
    assert trained <= set(TOOLS)
    assert all(sentence in ae.tl.denoise.__doc__ for sentence in SENTENCES)
    for name in set(TOOLS) - {"denoise"}:
        assert "Ctrl-C and worker processes: as in `aeverse.tl.denoise`." in getattr(ae.tl, name).__doc__, name


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.filterwarnings("ignore")
def test_before_anything_is_learned_an_interrupt_leaves_the_object(tool, monkeypatch):
    data = TOOLS[tool][0]()
    before = contents(data)
    with pytest.raises(KeyboardInterrupt):
        run(tool, data, monkeypatch, interrupted_at=1)
    assert contents(data) == before


@pytest.mark.parametrize("tool", sorted({*TOOLS} - {"markers"}))  # which embeds, and then clusters for long
def test_later_the_call_warns_and_goes_on_to_its_results(tool, monkeypatch):
    whole, stopped = TOOLS[tool][0](), TOOLS[tool][0]()
    expected, n_steps = run(tool, whole, monkeypatch)
    if isinstance(whole, md.MuData):  # values of a cohort: judged at the end only
        with pytest.raises(KeyboardInterrupt):
            run(tool, stopped, monkeypatch, interrupted_at=n_steps - 1)
        return
    with pytest.warns(UserWarning, match="Training was interrupted; the best weights so far are kept"):
        found, _ = run(tool, stopped, monkeypatch, interrupted_at=n_steps - 1)
    assert contents(stopped) == contents(whole)
    if tool == "benchmark":
        assert found.shape == expected.shape


PROCESSES = """
import multiprocessing, os, sys
import numpy as np, torch
import aeverse as ae

def work(expected):
    adata = ae.datasets.simulate_counts(60, 30)
    model = ae.models.Autoencoder(n_models=1, n_latent=4, max_epochs=2).fit(adata, progress=False)
    return int(not np.array_equal(model.encode(adata), expected))

def spawned(expected):
    sys.exit(work(expected))

if __name__ == "__main__":
    torch.set_num_threads(2)
    adata = ae.datasets.simulate_counts(60, 30)
    expected = ae.models.Autoencoder(n_models=1, n_latent=4, max_epochs=2).fit(adata, progress=False).encode(adata)
    child = os.fork()
    if child == 0:
        os._exit(work(expected))
    print("forked", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    torch.rand(2000, 2000) @ torch.rand(2000, 2000)  # on two threads, after which a fork could hang
    process = multiprocessing.get_context("spawn").Process(target=spawned, args=(expected,))
    process.start()
    process.join()
    print("spawned", process.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
def test_a_process_can_be_forked_after_a_fit_and_spawned_always(tmp_path):
    (tmp_path / "script.py").write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.stdout.split() == ["forked", "0", "spawned", "0"], done.stderr[-2000:]
