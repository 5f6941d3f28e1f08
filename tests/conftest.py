import hashlib
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before OpenMP loads: waiting threads must not keep a core busy

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import settings

import aeverse as ae

torch.set_num_threads(1)  # small data: more threads only wait for each other, on a busy machine for long
settings.register_profile("aeverse", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("aeverse")

QUICK = {"n_models": 1, "n_latent": 4}


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data beside the repository; tests that need it are skipped where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not there (../shared/data beside the repository)")
    return folder


@pytest.fixture(scope="session")
def pbmc():
    """700 cells x 765 genes, not to be changed."""
    return ae.datasets.pbmc68k_counts()


@pytest.fixture
def small(pbmc):
    """100 cells x 100 genes, for each test its own."""
    adata = pbmc[:100, :100].copy()
    adata.obs["batch"] = pd.Categorical(["a", "b"] * 50, categories=["a", "b", "unused"])
    return adata


@pytest.fixture(scope="session")
def model(pbmc):
    """A fitted model of the 100 x 100 corner, not to be changed."""
    return ae.models.Autoencoder(n_models=2, n_latent=4, max_epochs=3).fit(pbmc[:100, :100].copy())


@pytest.fixture
def quick():
    """Arguments of a small model."""
    return dict(QUICK)


@pytest.fixture
def few_steps(monkeypatch, request):
    """Train for some steps only, but in tests of what is learned, which carry the mark `full_training`."""
    from aeverse.models._matrix import _settings

    if request.node.get_closest_marker("full_training") is None:
        monkeypatch.setattr(_settings, "N_STEPS", 16)


@pytest.fixture(scope="session")
def warm_neighbors():
    """Beside torch, the first approximate neighbors of a process (pynndescent) differ a little from all later ones."""
    import scanpy as sc
    from anndata import AnnData

    sc.pp.neighbors(AnnData(np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)), use_rep="X")


def _hash(value, digest) -> None:
    if isinstance(value, pd.DataFrame):
        for name in [*value.columns]:
            digest.update(repr((name, value[name].dtype)).encode())
            _hash(value[name].to_numpy(object), digest)
        _hash(value.index.to_numpy(object), digest)
    elif sp.issparse(value):
        digest.update(f"{type(value)}{value.shape}".encode())
        for part in (value.data, value.indices, value.indptr):
            _hash(part, digest)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}{value.flags.c_contiguous}".encode())
        digest.update(repr(value.tolist()).encode() if value.dtype == object else np.ascontiguousarray(value).tobytes())
    elif hasattr(value, "items"):
        for key, entry in value.items():
            digest.update(repr(key).encode())
            _hash(entry, digest)
    else:
        digest.update(repr(value).encode())


@pytest.fixture
def fingerprint():
    """Hash of everything in an AnnData, in order, to the byte."""

    def of(adata) -> str:
        digest = hashlib.sha256()
        digest.update(f"{adata.is_view}{adata.shape}".encode())
        _hash(adata.X, digest)
        for slot in ("obs", "var", "uns", "layers", "obsm", "varm", "obsp", "varp"):
            digest.update(slot.encode())
            value = getattr(adata, slot)
            _hash(value if isinstance(value, pd.DataFrame) else dict(value), digest)
        if adata.raw is not None:
            _hash(adata.raw.X, digest)
        return digest.hexdigest()

    return of


@pytest.fixture
def random_states():
    """The global random states of NumPy, Python and torch, to compare before and after."""
    import random

    import torch

    def now():
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return kind, keys.tobytes(), tuple(rest), random.getstate(), torch.get_rng_state().numpy().tobytes()

    return now
