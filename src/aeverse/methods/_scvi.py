"""scVI (scvi-tools)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Preparation, isolated

N_LATENT = 10


def scvi(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, batches, n_latent, random_state, progress
) -> Fitted:
    """ScVI [Lopez2018]_ on the raw counts of 2,000 highly variable genes, with its defaults (10 dimensions).

    By these defaults its decoder reads the batch and its encoder does not, so that a new sample has the same code whatever
    batch it is said to be of.
    """
    [(name, d)] = data.items()
    if kinds[name] not in ("counts", "protein", "peaks"):
        raise ValueError(
            f"method='scvi' needs raw counts; these data look {kinds[name]}. Pass layer= or likelihood='nb'."
        )
    import scvi as scvi_tools
    from anndata import AnnData

    columns = Preparation(d, "counts").columns
    categories = None if batches is None else batches.categories

    def prepared(new: _slots.Modality, codes) -> AnnData:
        adata = AnnData(sp.csr_matrix(new.x, dtype=np.float32)[:, columns], var=pd.DataFrame(index=columns.astype(str)))
        if categories is not None:
            adata.obs["batch"] = pd.Categorical.from_codes(codes, categories)
        return adata

    adata = prepared(d, None if batches is None else batches.codes)
    with isolated(random_state):
        scvi_tools.model.SCVI.setup_anndata(adata, batch_key=None if categories is None else "batch")
        model = scvi_tools.model.SCVI(adata, n_latent=n_latent or N_LATENT)
        model.train(enable_progress_bar=bool(progress), accelerator="auto")
        code = np.asarray(model.get_latent_representation(), np.float32)

    def encode(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        any_batch = np.zeros(n_obs, int)  # see above
        with isolated(random_state):
            return np.asarray(model.get_latent_representation(prepared(data[name], any_batch)), np.float32)

    settings = {"n_latent": n_latent or N_LATENT, "epochs": len(model.history["elbo_train"])}
    return Fitted(code, settings, encode)
