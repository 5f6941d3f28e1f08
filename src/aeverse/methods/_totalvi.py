"""totalVI (scvi-tools)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import N_GENES, isolated

N_LATENT = 20


def totalvi(
    data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_obs, batches, n_latent, random_state, progress
) -> Fitted:
    """TotalVI [Gayoso2021]_ on the raw counts of RNA and protein; cells without protein are a batch of their own."""
    model = train_totalvi(
        data,
        kinds,
        n_obs=n_obs,
        batches=batches,
        n_latent=n_latent,
        random_state=random_state,
        progress=progress,
    )
    with isolated(random_state):
        code = model.get_latent_representation()
    return Fitted(
        np.asarray(code, np.float32), {"n_latent": n_latent or N_LATENT, "epochs": len(model.history["elbo_train"])}
    )


def train_totalvi(data, kinds, *, n_obs, batches, n_latent, random_state, progress):
    """The trained scvi-tools model, on a new AnnData; parameters as for every method."""
    rna, protein = (one_of(kinds, kind, "totalvi") for kind in ("counts", "protein"))
    if len(data[rna].rows) < n_obs:
        raise ValueError(f"method='totalvi' needs RNA in every cell; {n_obs - len(data[rna].rows)} lack {rna!r}.")
    import scanpy as sc
    import scvi
    from anndata import AnnData

    adata = AnnData(
        sp.csr_matrix(_slots.scatter_rows(sp.csr_matrix(data[rna].x), data[rna].rows, n_obs)),
        var=pd.DataFrame(index=data[rna].names),
    )
    adata.var_names_make_unique()
    if data[rna].mask is not None:
        adata = adata[:, data[rna].mask].copy()
    elif adata.n_vars > 2 * N_GENES:
        logged = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
        chosen = sc.pp.highly_variable_genes(logged, n_top_genes=2 * N_GENES, inplace=False)["highly_variable"]
        adata = adata[:, chosen.to_numpy()].copy()
    x = data[protein].x if data[protein].mask is None else data[protein].x[:, data[protein].mask]
    adata.obsm["protein"] = _slots.scatter_rows(
        x.toarray() if sp.issparse(x) else np.nan_to_num(x), data[protein].rows, n_obs
    )
    measured = np.isin(np.arange(n_obs), data[protein].rows)
    codes = np.zeros(n_obs, int) if batches is None else batches.codes
    adata.obs["batch"] = pd.Categorical(
        [f"{b}, {'RNA and protein' if p else 'RNA only'}" for b, p in zip(codes, measured, strict=True)]
    )
    with isolated(random_state):
        scvi.model.TOTALVI.setup_anndata(adata, protein_expression_obsm_key="protein", batch_key="batch")
        model = scvi.model.TOTALVI(adata, n_latent=n_latent or N_LATENT)
        model.train(enable_progress_bar=bool(progress), accelerator="auto")
    return model


def one_of(kinds: Mapping[str, str], kind: str, method: str) -> str:
    """The only modality of a kind."""
    names = [m for m, k in kinds.items() if k == kind]
    if len(names) != 1:
        raise ValueError(
            f"method={method!r} needs one modality of kind {kind!r}, found {names} among {dict(kinds)}; pass kind= or modalities=."
        )
    return names[0]
