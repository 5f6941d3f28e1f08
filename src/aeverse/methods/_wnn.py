"""Weighted nearest neighbors (muon), as diffusion coordinates of their graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Components, Preparation, require_complete, states_kept

N_COMPONENTS, N_COORDINATES, N_CANDIDATES = 30, 15, 200
FEWEST = 50


def wnn(data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, n_latent, random_state) -> Fitted:
    """WNN [Hao2021]_ gives a graph, no embedding: `n_latent` (15) diffusion coordinates of the graph stand for it."""
    require_complete(data, n_obs, "wnn")
    if n_obs < FEWEST:
        raise ValueError(f"method='wnn' looks for many neighbors: {n_obs} cells are too few, at least {FEWEST}.")
    import muon
    import scanpy as sc
    from anndata import AnnData
    from mudata import MuData

    from aeverse.nn import diffusion_coordinates

    mods = {}
    for m, d in data.items():
        x = Preparation(d, kinds[m])(d)
        components = Components(x, kinds[m], N_COMPONENTS, random_state)
        mods[m] = AnnData(
            x,
            obs=pd.DataFrame(index=d.rows.astype(str)),
            var=pd.DataFrame(index=[f"{m}:{i}" for i in range(x.shape[1])]),
            obsm={"X_pca": components.scores},
        )
        sc.pp.neighbors(mods[m], use_rep="X_pca", random_state=random_state)
    with states_kept():
        joint = MuData(mods)
        # muon crashes the interpreter where it looks for more neighbors than there are samples
        n_candidates = min(N_CANDIDATES, n_obs // 2)
        muon.pp.neighbors(joint, n_multineighbors=n_candidates, random_state=random_state)
    place = joint.obs_names.astype(int).argsort()
    graph = sp.csr_matrix(joint.obsp["connectivities"])[place][:, place]
    n_coordinates = n_latent or N_COORDINATES
    return Fitted(diffusion_coordinates(graph, n_coordinates).astype(np.float32), {"n_coordinates": n_coordinates})
