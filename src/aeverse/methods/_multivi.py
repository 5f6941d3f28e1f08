"""MultiVI (scvi-tools)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import isolated
from aeverse.methods._totalvi import one_of


def multivi(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, batches, n_latent, random_state, progress
) -> Fitted:
    """MultiVI [Ashuach2023]_ on RNA counts and peaks; cells that lack one of them are marked as such."""
    rna, peaks = (one_of(kinds, kind, "multivi") for kind in ("counts", "peaks"))
    import scvi
    from anndata import AnnData
    from mudata import MuData

    read = {m: data[m].x if data[m].mask is None else data[m].x[:, data[m].mask] for m in (rna, peaks)}
    has = [np.isin(np.arange(n_obs), data[m].rows) for m in (rna, peaks)]
    assay = np.where(has[0] & has[1], "paired", np.where(has[0], "expression", "accessibility"))
    with isolated(random_state):  # MuData too draws names at random
        joint = MuData(
            {
                name: AnnData(
                    sp.csr_matrix(_slots.scatter_rows(sp.csr_matrix(read[m]), data[m].rows, n_obs)),
                    obs=pd.DataFrame(index=np.arange(n_obs).astype(str)),
                    var=pd.DataFrame(index=[f"{name}:{i}" for i in range(read[m].shape[1])]),
                )
                for name, m in (("rna", rna), ("atac", peaks))
            }
        )  # MultiVI takes rows without a molecule for missing
        joint.obs["modality"] = pd.Categorical(assay)
        if batches is not None:
            joint.obs["own_batch"] = pd.Categorical(np.asarray(batches.codes).astype(str))
        scvi.model.MULTIVI.setup_mudata(
            joint,
            batch_key="modality",
            categorical_covariate_keys=None if batches is None else ["own_batch"],
            modalities={"rna_layer": "rna", "atac_layer": "atac"},
        )
        model = scvi.model.MULTIVI(joint, n_latent=n_latent)
        model.train(enable_progress_bar=bool(progress))
        code = np.asarray(model.get_latent_representation(), np.float32)
    return Fitted(code, {"n_latent": code.shape[1]})
