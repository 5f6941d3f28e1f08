"""`tl.protein_foreground`: which protein counts are more than background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aeverse import _slots, models
from aeverse._arguments import checked
from aeverse.models._joint._background import foreground

if TYPE_CHECKING:
    from mudata import MuData


@checked
def protein_foreground(
    mdata: MuData,
    *,
    modality: str | None = None,
    layer: str | None = None,
    use_rep: str | None = None,
    key_added: str = "foreground_prob",
    copy: bool = False,
) -> MuData | None:
    """Distinguish the protein counts of a cell from those of ambient antibody, by a probability for every count.

    The counts of each protein are a mixture of two negative binomials, background and foreground, as in totalVI
    [Gayoso2021]_. The expected share of foreground in a cell is learned from the cells most like it: a count that is
    neither low nor high is judged by its neighbors.

    Parameters
    ----------
    mdata
        Holds raw counts of proteins (antibody-derived tags).
    modality
        The one with the proteins; None: the only one whose values look like protein counts.
    layer
        Layer of that modality with the counts; None: ``X``.
    use_rep
        Key of an embedding in ``mdata.obsm`` that shows which cells are alike, such as ``"X_ae"``; None: the significant
        principal components of the proteins themselves.
    key_added
        Name of the layer.
    copy
        Return a copy instead of writing to `mdata`.

    Returns
    -------
    `None`, or the copy. Written are

    ``mdata[modality].layers[key_added]``
        Probability that the count is foreground, (cells, proteins), float32; NaN where nothing was measured.
    ``mdata[modality].var[key_added + "_background"]``, ``mdata[modality].var[key_added + "_mean"]``
        Mean count of the background and of the foreground, molecules. Where the two are close, the protein has no
        foreground to speak of (or no background).
    ``mdata[modality].uns["ae"][key_added]``
        Parameters and versions.

    Raises
    ------
    KeyError, TypeError, ValueError
        The modality, layer or embedding does not exist, or values are no counts. `mdata` is then as it was.

    Examples
    --------
    >>> import numpy as np, anndata as ad, mudata as md, aeverse as ae
    >>> rng = np.random.default_rng(0)
    >>> carries = rng.random((200, 6)) < 0.4
    >>> counts = rng.poisson(np.where(carries, 80.0, 4.0)).astype("float32")
    >>> mdata = md.MuData({"prot": ad.AnnData(counts)})
    >>> ae.tl.protein_foreground(mdata)
    >>> bool(((mdata["prot"].layers["foreground_prob"] > 0.5) == carries).mean() > 0.99)
    True
    """
    params = _slots.parameters(locals())
    mdata = _slots.writable_mudata(mdata, copy)
    name = _protein_modality(mdata, modality, layer)
    adata = mdata[name]
    columns = [f"{key_added}_background", f"{key_added}_mean"]
    _slots.check_keys(adata, [("layers", key_added), *(("var", c) for c in columns)], key_added)
    d = _slots.read_modalities(mdata, [name], {name: layer}, {name: None})[name]
    counts = _slots.dense(d.x)
    _slots.check_count_values(counts[np.isfinite(counts)], adata, layer)
    code = None if use_rep is None else _slots.read_code(mdata, use_rep)[d.rows]
    probability, means = foreground(counts, d.names, code)
    estimates = np.full(adata.shape, np.nan, np.float32)
    estimates[adata.obs_names.get_indexer(mdata.obs_names[d.rows])] = probability
    record = {"params": {**params, "modality": name}, "versions": _slots.versions()}
    results = _slots.Results(
        key_added, record, layers={key_added: estimates}, var=dict(zip(columns, means.astype(np.float32), strict=True))
    )
    _slots.write(adata, results)
    return mdata if copy else None


def _protein_modality(mdata, modality: str | None, layer: str | None) -> str:
    """The modality named, or the only one that holds protein counts."""
    if modality is not None:
        if modality not in mdata.mod:
            raise KeyError(f"modality={modality!r} is not there; the modalities are {list(mdata.mod)}.")
        return modality
    data = _slots.read_modalities(
        mdata, None, {m: layer for m, a in mdata.mod.items() if layer in _slots.layer_names(a)}
    )
    kinds = models.kinds_of(data, "auto")
    proteins = [m for m, kind in kinds.items() if kind == "protein"]
    if len(proteins) != 1:
        raise ValueError(
            f"need one modality of protein counts, found {proteins} among {kinds}; name it with modality=."
        )
    return proteins[0]
