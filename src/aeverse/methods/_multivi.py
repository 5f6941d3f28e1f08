"""MultiVI (scvi-tools)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import on_all
from aeverse.methods._totalvi import isolated, one_of


def multivi(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, batches, n_latent, random_state, progress
) -> Fitted:
    """MultiVI [Ashuach2023]_ on RNA counts and peaks; cells that lack one of them are marked as such."""
    rna, peaks = (one_of(kinds, kind, "multivi") for kind in ("counts", "peaks"))
    import scvi
    from anndata import AnnData

    parts = [on_all(sp.csr_matrix(data[m].x), data[m].rows, n_obs) for m in (rna, peaks)]
    has = [np.isin(np.arange(n_obs), data[m].rows) for m in (rna, peaks)]
    what = np.where(has[0] & has[1], "paired", np.where(has[0], "expression", "accessibility"))
    order = np.argsort(
        np.select([what == "paired", what == "expression"], [0, 1], 2), kind="stable"
    )  # as MultiVI wants them
    adata = AnnData(
        sp.csr_matrix(sp.hstack(parts))[order],
        obs=pd.DataFrame({"modality": what[order]}, index=order.astype(str)),
        var=pd.DataFrame(index=[f"{m}:{n}" for m in (rna, peaks) for n in data[m].names]),
    )
    adata.var_names_make_unique()
    if batches is not None:
        adata.obs["own_batch"] = pd.Categorical(np.asarray(batches.codes)[order].astype(str))
    with isolated(random_state):
        scvi.model.MULTIVI.setup_anndata(
            adata, batch_key="modality", categorical_covariate_keys=None if batches is None else ["own_batch"]
        )
        model = scvi.model.MULTIVI(adata, n_genes=parts[0].shape[1], n_regions=parts[1].shape[1], n_latent=n_latent)
        model.train(enable_progress_bar=bool(progress))
        latent = np.asarray(model.get_latent_representation(), np.float32)
    code = np.empty_like(latent)
    code[order] = latent
    return Fitted(code, {"n_latent": latent.shape[1]})
