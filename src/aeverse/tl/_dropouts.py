"""`tl.dropouts`: was a transcript that was not counted missed, or absent?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.models import Autoencoder
from aeverse.tl._fit_or_load import check_save_model, fit_or_load, record, save, warn_of_unused

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def dropouts(
    adata: AnnData,
    *,
    depth: float = 10.0,
    genes: str | Sequence[str] | None = None,
    threshold: float = 0.5,
    layer: str | None = None,
    mask_var: str | np.ndarray | None = "auto",
    batch_key: str | None = None,
    covariates: str | Sequence[str] | None = None,
    model: Autoencoder | str | Path | None = None,
    save_model: str | Path | None = None,
    key_added: str = "dropout_prob",
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """For every zero, the probability that the transcript was there and was missed.

    The probability that an entry without counts would have some if the cell were sequenced to `depth` times its depth,
    given that it has none now: ``1 - (1 + (depth - 1) mu / (theta + mu)) ** -theta``, from the gamma posterior of the
    entry's expression, averaged over what `theta` may be and calibrated by held-out molecules (see `aeverse.tl.denoise`).
    UMI protocols count about a tenth of a cell's transcripts [Svensson2017]_, so that the default depth of 10 asks: is there
    at least one transcript in the cell?

    The definition can be tested: thin the counts to a tenth, and compare with the full data.

    Parameters
    ----------
    adata
        Cells x genes with raw counts.
    depth
        Multiple of the cell's own depth, greater than 1.
    genes
        Keep the probabilities of all zeros of these genes, and of no others.
    threshold
        Without `genes`: keep probabilities from here on; the others are not stored, to keep the layer sparse.
    layer
        Layer with the counts; None is ``adata.X``.
    mask_var, batch_key, covariates
        As in `aeverse.tl.denoise`.
    model
        A fitted `aeverse.models.Autoencoder`, or the path of a saved one, to use instead of training one as
        `aeverse.tl.denoise` does.
    save_model
        Path of a file to save the model to, for `aeverse.models.load` and `model`.
    key_added
        Name of the layer, and prefix of the summaries.
    random_state, device, progress, copy
        As in `aeverse.tl.denoise`.

    Returns
    -------
    `None`, or the copy. Written are

    ``layers[key_added]``
        The probabilities, CSR, (cells, genes); nothing where there are counts.
    ``var[key_added + "_mean"]``
        Mean over the zeros of the gene, stored or not: the share of them that were probably missed (NaN without zeros,
        and for genes that are not among `genes`).
    ``obs[key_added + "_mean"]``
        Mean over the zeros of the cell (among `genes`).
    ``uns["ae"][key_added]``
        Parameters, versions, training history and the model (`aeverse.get.model`).

    Raises
    ------
    KeyError, TypeError, ValueError
        As in `aeverse.tl.denoise`; `adata` is then as it was.

    Notes
    -----
    Ctrl-C and worker processes: as in `aeverse.tl.denoise`.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.dropouts(adata)
    >>> bool((adata.layers["dropout_prob"].multiply(adata.X)).nnz == 0)
    True
    """
    params = _slots.parameters(locals())
    check_save_model(save_model)
    warn_of_unused(dropouts, locals(), ("mask_var", "batch_key", "covariates"))
    adata = _slots.writable_adata(adata, copy)
    summary = f"{key_added}_mean"
    _slots.check_keys(adata, [("layers", key_added), ("var", summary), ("obs", summary)], key_added)
    if genes is not None:
        genes = _slots.name_list(genes)
        _slots.positions(genes, adata.var_names)
    config = {
        "likelihood": "nb",  # counts of 0 and 1 only would be taken for mutations
        "random_state": random_state,
        "share_calibration": 0.0,
    }
    fit: dict[str, Any] = {"layer": layer, "mask_var": mask_var, "batch_key": batch_key, "covariates": covariates}
    trained = fit_or_load(Autoencoder, model, adata, config, **fit, device=device, progress=progress)
    selection = _slots.known_features(adata, trained.var_names) if genes is None else genes
    columns = np.arange(adata.n_vars) if selection is None else _slots.positions(selection, adata.var_names)
    values, by_gene, by_cell = trained.dropouts(
        adata, depth=depth, threshold=threshold if genes is None else 0.0, layer=layer, genes=selection
    )
    by_gene = _slots.scatter_values(by_gene, columns, adata.n_vars)
    save(trained, save_model)
    _slots.write(
        adata,
        _slots.Results(
            name=key_added,
            record=record(trained, adata, {**params, "genes": genes}, fit),
            layers={key_added: values if selection is None else _slots.scatter_columns(values, columns, adata.n_vars)},
            var={summary: by_gene},
            obs={summary: by_cell},
        ),
    )
    return adata if copy else None
