"""Weighted nearest neighbours (muon), as diffusion coordinates of their graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import normalised, principal_components, require_complete

N_COMPONENTS, N_COORDINATES = 30, 15


def wnn(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, batches, n_latent, random_state, progress
) -> Fitted:
    """WNN [Hao2021]_ gives a graph, no embedding: `n_latent` (15) diffusion coordinates of the graph stand for it."""
    require_complete(data, n_obs, "wnn")
    import muon
    import scanpy as sc
    from mudata import MuData

    from aeverse.nn import diffusion_coordinates

    mods = {}
    for m, d in data.items():
        mods[m] = normalised(d, kinds[m])
        principal_components(mods[m], kinds[m], N_COMPONENTS, random_state)
        sc.pp.neighbors(mods[m], use_rep="X_pca", random_state=random_state)
    joint = MuData(mods)
    muon.pp.neighbors(joint, random_state=random_state)
    place = joint.obs_names.astype(int).argsort()
    graph = sp.csr_matrix(joint.obsp["connectivities"])[place][:, place]
    n_coordinates = n_latent or N_COORDINATES
    return Fitted(diffusion_coordinates(graph, n_coordinates).astype(np.float32), {"n_coordinates": n_coordinates})
