"""Compiled loops give the same digits in every process."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import torch, aeverse as ae
torch.set_num_threads(1)
adata = ae.datasets.pbmc68k_counts()[:100, :100].copy()
print(ae.models.Autoencoder(n_latent=4, n_models=1, max_steps=20).fit(adata).record()["checksum"])
"""


def test_the_first_process_gives_the_bits_of_the_next(tmp_path):
    """It compiles what the next one takes from the cache."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    first, second = (
        subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc"))
    assert first == second
