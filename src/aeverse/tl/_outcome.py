"""What is known of patients: times, events, and the names of their groups."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aeverse import _slots


def require_lifelines() -> None:
    try:
        import lifelines  # noqa: F401
    except ImportError as error:
        raise ImportError('tl.survival needs lifelines, which is an extra: pip install "aeverse[survival]".') from error


def outcome(obs: pd.DataFrame, time_key: str, event_key: str) -> tuple[pd.Series, pd.Series, dict[str, int]]:
    """Time and event, both NaN for patients who cannot be used, and how many those are."""
    time, event = _times(obs, time_key), _events(obs, event_key)
    no_time, no_event = time.isna(), event.isna()
    not_positive = time <= 0
    usable = ~(no_time | no_event | not_positive)
    counts = {
        "used": int(usable.sum()),
        "events": int(event[usable].sum()),
        "time_missing": int(no_time.sum()),
        "event_missing": int((no_event & ~no_time).sum()),
        "time_not_positive": int((not_positive & ~no_event).sum()),
    }
    if counts["used"] == 0:
        raise ValueError(
            f"no patient of {len(obs)} can be used: {counts['time_missing']} lack a time, {counts['event_missing']} an event, and "
            f"the time of {counts['time_not_positive']} is zero or negative; look at obs[{time_key!r}] and obs[{event_key!r}]."
        )
    if counts["events"] == 0:
        raise ValueError(f"no events: obs[{event_key!r}] is nowhere true among {counts['used']} patients with a time.")
    if counts["used"] < len(obs):
        _slots.warn(
            f"{len(obs) - counts['used']} of {len(obs)} patients are left out: {counts['time_missing']} lack a time, "
            f"{counts['event_missing']} an event, and the time of {counts['time_not_positive']} is zero or negative."
        )
    return time.where(usable), event.where(usable), counts


def _times(obs: pd.DataFrame, key: str) -> pd.Series:
    values = _slots.unknown_as_nan(_slots.read_column(obs, key))
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        raise TypeError(f"obs[{key!r}] holds {values.dtype}, not times; pass a number of days, months or years.")
    if pd.api.types.is_timedelta64_dtype(values):
        return values.dt.total_seconds() / 86_400
    numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(np.float64)
    broken = values.notna() & ~np.isfinite(numbers)
    if broken.any():
        raise TypeError(f"obs[{key!r}] holds {values[broken].iloc[0]!r}, which is no time; convert it to numbers.")
    return numbers


def _events(obs: pd.DataFrame, key: str) -> pd.Series:
    values = _slots.unknown_as_nan(_slots.read_column(obs, key))
    events = values.astype(object).map(_slots.parse_event, na_action="ignore").astype(np.float64)
    broken = values.notna() & events.isna()
    if broken.any():
        examples = sorted({str(v) for v in values[broken]})[:4]
        raise ValueError(
            f"obs[{key!r}] holds {examples}, which say neither event nor censored; use True and False, 1 and 0, or words "
            "such as 'Dead' and 'Alive'."
        )
    return events


def names_in_order(values: pd.Series) -> list[str]:
    """Names of the groups that occur: categories in their own order, others sorted."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [str(v) for v in values.cat.remove_unused_categories().cat.categories]
    return [str(v) for v in sorted(values.dropna().unique())]
