"""Clinical tables: columns by patient, times in months and events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.datasets._tables import (
    PATIENT,
    SAMPLE,
    Dropped,
    Table,
    barcode,
    find_column,
    first_text,
    one_sample_each,
    patient_of_sample,
    read_table,
)

ENDPOINTS = ("OS", "DSS", "DFS", "DFI", "PFS", "PFI")
LONG = {"OS": "overall survival", "DFS": "disease free", "PFS": "progress free survival"}  # as cBioPortal's site has it
DAYS_PER_MONTH = 30.4375


def read_clinical(tables: Table | Sequence[Table] | None, dropped: Dropped) -> tuple[pd.DataFrame, dict[str, str]]:
    """Clinical columns by patient, and the patient of each sample that the tables name."""
    if tables is None:
        return pd.DataFrame(), {}
    several = [tables] if isinstance(tables, (pd.DataFrame, str, Path)) else list(tables)
    frames = [read_table(table, "clinical") for table in several]
    patient_of: dict[str, str] = {}
    for frame in frames:
        patient, sample = find_column(frame, PATIENT), find_column(frame, SAMPLE)
        if patient is not None and sample is not None:
            patient_of |= dict(zip(frame[sample].map(barcode), frame[patient].map(barcode), strict=True))
    obs = pd.DataFrame()
    for frame in frames:
        key = find_column(frame, (*PATIENT, *SAMPLE))
        if key is None and isinstance(frame.index, pd.RangeIndex):
            key = first_text(frame)
            if key is None:
                raise KeyError(f"clinical: no column names the patients; columns are: {list(frame.columns)[:12]}.")
        unnamed = frame.index.isna() if key is None else _slots.unknown_as_nan(frame[key]).isna().to_numpy()
        dropped.add("clinical", "rows without a patient", np.flatnonzero(unnamed))
        frame = frame[~unnamed]
        barcodes = pd.Index(frame.index if key is None else frame[key]).map(barcode)
        sample = find_column(frame, SAMPLE)
        ranked = barcodes if sample is None else pd.Index(frame[sample].map(barcode))
        sample_of_patient = one_sample_each(
            ranked,
            dict(zip(ranked, barcodes.map(lambda b: patient_of_sample(b, patient_of)), strict=True)),
            "clinical",
            dropped,
        )
        frame = frame.drop(columns=[c for c in (key, sample) if c is not None and c != sample])
        frame = frame.iloc[sample_of_patient.to_numpy()].set_axis(sample_of_patient.index, axis=0)
        fresh = [c for c in frame.columns if c not in obs.columns]
        obs = frame if obs.empty else obs.join(frame[fresh], how="outer")
    empty = [c for c in obs.columns if _slots.unknown_as_nan(obs[c]).isna().all()]
    dropped.add("clinical", "columns without any value", empty)
    return pd.DataFrame({c: _typed(obs[c]) for c in obs.columns if c not in empty}, index=obs.index), patient_of


def _typed(values: pd.Series) -> pd.Series:
    """Numbers where all known values are, else categories."""
    values = _slots.unknown_as_nan(values)
    if pd.api.types.is_bool_dtype(values):
        return values
    numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(np.float64)
    if (numbers.notna() == values.notna()).all():
        return numbers
    return values.astype(object).map(lambda v: str(v).strip(), na_action="ignore").astype("category")


def with_survival(obs: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Add times in months and events as 0 and 1, and say where they come from."""
    sources = {}
    for endpoint in ENDPOINTS:
        low = endpoint.lower()
        if f"{endpoint}_time" in obs or f"{endpoint}_event" in obs:
            continue
        months = find_column(obs, (f"{low}_months", f"{LONG.get(endpoint)} (months)"))
        days = find_column(obs, (f"{low}.time", f"{low}_days"))
        status = find_column(obs, (f"{low}_status", low, f"{LONG.get(endpoint)} status"))
        if status is None and endpoint == "OS":
            status = find_column(obs, ("vital_status", "vital_status.demographic"))
        if months is not None:
            time, source = obs[months], months
        elif days is not None:
            time, source = obs[days] / DAYS_PER_MONTH, f"{days} (days)"
        elif endpoint == "OS" and (last_known := _days_to_last_known(obs)) is not None:
            time, source = last_known[0] / DAYS_PER_MONTH, f"{last_known[1]} (days)"
        else:
            continue
        if status is None or not pd.api.types.is_numeric_dtype(time):
            continue
        event = obs[status].astype(object).map(_slots.parse_event).astype(np.float64)
        obs = obs.assign(**{f"{endpoint}_time": time.astype(np.float64), f"{endpoint}_event": event})
        sources[endpoint] = f"{source}; {status}"
    return obs, sources


def _days_to_last_known(obs: pd.DataFrame) -> tuple[pd.Series, str] | None:
    """Days to death, else to the last follow-up."""
    death = find_column(obs, ("days_to_death", "days_to_death.demographic"))
    last = find_column(obs, ("days_to_last_followup", "days_to_last_follow_up", "days_to_last_follow_up.diagnoses"))
    columns = [c for c in (death, last) if c is not None and pd.api.types.is_numeric_dtype(obs[c])]
    if not columns:
        return None
    return obs[columns].bfill(axis=1).iloc[:, 0], " or ".join(columns)
