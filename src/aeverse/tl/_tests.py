"""What the statistical tools share: columns of ``obs``, and corrections for many tests."""

from __future__ import annotations

import numpy as np
import pandas as pd


def column(obs: pd.DataFrame, key: str) -> pd.Series:
    """Column `key` of ``obs``, or an error that names the columns there are."""
    if key not in obs:
        raise KeyError(f"{key!r} is not a column of obs; columns are: {list(obs.columns)}.")
    return obs[key]


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction: the chance of any false discovery is bounded."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's correction: the share of false discoveries is bounded."""
    order = np.argsort(p)[::-1]
    adjusted = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]
