"""MOFA+ (muon, mofapy2)."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Preparation, moments, states_kept

N_FACTORS = 10
N_ROUNDS = 50  # of the variational updates of new samples


def mofa(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, n_latent, random_state, progress
) -> Fitted:
    """`n_latent` (10) factors [Argelaguet2020]_ of the normalized modalities; samples may lack some of them.

    Mutations have a Bernoulli likelihood, the others, centered and of unit variance in all, a Gaussian one. The factors
    of new samples are their posterior means given the weights.
    """
    import muon
    from anndata import AnnData
    from mudata import MuData

    n_factors = min(n_latent or N_FACTORS, n_obs - 1)
    views = {m: _View(d, kinds[m]) for m, d in data.items()}
    mods = {}
    for m in sorted(data):  # muon 0.2 gives the weights back by the alphabet, whatever the order of the modalities
        x, d = views[m](data[m]), data[m]
        mods[m] = AnnData(
            x, pd.DataFrame(index=d.rows.astype(str)), pd.DataFrame(index=np.arange(x.shape[1]).astype(str))
        )
        mods[m].var_names = f"{m}:" + mods[m].var_names
    quiet = contextlib.nullcontext() if progress else contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, states_kept(), quiet:
        joint = MuData(mods)
        muon.tl.mofa(
            joint,
            n_factors=n_factors,
            use_obs="union",
            likelihoods=["bernoulli" if kinds[m] == "binary" else "gaussian" for m in mods],
            seed=random_state,
            outfile=str(Path(folder) / "mofa.hdf5"),
            quiet=True,
            verbose=bool(progress),
        )
    code = np.zeros((n_obs, joint.obsm["X_mofa"].shape[1]), np.float32)
    code[joint.obs_names.astype(int)] = joint.obsm["X_mofa"]
    weights = pd.DataFrame(joint.varm["LFs"], joint.var_names)
    for m, d in data.items():
        views[m].weights = weights.loc[mods[m].var_names].to_numpy()
        residual = mods[m].X - code[d.rows] @ views[m].weights.T
        views[m].precision = 1 / np.maximum((residual**2).mean(0), 1e-6)

    def encode(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        z = np.zeros((n_obs, code.shape[1]))
        inputs = {m: (view, view(data[m]), data[m].rows) for m, view in views.items() if m in data}
        for _ in range(N_ROUNDS if any(view.binary for view in views.values()) else 1):
            right, left = np.zeros_like(z), np.zeros((*z.shape, z.shape[1])) + np.eye(z.shape[1])
            for view, x, rows in inputs.values():
                precise, evidence = view.evidence(x, z[rows])
                right[rows] += evidence @ view.weights
                left[rows] += np.einsum("if,fj,fk->ijk", precise, view.weights, view.weights, optimize=True)
            z = np.linalg.solve(left, right[:, :, None])[:, :, 0]
        return z.astype(np.float32)

    return Fitted(code, {"n_factors": code.shape[1]}, encode)


class _View:
    """One modality as MOFA reads it, and what its samples say about their factors."""

    weights: np.ndarray  # (features, factors)
    precision: np.ndarray  # of each feature

    def __init__(self, d: _slots.Modality, kind: str):
        self.prepare, self.binary = Preparation(d, kind), kind == "binary"
        x = self.prepare(d)
        self.mean, sd = moments(x)
        self.length = max(float(np.sqrt((sd**2).mean())), 1e-12)

    def __call__(self, d: _slots.Modality) -> np.ndarray:
        x = self.prepare(d)
        x = np.asarray(x.todense() if hasattr(x, "todense") else x, np.float64)
        return x if self.binary else (x - self.mean) / self.length

    def evidence(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Precisions of the entries, and these times their (pseudo-)values (Jaakkola & Jordan, 2000)."""
        if not self.binary:
            return np.broadcast_to(self.precision, x.shape), x * self.precision
        size = np.maximum(np.abs(z @ self.weights.T), 1e-6)
        return np.tanh(size / 2) / (2 * size), x - 0.5
