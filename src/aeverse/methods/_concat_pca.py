"""Principal components of each modality, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import normalised, on_all, principal_components

N_COMPONENTS = 30


def concat_pca(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, batches, n_latent, random_state, progress
) -> Fitted:
    """At most `n_latent` (30) components a modality, blocks of unit variance; a missing block is its mean."""
    n_components, blocks = n_latent or N_COMPONENTS, []
    for m, d in data.items():
        adata = normalised(d, kinds[m])
        principal_components(adata, kinds[m], n_components, random_state)
        scores = adata.obsm["X_pca"]
        length = float(np.sqrt((scores**2).sum(1).mean()))
        blocks.append(on_all(scores / max(length, 1e-12), d.rows, n_obs))
    return Fitted(np.hstack(blocks).astype(np.float32), {"n_components": n_components})
