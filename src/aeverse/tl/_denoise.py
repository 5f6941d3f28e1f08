"""`tl.denoise`: expected counts, from the cell's own molecules and from what cells like it look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aeverse import _runtime, _slots
from aeverse._arguments import checked
from aeverse.models import Autoencoder
from aeverse.tl._fit_or_load import check_save_model, fit_or_load, record, save, warn_of_unused

if TYPE_CHECKING:
    from anndata import AnnData

LARGEST_SHARE, BYTES_PER_VALUE = 0.5, 4  # of the available memory for dense layers; of a value in them
LOG_SUM = 1e4  # counts of a cell whose logarithm is taken, as in scanpy's tutorials
FEW_CELLS = 50  # below which a warning is due
NOTHING_TO_GIVE = 0.005  # deviance explained below which denoising hardly changes anything


@checked
def denoise(
    adata: AnnData,
    *,
    likelihood: Literal["nb", "poisson"] = "nb",
    regularizer: Literal["denoising"] | None = "denoising",
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    batch_key: str | None = None,
    covariates: str | Sequence[str] | None = None,
    genes: str | Sequence[str] | None = None,
    target_sum: float | None = None,
    log1p: bool = False,
    transform_batch: str | None = None,
    n_latent: int = 32,
    n_models: int = 3,
    uncertainty: bool = False,
    lazy: bool | Literal["auto"] = "auto",
    model: Autoencoder | str | Path | None = None,
    save_model: str | Path | None = None,
    key_added: str = "denoised",
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Denoise UMI counts with an autoencoder and a count likelihood.

    An autoencoder learns which expression profiles occur in the data. Its mean `mu` is the prior of a gamma-Poisson
    (negative binomial) model, and the denoised value is the posterior mean ``mu (theta + x) / (theta + mu)`` given the
    cell's own count `x`: where the gene varies more than the model can tell (small dispersion `theta`) the count itself
    is believed, elsewhere the model. `theta` depends on the gene, its level and the cell, and for genes with a few
    unusually high counts also on the entry. Held-out molecules correct values that are too high or too low on average. DCA [Eraslan2019]_ and
    scVI [Lopez2018]_ report `mu`; SAVER-X [Wang2019]_ reports a posterior around an autoencoder's mean, as here. Molecules
    that were held out [Batson2019]_ choose among the weights that training went through.

    A model that an earlier call trained on the same counts with the same parameters is used again, not trained again.

    Denoised values of different cells are not independent measurements: use them to look at genes, not for tests of
    differential expression.

    Parameters
    ----------
    adata
        Cells x genes with raw counts; sparse, dense, a view, or backed.
    likelihood
        ``"nb"`` (negative binomial with gene-wise dispersions) or ``"poisson"``, for training.
    regularizer
        ``"denoising"`` thins the molecules of the input while training; None does not.
    layer
        Layer with the counts; None is ``adata.X``. ``adata.raw`` is never used.
    mask_var
        Column of ``adata.var`` or boolean array: the genes that the encoder reads. ``"auto"``: ``highly_variable`` where
        present, else the 3,000 most overdispersed genes; None: all. All genes are denoised.
    batch_key
        Column of ``adata.obs``: encoder and decoder are given the batch of a cell, so that the embedding need not hold it.
    covariates
        Further columns of ``adata.obs`` that encoder and decoder are given: categories (text, truth values), such as
        ``"donor"``, and numbers, such as ``"percent_mito"``. See `aeverse.tl.embed`.
    genes
        Denoise only these genes: the layer is then sparse and empty in all other columns (`aeverse.get.denoised` decodes
        them when asked).
    target_sum
        What the values of a cell add up to over all genes: None for the cell's own library size (expected counts), 1e4
        for counts per 10,000.
    log1p
        Write ``log1p`` of the denoised values, of counts per 10,000 where `target_sum` is None: the scale on which scanpy
        draws expression, so that ``sc.pl.umap(adata, color="CCR7", layer="denoised")`` and `scanpy.pl.dotplot` show what they
        should. Without it, a few cells with many molecules take up the whole range of colors. A second call with another
        `key_added` writes this layer beside the one with counts, and trains nothing.
    transform_batch
        With `batch_key` or `covariates`: denoise as if every cell came from this batch, or from the ``"average"``
        one, and were average in all other covariates. What the cell's own counts say beyond what the decoder expects with its
        own covariates is kept. None: each cell has its own.
    n_latent
        Dimensions of the latent space of each member.
    n_models
        Members of the ensemble whose means are averaged.
    uncertainty
        Also write the posterior standard deviations, and the sampling noise of the embedding.
    lazy
        True: the layers are dask arrays, and a block of cells is decoded when it is asked for. They go through scanpy's
        functions that know dask and through ``write_h5ad`` and ``write_zarr`` without ever being in memory as a whole. They hold
        a copy of the counts, so that changing ``X`` later changes nothing. Needs dask: ``pip install "aeverse[scale]"``.
        ``"auto"``: where the layers would take more than half of the memory that is available, which a warning says, and
        where the counts are too many to be read whole from a file.
    model
        A fitted `aeverse.models.Autoencoder`, or the path of a saved one, to use instead of training; genes are matched
        by name, and the layer is sparse and empty for those that the model does not know. The parameters that describe a
        model are then ignored.
    save_model
        Path of a file to save the model to, for `aeverse.models.load` and `model`.
    key_added
        Name of the layer and prefix of the column in ``adata.var``.
    random_state
        Seed. The same seed gives the same result on a CPU; global random states are not touched.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, … A fitted `model` is moved there; ``"auto"`` leaves an estimator where it is.
    progress
        Show a progress bar; None: on a terminal or in a notebook.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    `None`, or the copy. Written are

    ``layers[key_added]``
        Posterior mean of the expected counts, (cells, genes), float32; a dask array where `lazy`; its ``log1p`` with
        `log1p`.
    ``layers[key_added + "_sd"]``
        With ``uncertainty=True``: standard deviation of the expression given the count, of the gamma posterior and the
        spread of the members together, on the scale of ``layers[key_added]``.
    ``obsm["X_ae"]``
        The embedding, (cells, n_models * n_latent): for `scanpy.pp.neighbors` with ``use_rep="X_ae"``. One unit is about one
        standard deviation of sampling noise.
    ``obsm["X_ae_sd"]``
        With ``uncertainty=True``: standard deviation of each value of the embedding if the cell's molecules were drawn anew.
    ``var[key_added + "_deviance_explained"]``
        Share of the Poisson deviance of each gene's held-out molecules that is explained beyond the gene's mean
        (NaN without held-out molecules). Not written where `model` is given.
    ``uns["ae"][key_added]``
        Parameters, versions, training history and the model (`aeverse.get.model`).

    Raises
    ------
    KeyError, TypeError, ValueError
        Something named does not exist, the matrix does not hold counts, or a result would overwrite what aeverse did not
        write. `adata` is then as it was.
    ImportError
        ``lazy=True`` without dask.

    Notes
    -----
    Ctrl-C before training has judged a model by held-out data raises KeyboardInterrupt, and the object is as it was. Later,
    training ends with a warning, and *the call goes on* with the best model so far: a script then runs on. Where other code has
    used several threads of PyTorch, a forked process can hang; start worker processes with
    ``multiprocessing.get_context("spawn")``. See :doc:`/promises`.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> adata.layers["denoised"].shape
    (700, 765)
    """
    params = _slots.parameters(locals())
    check_save_model(save_model)
    described = ("regularizer", "mask_var", "batch_key", "covariates")
    warn_of_unused(denoise, locals(), described)
    adata = _slots.writable_adata(adata, copy)
    column = f"{key_added}_deviance_explained"
    layers = [key_added, f"{key_added}_sd"] if uncertainty else [key_added]
    embeddings = ["X_ae", "X_ae_sd"] if uncertainty else ["X_ae"]
    keys = [*(("layers", name) for name in layers), *(("obsm", name) for name in embeddings)]
    keys += [("var", column)] if model is None else []
    _slots.check_keys(adata, keys, key_added)
    params["target_sum"] = target_sum = _scale(target_sum, log1p, uncertainty)
    if genes is not None:
        genes = _slots.name_list(genes)
        _slots.positions(genes, adata.var_names)
    n_values = len(layers) * adata.n_obs * (adata.n_vars if genes is None else len(genes))
    goes_lazy = _goes_lazy(lazy, n_values, _slots.stored_counts(adata, layer) is not None)
    config = {
        "likelihood": likelihood,
        "regularizer": regularizer,
        "n_latent": n_latent,
        "n_models": n_models,
        "random_state": random_state,
        "share_calibration": 0.0,  # nobody will map a query with this model, so that no sample need be kept out for it
    }
    fit: dict[str, Any] = {"layer": layer, "mask_var": mask_var, "batch_key": batch_key, "covariates": covariates}
    trained = fit_or_load(Autoencoder, model, adata, config, **fit, device=device, progress=progress)
    if model is None:
        _warn_of_little(trained.heldout_deviance_explained, adata.n_obs)
    code = trained.encode(adata, layer=layer)
    selection = _slots.known_features(adata, trained.var_names) if genes is None else genes
    options: dict[str, Any] = {"target_sum": target_sum, "transform_batch": transform_batch, "return_sd": uncertainty}
    expression = trained.denoise(adata, layer=layer, genes=selection, code=code, lazy=goes_lazy, **options)
    values = list(expression) if isinstance(expression, tuple) else [np.log1p(expression) if log1p else expression]
    if selection is not None and (genes is not None or values[0].shape[1] < adata.n_vars):
        columns = _slots.positions(selection, adata.var_names)
        values = [_slots.scatter_columns(v, columns, adata.n_vars) for v in values]
    sd = {"X_ae_sd": trained.encode(adata, layer=layer, return_sd=True)[1]} if uncertainty else {}
    save(trained, save_model)
    _slots.write(
        adata,
        _slots.Results(
            name=key_added,
            record=record(trained, adata, {**params, "genes": genes}, fit, code),
            layers=dict(zip(layers, values, strict=True)),
            obsm={"X_ae": code, **sd},
            var={column: trained.deviance_explained} if model is None else {},
        ),
    )
    return adata if copy else None


