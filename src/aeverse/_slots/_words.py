"""Words that say that nothing is known, that an event happened, or that it did not."""

from __future__ import annotations

import numpy as np
import pandas as pd

# What cBioPortal, Xena and the GDC write where a clinical value is unknown.
UNKNOWN = {"", "na", "n/a", "nan", "none", "null", "unknown", "not available", "not applicable", "not evaluated"}
UNKNOWN |= {f"[{word}]" for word in UNKNOWN} | {"[discrepancy]", "[completed]", "not reported", "--", "'--", "<na>"}
EVENT = {"1", "1.0", "true", "yes", "dead", "deceased", "died", "death", "event", "recurred/progressed", "recurred"}
NO_EVENT = {"0", "0.0", "false", "no", "alive", "living", "censored", "no event", "diseasefree", "disease free"}


def unknown_as_nan(values: pd.Series) -> pd.Series:
    """The same values, with NaN for words that say that nothing is known, such as ``"NA"`` or ``"[Not Available]"``."""
    if values.dtype != object and not isinstance(values.dtype, (pd.CategoricalDtype, pd.StringDtype)):
        return values
    unknown = values.astype(object).map(lambda v: isinstance(v, str) and v.strip().lower() in UNKNOWN).astype(bool)
    return values.where(~unknown)


def parse_event(value: object) -> float:
    """1 or 0 for a value that says that an event happened or that the patient was censored, NaN for any other.

    True, 1, ``"Dead"``, ``"DECEASED"``, cBioPortal's ``"1:DECEASED"``; False, 0, ``"Alive"``, ``"0:LIVING"``.
    """
    word = f"{float(value):g}" if isinstance(value, (bool, np.bool_, int, float, np.number)) else str(value)
    word = word.strip().lower()
    word = word[0] if word[:2] in ("0:", "1:") else word
    return 1.0 if word in EVENT else 0.0 if word in NO_EVENT else np.nan
