"""`tl.embed`: the code of an autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aeverse import _slots
from aeverse.tl._run import fitted, record

if TYPE_CHECKING:
    from anndata import AnnData

    from aeverse.models import Autoencoder


def embed(
    adata: AnnData,
    *,
    likelihood: str = "nb",
    regularizer: str | None = "denoising",
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    batch_key: str | None = None,
    n_latent: int = 32,
    n_models: int = 1,
    model: Autoencoder | str | Path | None = None,
    key_added: str = "X_ae",
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Embed cells with an autoencoder: a compact code instead of principal components.

    The model is that of `aeverse.tl.denoise`; only the code is written.

    Parameters
    ----------
    adata
        Cells x genes with raw counts; sparse, dense, a view, or backed.
    likelihood
        ``"nb"`` or ``"poisson"``.
    regularizer
        ``"denoising"`` thins the molecules of the input while training [Vincent2010]_; None does not.
    layer
        Layer with the counts; None is ``adata.X``.
    mask_var
        Column of ``adata.var`` or boolean array: the genes that the encoder reads. ``"auto"``: ``highly_variable`` where
        present, else the 3,000 most overdispersed genes.
    batch_key
        Column of ``adata.obs``: encoder and decoder are told the batch of a cell, so that the code need not hold it.
    n_latent
        Dimensions of the code of each member.
    n_models
        Members of the ensemble, whose codes stand side by side.
    model
        A fitted `aeverse.models.Autoencoder`, or the path of a saved one, to use instead of training.
    key_added
        Key of the code in ``adata.obsm``.
    random_state, device, progress, copy
        As in `aeverse.tl.denoise`.

    Returns
    -------
    `None`, or the copy. Written are ``obsm[key_added]``, (cells, n_models * n_latent), and ``uns["ae"][key_added]``.

    Raises
    ------
    KeyError, TypeError, ValueError
        As in `aeverse.tl.denoise`; `adata` is then as it was.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.embed(adata)
    >>> adata.obsm["X_ae"].shape
    (700, 32)
    """
    adata = _slots.target(adata, copy)
    _slots.check_keys(adata, [("obsm", key_added)], key_added)
    config = {
        "likelihood": likelihood,
        "regularizer": regularizer,
        "n_latent": n_latent,
        "n_models": n_models,
        "random_state": random_state,
    }
    trained = fitted(
        model, adata, config, layer=layer, mask_var=mask_var, batch_key=batch_key, device=device, progress=progress
    )
    code = trained.encode(adata, layer=layer)
    described = record(trained, adata, {"layer": layer})
    _slots.write(adata, _slots.Results(name=key_added, record=described, obsm={key_added: code}))
    return adata if copy else None
