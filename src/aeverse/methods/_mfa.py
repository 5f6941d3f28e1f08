"""Multiple factor analysis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Components, Preparation, side_by_side

N_COMPONENTS, N_BLOCK = 30, 300


def mfa(data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, n_latent, random_state) -> Fitted:
    """MFA [Escofier1994]_: each modality divided by its first singular value, then `n_latent` (30) joint components.

    Of each modality the first 300 components enter, which for a cohort are all or nearly all. A sample that lacks a
    modality lies at its mean there.
    """
    parts = {}
    for m, d in data.items():
        prepare = Preparation(d, kinds[m])
        components = Components(prepare(d), kinds[m], N_BLOCK, random_state)
        parts[m] = prepare, components, max(float(np.linalg.norm(components.scores[:, 0])), 1e-12)

    x = side_by_side(parts, data, n_obs).astype(np.float64)
    center = x.mean(0)
    values, vectors = np.linalg.eigh((x - center).T @ (x - center))
    n_components = min(n_latent or N_COMPONENTS, n_obs - 1, x.shape[1])
    # Codes of unit mean square, since the scale after the division by singular values depends on the number of samples.
    unit = np.sqrt(max(values[-n_components:].sum() / n_obs, 1e-24))
    axes = vectors[:, ::-1][:, :n_components] / unit

    def encode(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        return ((side_by_side(parts, data, n_obs) - center) @ axes).astype(np.float32)

    return Fitted(encode(data, n_obs), {"n_components": n_components}, encode)
