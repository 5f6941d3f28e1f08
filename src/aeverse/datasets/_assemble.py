"""Modalities and columns put together as a MuData."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def assemble(modalities: Mapping[str, AnnData], obs: pd.DataFrame) -> MuData:
    """A MuData of modalities, with the columns of `obs` by the names of its observations."""
    from mudata import MuData

    with warnings.catch_warnings():
        # The same gene in several modalities is what a cohort looks like; mudata would have its names made unique.
        for message in ("var_names are not unique", "Cannot join columns with the same name"):
            warnings.filterwarnings("ignore", message, UserWarning)
        warnings.filterwarnings("ignore", category=FutureWarning, module="mudata")  # of its own next release
        mdata = MuData(dict(modalities))
    obs = obs.reindex(mdata.obs_names)
    for column in obs:
        mdata.obs[column] = obs[column]
    return mdata
