"""Training that was ended goes on from its checkpoint as if nothing had happened."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import aeverse as ae
from aeverse.models._matrix._checkpoint import TrainingCheckpoint

OPTIONS = {"n_latent": 4, "n_hidden": (16,), "max_steps": 230}
QUICK = {"n_models": 1, "n_hidden": (8,)}
CHILD = """
import os, signal, sys
import torch, aeverse as ae
torch.set_num_threads(1)

def killed(history):
    if history["step"][-1] > 150:
        os.kill(os.getpid(), signal.SIGKILL)

adata = ae.datasets.pbmc68k_counts()[:100, :100].copy()
ae.models.Autoencoder(n_latent=4, n_hidden=(16,), max_steps=230).fit(adata, checkpoint=sys.argv[1], callback=killed)
"""


class Ended(BaseException):
    """Ends a run, as nothing inside it catches."""


def _fit(adata, checkpoint=None, callback=None, init=None, **options):
    model = ae.models.Autoencoder(**{**OPTIONS, **options})
    return model.fit(adata, init=init, checkpoint=checkpoint, callback=callback)


def _same(one, other, adata):
    for name, values in other.history.items():
        np.testing.assert_array_equal(one.history[name], values)  # NaN too
    assert one.record()["checksum"] == other.record()["checksum"]
    np.testing.assert_array_equal(one.encode(adata), other.encode(adata))


def test_a_killed_run_goes_on_to_the_same_bits(small, tmp_path):
    path = tmp_path / "fit.ckpt"
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.is_file()
    steps = []
    resumed = _fit(small, path, lambda history: steps.append(history["step"][-1]))
    assert steps[0] > 100  # what was done before is not done again
    _same(resumed, _fit(small), small)


@pytest.mark.parametrize(
    "options",
    [
        {"regularizer": "variational", "n_models": 1},
        {"likelihood": "gaussian"},
        {"regularizer": ("denoising", "contractive"), "decoder": "mlp", "n_models": 2},
    ],
    ids=str,
)
def test_whatever_the_model(small, tmp_path, monkeypatch, options):
    if options.get("likelihood"):
        small.X = np.log1p(small.X.toarray())
    _interrupted(small, tmp_path / "a", monkeypatch, **options)
    _same(_fit(small, tmp_path / "a", **options), _fit(small, **options), small)


def test_from_disk_and_from_another_model(small, tmp_path, monkeypatch, model):
    from aeverse._slots import _stored

    monkeypatch.setattr(_stored, "LARGEST_READ", 100)
    monkeypatch.setattr(_stored, "MOST_ROWS", 5)  # so that there are two buffers
    small.write_h5ad(tmp_path / "small.h5ad")
    stored = ae._slots.open_file(tmp_path / "small.h5ad")
    assert not isinstance(stored.X, type(small.X))
    options = {**QUICK, "max_steps": 120}
    _interrupted(stored, tmp_path / "a", monkeypatch, **options)
    _same(_fit(stored, tmp_path / "a", **options), _fit(stored, **options), small)
    more = {"init": model, "max_steps": 120}
    _interrupted(small, tmp_path / "b", monkeypatch, **more)
    _same(_fit(small, tmp_path / "b", **more), _fit(small, **more), small)


def test_random_numbers_of_another_device_go_on(small, tmp_path, monkeypatch):
    """There, corruptions come from a generator of the device: its state is what the file has to keep."""
    from aeverse.models._matrix import _learn

    def on_device(device, generator):
        return torch.Generator().manual_seed(generator.initial_seed() + 1)

    monkeypatch.setattr(_learn, "generator_on", on_device)
    _interrupted(small, tmp_path / "a", monkeypatch, **QUICK)
    _same(_fit(small, tmp_path / "a", **QUICK), _fit(small, **QUICK), small)


def _interrupted(adata, path, monkeypatch, **options):
    write = TrainingCheckpoint.write

    def ends(self, state):
        write(self, state)
        raise Ended

    with monkeypatch.context() as patch:
        patch.setattr(TrainingCheckpoint, "write", ends)
        with pytest.raises(Ended):
            _fit(adata, path, **options)


def test_a_run_that_ended_is_not_repeated(small, tmp_path, quick):
    options = {**quick, "max_steps": 30}
    first = _fit(small, tmp_path / "a", **options)
    steps = []
    _same(_fit(small, tmp_path / "a", lambda history: steps.append(history), **options), first, small)
    assert not steps
    stopped = _fit(small, tmp_path / "b", lambda history: True, **options)
    _same(_fit(small, tmp_path / "b", **options), stopped, small)


def test_files_of_other_runs_are_refused(small, tmp_path, quick):
    path, options = tmp_path / "a", {**quick, "max_steps": 30}
    model = _fit(small, path, **options)
    other = small.copy()
    other.X[3, 5] += 1
    for adata, changes in ((other, {}), (small, {"random_state": 1}), (small, {"max_steps": 31})):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"other data or with other settings.*delete this one"):
            _fit(adata, path, **{**options, **changes})
        assert path.read_bytes() == before
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint=.*cannot be resumed.*damaged"):
        _fit(small, path, **options)
    model.save(path)
    with pytest.raises(ValueError, match=r"checkpoint=.*holds .*Autoencoder"):
        _fit(small, path, **options)
    _fit(small, tmp_path / "b", **options)
    with pytest.raises(ValueError, match="Checkpoint"):
        ae.models.load(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="no folder"):
        _fit(small, tmp_path / "nowhere" / "c", **options)
