"""Principal components of each modality, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Components, Preparation, side_by_side

N_COMPONENTS = 30


def concat_pca(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, n_latent, random_state
) -> Fitted:
    """At most `n_latent` (30) components a modality, blocks of unit variance; a missing block is its mean."""
    n_components, parts = n_latent or N_COMPONENTS, {}
    for m, d in data.items():
        prepare = Preparation(d, kinds[m])
        components = Components(prepare(d), kinds[m], n_components, random_state)
        length = float(np.sqrt((components.scores**2).sum(1).mean()))
        parts[m] = prepare, components, max(length, 1e-12)

    def encode(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        return side_by_side(parts, data, n_obs)

    return Fitted(encode(data, n_obs), {"n_components": n_components}, encode)
