"""MOFA+ (muon, mofapy2)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import normalised

N_FACTORS = 10


def mofa(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, batches, n_latent, random_state, progress
) -> Fitted:
    """`n_latent` (10) factors [Argelaguet2020]_ of the normalised modalities; samples may lack some of them."""
    try:
        import mofapy2  # noqa: F401 (muon imports it late, after work was done)
    except ImportError as error:
        raise ImportError("method='mofa' needs mofapy2: pip install mofapy2") from error
    import muon
    from mudata import MuData

    n_factors = n_latent or N_FACTORS
    joint = MuData({m: normalised(d, kinds[m]) for m, d in data.items()})
    with tempfile.TemporaryDirectory() as folder:
        muon.tl.mofa(
            joint,
            n_factors=n_factors,
            use_obs="union",
            scale_views=True,
            seed=random_state,
            outfile=str(Path(folder) / "mofa.hdf5"),
            quiet=True,
            verbose=bool(progress),
        )
    code = np.zeros((n_obs, joint.obsm["X_mofa"].shape[1]), np.float32)
    code[joint.obs_names.astype(int)] = joint.obsm["X_mofa"]
    return Fitted(code, {"n_factors": n_factors})
