"""What the statistical tools share: columns of ``obs`` with their missing values, and corrections for many tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

# What cBioPortal, Xena and the GDC write where a value is unknown.
MISSING = {"", "na", "n/a", "nan", "none", "null", "unknown", "not available", "not applicable", "not evaluated"}
MISSING |= {f"[{word}]" for word in MISSING} | {"[discrepancy]", "[completed]", "not reported", "--", "'--", "<na>"}


def column(obs: pd.DataFrame, key: str) -> pd.Series:
    """Column `key` of ``obs``, or an error that names the columns there are."""
    if key not in obs:
        raise KeyError(f"{key!r} is not a column of obs; columns are: {list(obs.columns)}.")
    return obs[key]


def known(values: pd.Series) -> pd.Series:
    """The same values, with NaN for words that say that nothing is known, such as ``"NA"`` or ``"[Not Available]"``."""
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return values
    if pd.api.types.is_timedelta64_dtype(values):
        return values
    unknown = values.astype(object).map(lambda v: isinstance(v, str) and v.strip().lower() in MISSING).astype(bool)
    return values.where(~unknown)


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
