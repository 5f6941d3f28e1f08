"""`tl.embed`: the embedding of an autoencoder, or of what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from aeverse import _slots, methods, models
from aeverse._arguments import checked
from aeverse.models import Autoencoder
from aeverse.models._shared._kinds import kind_for
from aeverse.tl._fit_or_load import check_save_model, fit_or_load, record, refuse_unused, save, warn_of_unused

if TYPE_CHECKING:
    from anndata import AnnData


ACTIVE_VARIANCE = 0.01  # of the means of a variational dimension, above which it is in use


@checked
def embed(
    adata: AnnData,
    *,
    method: Literal["ae", "pca", "kernel_pca", "scvi"] = "ae",
    likelihood: Literal["auto", "nb", "poisson", "gaussian", "bernoulli", "fractions"] = "auto",
    regularizer: str | Sequence[str] | None = "auto",
    decoder: Literal["linear", "mlp"] = "linear",
    gene_sets: Mapping[str, Any] | pd.DataFrame | None = None,
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    batch_key: str | None = None,
    covariates: str | Sequence[str] | None = None,
    label_key: str | None = None,
    n_latent: int | None = None,
    n_models: int | None = None,
    uncertainty: bool = False,
    model: Autoencoder | str | Path | None = None,
    save_model: str | Path | None = None,
    key_added: str = "X_ae",
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Embed samples in the latent space of an autoencoder (its literature calls it the code), not in principal components.

    For raw counts, the model and its embedding are those of `aeverse.tl.denoise`: one unit is about one standard deviation of
    sampling noise, and populations are round, so that `scanpy.tl.leiden` leaves them whole at its default resolution. Other
    values (expression on a log scale, copy numbers, drug responses, methylation, mutations) get the likelihood that suits
    them; entries that are NaN are left out of what is learned, never filled in. :doc:`/family` shows what each regularizer
    does to the embedding.

    Parameters
    ----------
    adata
        Samples x features; sparse, dense, a view, or backed.
    method
        ``"ae"``, or for comparison ``"pca"`` [Pearson1901]_, ``"kernel_pca"`` (RBF kernel
        [Schoelkopf1998]_, approximated for many samples [Williams2001]_) or ``"scvi"`` (raw counts [Lopez2018]_), each on a
        copy with its own recommended settings. They take `n_latent`, `likelihood`, `layer`, `mask_var`, `random_state`;
        scVI also takes `batch_key`. Options of the autoencoder are refused.
    likelihood
        ``"nb"`` or ``"poisson"`` (raw counts), ``"gaussian"`` (continuous; standardized inside), ``"bernoulli"`` (0 and
        1), ``"fractions"`` (0 to 1; Gaussian on the logit [Du2010]_). ``"auto"`` infers the likelihood from the values, records
        it in ``uns["ae"][key_added]["params"]``, and logs it (logger ``"aeverse"``, and scanpy's at verbosity 2).
    regularizer
        None for a plain undercomplete autoencoder [Hinton2006]_, or one or several of ``"sparse"`` (few units of the
        embedding are active in a sample [Olshausen1996]_), ``"contractive"`` (the embedding changes little where the data do not vary
        [Rifai2011]_), ``"denoising"`` (molecules are thinned, entries hidden while training [Vincent2010]_),
        ``"variational"`` (a distribution to draw new samples from [Kingma2014]_), ``"graph"`` (the embedding predicts
        where a sample lies in the neighbor graph [Mishne2019]_). ``"auto"`` is ``"denoising"``.
    decoder
        ``"linear"``: its weights are loadings. ``"mlp"``: with a hidden layer, and no loadings.
    gene_sets
        Pathways, one dimension of the embedding each, that reach their own genes only: a dict from names to genes, or a table
        with the columns ``source``, ``target`` and perhaps ``weight``, as decoupler has them. Needs the linear decoder.
    layer
        Layer to read; None is ``adata.X``.
    mask_var
        Column of ``adata.var`` or boolean array: the features that the encoder reads. ``"auto"``: ``highly_variable`` where
        present, else the 3,000 most overdispersed genes of counts, and all features of other values. None: all.
    batch_key
        Column of ``adata.obs``: encoder and decoder are given the batch of a sample, so that the embedding need not hold it, and
        samples that match (mutual nearest neighbors [Haghverdi2018]_) are brought together, but not with ``"sparse"`` or
        `gene_sets`, where the values of single dimensions mean something. A type that one batch lacks has no match, and
        stays apart.
    covariates
        Further columns of ``adata.obs`` whose effect the embedding should not hold; encoder and decoder are given them, too.
        Categories (text, truth values), such as ``"donor"``, are treated as batches are, one column after the other. Of
        numbers, such as ``"percent_mito"``, the slope within populations is taken out. Missing values are refused. Store
        numbers that are names, such as plate 1, 2, 3, as text.
    label_key
        Of raw counts: column of ``adata.obs`` with types that are known, missing (NaN, ``"unknown"``) where they are not. What
        varies within them, beyond sampling noise, is shortened in the embedding, as it otherwise is within communities that are
        found, so that cells of one type lie together, also those without a label (linear discriminant analysis [Fisher1936]_
        in units of noise). The network does not see them. For `aeverse.tl.denoise` with this embedding, pass it
        ``model=ae.get.model(adata)``.
    n_latent
        Dimensions of the latent space of each member; None: 32, or one for each gene set.
    n_models
        Members of the ensemble, whose embeddings stand side by side; None: 3 for counts (1 with `gene_sets`), else 1.
    uncertainty
        Of raw counts: also write the sampling noise of each cell's place, for which each cell is encoded twelve times.
    model
        A fitted `aeverse.models.Autoencoder`, or the path of a saved one, to use instead of training. The parameters that
        describe a model are then ignored.
    save_model
        Path of a file to save the model to, for `aeverse.models.load` and `model`.
    key_added
        Key of the embedding in ``adata.obsm``.
    random_state, device, progress, copy
        As in `aeverse.tl.denoise`.

    Returns
    -------
    `None`, or the copy. Written are

    ``obsm[key_added]``
        The embedding, (samples, n_models * n_latent), float32; of a variational autoencoder the posterior mean, never a draw.
    ``obsm[key_added + "_sd"]``
        With ``uncertainty=True``: standard deviation of each value of the embedding if the cell's molecules were drawn anew,
        float32; NaN for a cell without molecules. The deeper the cell, the smaller.
    ``varm["ae_loadings"]``
        With a linear decoder (beside an embedding of another name than ``"X_ae"``: ``key_added + "_loadings"``, without a
        leading ``"X_"``; likewise below): how each dimension moves each feature, (features, n_models * n_latent), as scanpy's
        ``varm["PCs"]``; NaN for features that the model does not know.
    ``obs["ae_active"]``
        With ``"sparse"``: the share of the units that are active in the sample.
    ``uns["ae"][key_added]``
        Parameters as they were taken, versions, training history, ``deviance_explained`` of the held-out molecules or
        entries, the model (`aeverse.get.model`); with `gene_sets` their names (``code_names``), with ``"variational"`` how many units are in
        use (``active_units`` [Burda2016]_).

    Raises
    ------
    KeyError, TypeError, ValueError
        Something named does not exist, the values are not what the likelihood needs, or a result would overwrite what
        aeverse did not write. `adata` is then as it was.

    Notes
    -----
    Ctrl-C and worker processes: as in `aeverse.tl.denoise`.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.embed(adata, n_models=1)
    >>> adata.obsm["X_ae"].shape, adata.varm["ae_loadings"].shape
    ((700, 32), (765, 32))

    Without what donors and the share of mitochondrial counts do to it:

    >>> import numpy as np
    >>> adata = ae.datasets.simulate_counts(300, 100)
    >>> adata.obs["donor"] = np.tile(["d1", "d2", "d3"], 100)
    >>> adata.obs["percent_mito"] = np.random.default_rng(0).gamma(4, 1, 300)
    >>> ae.tl.embed(adata, n_models=1, covariates=["donor", "percent_mito"])
    >>> ae.get.model(adata, key="X_ae").covariates
    ['donor', 'percent_mito']

    With types that are known for some of the cells:

    >>> adata.obs["known"] = adata.obs["cell_type"].astype(object).where(np.arange(300) % 2 == 0)
    >>> ae.tl.embed(adata, n_models=1, label_key="known", key_added="X_types")
    """
    params = _slots.parameters(locals())
    check_save_model(save_model)
    kind = None if likelihood == "auto" else kind_for(likelihood)
    describing = ("regularizer", "decoder", "gene_sets", "n_models", "uncertainty")
    if method != "ae":
        batches = () if methods.MATRIX[method].takes_batches else ("batch_key",)
        refuse_unused(
            embed, locals(), (*describing, "covariates", "label_key", "model", "save_model", "device", *batches), method
        )
    trains = ("regularizer", "decoder", "gene_sets", "mask_var", "batch_key", "covariates", "label_key")
    warn_of_unused(embed, locals(), trains)
    adata = _slots.writable_adata(adata, copy)
    fit: dict[str, Any] = {"layer": layer, "mask_var": mask_var, "batch_key": batch_key, "progress": progress}
    fit |= {"covariates": covariates, "label_key": label_key}
    if method == "ae":
        config = {
            "likelihood": likelihood,
            "regularizer": regularizer,
            "decoder": decoder,
            "gene_sets": gene_sets,
            "n_latent": n_latent,
            "n_models": n_models,
            "random_state": random_state,
            "share_calibration": 0.0,  # nobody will map a query with this model
        }
        results = _autoencoded(
            adata, model, config, {**fit, "device": device}, key_added, uncertainty, params, save_model
        )
    else:
        options = {**fit, "n_latent": n_latent, "random_state": random_state}
        results = _compared(adata, method, kind, options, key_added, params)
    _slots.write(adata, results)
    return adata if copy else None