def _warn_of_little(explained: float | None, n_cells: int) -> None:
    """Warn where there are too few cells to learn from, or there is nothing to learn."""
    if n_cells < FEW_CELLS:
        _slots.warn(
            f"{n_cells} cells are too few to learn how genes go together (at least {FEW_CELLS}, better some hundreds): "
            "the denoised values are hardly more than the counts and the means."
        )
    if explained is not None and explained < NOTHING_TO_GIVE:
        _slots.warn(
            f"denoising explains {explained:.3f} of the held-out deviance beyond the gene means: "
            "there is little structure in these counts, and the denoised values will be close to the means."
        )


def _scale(target_sum: float | None, log1p: bool, uncertainty: bool) -> float | None:
    """What the values of a cell add up to: a logarithm needs cells of one size."""
    if log1p and uncertainty:
        raise ValueError(
            "uncertainty=True gives standard deviations of counts, not of their logarithm: use log1p=False."
        )
    return LOG_SUM if log1p and target_sum is None else target_sum


def _goes_lazy(lazy: bool | Literal["auto"], n_values: int, on_disk: bool) -> bool:
    """Whether layers of so many values become dask arrays; says so where the user did not ask for it."""
    if lazy is True:
        _runtime.import_dask_array("lazy=True")
    if lazy != "auto":
        return bool(lazy)
    size, available = n_values * BYTES_PER_VALUE, _runtime.available_memory()
    if size <= LARGEST_SHARE * available:
        return on_disk and _runtime.has_dask()
    needs = f"the denoised values would take {size / 1e9:.1f} GB, with {available / 1e9:.1f} GB of memory available"
    if not _runtime.has_dask():
        _slots.warn(f'{needs}: pip install "aeverse[scale]" for lazy=True, or name genes=.')
        return False
    _slots.warn(f"{needs}: the layer is a dask array, decoded block by block (lazy=False for a dense one).")
    return True
