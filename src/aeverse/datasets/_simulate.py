"""Simulated counts whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse._arguments import checked

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def simulate_counts(
    n_obs: int = 1000,
    n_vars: int = 500,
    *,
    n_types: int = 5,
    library_size: float = 1000.0,
    dispersion: float = 5.0,
    share_absent: float = 0.3,
    random_state: int = 0,
) -> AnnData:
    """Simulate negative binomial counts of cell types, in which some genes are truly absent from some types.

    Gene frequencies are log-normal; each type changes them by log-normal folds and switches a share of the genes off
    (structural zeros). Cells differ in library size (log-normal), and within a type by a continuous program.

    Parameters
    ----------
    n_obs, n_vars
        Cells and genes.
    n_types
        Number of cell types.
    library_size
        Median number of molecules of a cell.
    dispersion
        theta of every gene; the variance is ``mu + mu**2 / theta``.
    share_absent
        Share of the (type, gene) pairs whose expression is zero.
    random_state
        Seed.

    Returns
    -------
    AnnData with counts in ``X`` (CSR), the gamma-distributed true rate of every entry at the cell's library size in
    ``layers["rate"]``, its mean in ``layers["mean"]``, ``obs["cell_type"]`` and ``obs["program"]``.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(100, 50)
    >>> bool((adata.X[adata.layers["rate"] == 0] == 0).all())
    True
    """
    from anndata import AnnData

    rng = np.random.default_rng(random_state)
    base = rng.lognormal(0, 1.5, n_vars)
    folds = rng.lognormal(0, 0.8, (n_types, n_vars)) * (rng.random((n_types, n_vars)) >= share_absent)
    folds[:, 0] = 1.0  # so that no type is empty
    types = rng.integers(n_types, size=n_obs)
    program, loadings = rng.normal(size=n_obs), rng.normal(0, 0.5, n_vars) * (rng.random(n_vars) < 0.2)
    mean = base * folds[types] * np.exp(np.outer(program, loadings))
    mean *= rng.lognormal(np.log(library_size), 0.4, n_obs)[:, None] / mean.sum(1, keepdims=True)
    rate = rng.gamma(dispersion, mean / dispersion)
    return AnnData(
        sp.csr_matrix(rng.poisson(rate), dtype=np.float32),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical([f"type {t}" for t in types]), "program": program},
            index=[f"cell {i}" for i in range(n_obs)],
        ),
        var=pd.DataFrame(index=[f"gene {g}" for g in range(n_vars)]),
        layers={"rate": rate.astype(np.float32), "mean": mean.astype(np.float32)},
    )