def _autoencoded(adata, model, config, fit, key_added: str, uncertainty: bool, params, save_model) -> _slots.Results:
    """The embedding of an autoencoder, and what is reported beside it."""
    loadings, active = (_slots.side_key(key_added, suffix) for suffix in ("loadings", "active"))
    keys = [("obsm", key_added), ("varm", loadings), ("obs", active)]
    _slots.check_keys(adata, keys + ([("obsm", f"{key_added}_sd")] if uncertainty else []), key_added)
    trained = fit_or_load(Autoencoder, model, adata, config, **fit)
    code = trained.encode(adata, layer=fit["layer"])
    described = record(trained, adata, params, fit, code)
    results = _slots.Results(name=key_added, record=described, obsm={key_added: code})
    if uncertainty:
        results.obsm[f"{key_added}_sd"] = trained.encode(adata, layer=fit["layer"], return_sd=True)[1]
    if trained.settings.decoder == "linear":
        results.varm[loadings] = _in_order(trained.loadings(), adata.var_names)
    if "sparse" in trained.settings.regularizers:
        results.obs[active] = trained.active_share(code)
    if "variational" in trained.settings.regularizers:
        described["active_units"] = int((code.var(0) > ACTIVE_VARIANCE).sum())  # their means vary
    save(trained, save_model)
    return results


def _compared(adata, method: str, kind: str | None, options, key_added: str, params) -> _slots.Results:
    """The embedding of one of `aeverse.methods`."""
    _slots.check_keys(adata, [("obsm", key_added)], key_added)
    d = _slots.as_modality(adata, options["layer"], options["mask_var"])
    kind = models.kind_of(d.x, d.names) if kind is None else kind
    fitted = methods.MATRIX[method](
        {"X": d},
        {"X": kind},
        n_obs=adata.n_obs,
        batches=_slots.read_categories(adata, options["batch_key"]),
        **{name: options[name] for name in ("n_latent", "random_state", "progress")},
    )
    described = {"params": {**params, **fitted.settings}, "kind": kind, "versions": _slots.versions()}
    return _slots.Results(name=key_added, record=described, obsm={key_added: fitted.code})


def _in_order(loadings: pd.DataFrame, names: pd.Index) -> np.ndarray:
    """SparseRows of the loadings in the order of `names`, NaN for names that the model does not know."""
    names = names.astype(str)
    return (loadings if names.equals(loadings.index) else loadings.reindex(names)).to_numpy(np.float32)
