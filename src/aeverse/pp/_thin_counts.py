"""`pp.thin_counts`: split molecules into two independent parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.train import split_molecules

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def thin_counts(
    adata: AnnData,
    p: float = 0.5,
    *,
    layer: str | None = None,
    key_added: str = "thinned",
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Split the molecules of every entry at random into two parts (binomial thinning, count splitting).

    If a count is Poisson given the cell's true expression, the two parts are independent given that truth: what is
    learned from one part can be judged on the other (molecular cross-validation) [Batson2019]_, [Neufeld2024]_.

    Parameters
    ----------
    adata
        Cells x genes with raw counts.
    p
        Share of the molecules that go to the first part, between 0 and 1.
    layer
        Layer with the counts; `None` is ``adata.X``.
    key_added
        Names the results.
    random_state
        Seed.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    `None`, or the copy. Written are ``layers[key_added]`` (a share `p` of the molecules),
    ``layers[key_added + "_rest"]`` (the rest; both CSR, float32, their sum is the input) and ``uns["ae"][key_added]``.

    Raises
    ------
    ValueError
        `p` is not between 0 and 1, the matrix does not hold counts, or a layer of that name exists that aeverse did not
        write.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.pp.thin_counts(adata, 0.9)
    >>> bool((adata.layers["thinned"] + adata.layers["thinned_rest"] != adata.X).nnz == 0)
    True
    """
    adata = _slots.writable_adata(adata, copy)
    _slots.check_keys(adata, [("layers", key_added), ("layers", f"{key_added}_rest")], key_added)
    first, second = split_molecules(_slots.read_counts(adata, layer), p, np.random.default_rng(random_state))
    _slots.write(
        adata,
        _slots.Results(
            name=key_added,
            record={"params": {"p": p, "layer": layer, "random_state": random_state}, "versions": _slots.versions()},
            layers={key_added: first, f"{key_added}_rest": second},
        ),
    )
    return adata if copy else None
