"""Tables of patients and features: reading, finding columns, naming samples, and the report of what was dropped."""

from __future__ import annotations

import gzip
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from aeverse import _slots

Table: TypeAlias = pd.DataFrame | str | Path
TCGA = re.compile(r"^TCGA[-.][A-Z0-9]{2}[-.][A-Z0-9]{4}", re.IGNORECASE)
# Columns beside the values of a features x samples table; the first that is there names the features.
FEATURE_NAMES = ("hugo_symbol", "gene symbol", "gene_symbol", "gene", "composite.element.ref", "entity_stable_id")
FEATURE_NOTES = ("entrez_gene_id", "locus id", "cytoband", "name", "description", "url", "gene id", "transcript_id")
PATIENT = ("patient_id", "_patient", "bcr_patient_barcode", "case_submitter_id", "submitter_id", "patient id")
SAMPLE = ("sample_id", "sampleid", "sample id", "sample", "tumor_sample_barcode")
ALL_NAMES = {*FEATURE_NAMES, *FEATURE_NOTES, *PATIENT, *SAMPLE}


class Dropped:
    """The report of what was dropped."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int, str]] = []

    def add(self, table: str, what: str, names: Sequence[object] | pd.Index | np.ndarray) -> None:
        if len(names):
            self.rows.append((table, what, len(names), ", ".join(str(n) for n in list(names)[:3])))

    def table(self) -> pd.DataFrame:
        frame = pd.DataFrame(self.rows, columns=["table", "what", "count", "examples"])
        return frame.astype({"count": int}).set_axis([str(i) for i in range(len(frame))], axis=0)


def read_table(table: Table, name: str) -> pd.DataFrame:
    """A table as text and numbers; text that says that nothing is known is NaN."""
    if isinstance(table, pd.DataFrame):
        frame = table.copy()
    else:
        path = Path(table)
        if not path.exists():
            raise FileNotFoundError(f"{name}: {str(path)!r} does not exist.")
        skipped, header = _header(path)
        separator = max("\t,;", key=header.count)
        with warnings.catch_warnings():
            # Columns of numbers and words are what we are here for; low_memory=False would take four times as long.
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            frame = pd.read_csv(path, sep=separator, skiprows=skipped, skip_blank_lines=False)
        frame = frame.dropna(how="all")
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise ValueError(f"{name}: the table is empty, {frame.shape[0]} rows and {frame.shape[1]} columns.")
    if not isinstance(frame.index, pd.RangeIndex) and frame.index.name is not None:
        frame = frame.reset_index() if fold_name(frame.index.name) in ALL_NAMES else frame
    frame.columns = [str(c).strip() for c in frame.columns]
    return frame


def _header(path: Path) -> tuple[int, str]:
    """Number of leading comment lines, and the line after them."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        for i, line in enumerate(lines):
            if not line.startswith("#"):
                return i, line
    raise ValueError(f"{str(path)!r} holds nothing but comments.")


def fold_name(name: object) -> str:
    return str(name).strip().lstrip("#").lower()


def find_column(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The first of the names that is a column, in whatever case."""
    folded = {fold_name(c): c for c in reversed(frame.columns)}
    return next((folded[name] for name in names if name in folded), None)


def first_text(frame: pd.DataFrame) -> str | None:
    """The first column, if it holds names rather than numbers, and the index holds none."""
    first = frame.columns[0]
    if not isinstance(frame.index, pd.RangeIndex):
        return None
    if (frame.columns == first).sum() > 1:  # samples, of which others are dropped later, not names
        return None
    values = _slots.unknown_as_nan(frame[first])
    return first if pd.to_numeric(values, errors="coerce").notna().sum() < values.notna().sum() else None


def barcode(name: object) -> str:
    """An identifier as text; TCGA barcodes in capitals and with hyphens, also where R has made them dots."""
    text = str(name).strip()
    return text.replace(".", "-").upper() if TCGA.match(text) else text


def patient_of_sample(sample: str, patient_of: Mapping[str, str]) -> str:
    return patient_of.get(sample, sample[:12] if TCGA.match(sample) else sample)


def one_sample_each(samples: pd.Index, patient_of: Mapping[str, str], table: str, dropped: Dropped) -> pd.Series:
    """Position of the sample to keep, by patient: tumor before metastasis, then the first vial."""
    barcodes = [barcode(s) for s in samples]
    kind = [b[13:15] if TCGA.match(b) and len(b) >= 15 else "" for b in barcodes]
    normal = [k.isdigit() and 10 <= int(k) < 20 for k in kind]
    dropped.add(table, "samples of normal tissue", [b for b, n in zip(barcodes, normal, strict=True) if n])
    order = sorted((i for i, n in enumerate(normal) if not n), key=lambda i: (kind[i], barcodes[i][15:], i))
    sample_of_patient: dict[str, int] = {}
    for i in order:
        sample_of_patient.setdefault(patient_of_sample(barcodes[i], patient_of), i)
    chosen = set(sample_of_patient.values())
    dropped.add(table, "further samples of a patient", [barcodes[i] for i in sorted(set(order) - chosen)])
    return pd.Series(sample_of_patient, dtype=int).sort_values()
