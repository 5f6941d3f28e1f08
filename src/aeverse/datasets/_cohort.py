"""A cohort from tables, as cBioPortal, Xena and the GDC export them."""

from __future__ import annotations

import gzip
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots

if TYPE_CHECKING:
    from mudata import MuData

Table: TypeAlias = pd.DataFrame | str | Path

TCGA = re.compile(r"^TCGA[-.][A-Z0-9]{2}[-.][A-Z0-9]{4}", re.IGNORECASE)
# Columns beside the values of a features x samples table; the first that is there names the features.
FEATURE_NAMES = ("hugo_symbol", "gene symbol", "gene_symbol", "gene", "composite.element.ref", "entity_stable_id")
FEATURE_NOTES = ("entrez_gene_id", "locus id", "cytoband", "name", "description", "url", "gene id", "transcript_id")
PATIENT = ("patient_id", "_patient", "bcr_patient_barcode", "case_submitter_id", "submitter_id", "patient id")
SAMPLE = ("sample_id", "sampleid", "sample id", "sample", "tumor_sample_barcode")
SILENT = {
    *("silent", "intron", "3'utr", "5'utr", "3'flank", "5'flank", "igr", "rna", "lincrna"),
    *("synonymous_variant", "intron_variant", "intergenic_variant"),
}
ENDPOINTS = ("OS", "DSS", "DFS", "DFI", "PFS", "PFI")
LONG = {"OS": "overall survival", "DFS": "disease free", "PFS": "progress free survival"}  # as cBioPortal's site has it
DAYS_PER_MONTH = 30.4375


def cohort_from_tables(
    layers: Mapping[str, Table], clinical: Table | Sequence[Table] | None = None, *, maf: Table | None = None
) -> MuData:
    """Make a cohort from one table per layer, clinical tables and mutations in MAF form.

    Tables are data frames or files (TSV or CSV, also gzipped; leading lines that start with ``#`` are skipped). Samples
    may be rows or columns: columns named ``Hugo_Symbol`` and the like, TCGA barcodes, or names that the clinical table
    knows tell which; where nothing tells, rows are samples. Patients are the observations: of TCGA barcodes of any
    length the first 12 characters count, normal tissue is dropped, and of several samples of one patient the primary
    tumour is kept (then the first vial). Of several rows with the same gene symbol the most variable one is kept.

    No patient is dropped because a layer is missing; patients of the clinical table without any layer are.

    Parameters
    ----------
    layers
        Table of each layer by the name that the layer shall have, such as ``{"rna": "data_mrna_seq_v2_rsem.txt"}``.
        Words that say that nothing is known (``NA``, ``[Not Available]``, …) become NaN; other text is refused.
    clinical
        Clinical table, or several (cBioPortal has one of patients and one of samples).
    maf
        Mutations, a row each, with ``Hugo_Symbol``, ``Tumor_Sample_Barcode`` and, if there, ``Variant_Classification``:
        becomes the layer ``"mut"`` of zeros and ones, in which silent mutations do not count. Patients of whom the
        table holds silent mutations only have zeros; of patients whom it does not name nothing is known.

    Returns
    -------
    MuData. ``obs`` holds the clinical columns, as numbers where all values are, else as categories; and ``OS_time``
    (months, float) and ``OS_event`` (1: it happened, 0: censored), likewise for DSS, DFS, DFI, PFS and PFI, made from
    ``OS_MONTHS`` and ``OS_STATUS`` (cBioPortal), ``OS.time`` in days and ``OS`` (Xena), or ``days_to_death``,
    ``days_to_last_followup`` and ``vital_status`` (GDC), unless such columns exist. ``uns["ae"]["cohort"]["dropped"]``
    is a data frame that says for each table what was dropped, how often, and names examples; ``["survival"]`` which
    columns the times come from.

    Raises
    ------
    FileNotFoundError
        A file does not exist.
    KeyError, TypeError, ValueError
        A table is empty, holds text instead of numbers, lacks a column that it needs, or no patient is in any layer.

    Examples
    --------
    >>> import aeverse as ae
    >>> import pandas as pd
    >>> rna = pd.DataFrame(
    ...     {"Hugo_Symbol": ["TP53", "ESR1"], "TCGA-3C-AALI-01": [0.2, 1.5], "TCGA-3C-AALJ-01A-11R": [1.1, 0.3]}
    ... )
    >>> clinical = pd.DataFrame({"PATIENT_ID": ["TCGA-3C-AALI"], "OS_MONTHS": [131.6], "OS_STATUS": ["0:LIVING"]})
    >>> mdata = ae.datasets.cohort_from_tables({"rna": rna}, clinical)
    >>> mdata.obs[["OS_time", "OS_event"]]
                  OS_time  OS_event
    TCGA-3C-AALI    131.6       0.0
    TCGA-3C-AALJ      NaN       NaN
    """
    from mudata import MuData

    if not isinstance(layers, Mapping) or not (layers or maf is not None):
        raise TypeError("layers must be a dict of tables by the name of the layer, such as {'rna': 'expression.tsv'}.")
    if maf is not None and "mut" in layers:
        raise ValueError("layers has a 'mut' already, which is the name of the layer made of maf=; rename it.")
    dropped = _Dropped()
    obs, patient_of = _clinical(clinical, dropped)
    made = {str(name): _layer(str(name), table, obs, patient_of, dropped) for name, table in layers.items()}
    if maf is not None:
        made["mut"] = _mutations(maf, patient_of, dropped)
    patients = pd.Index(dict.fromkeys(p for layer in made.values() for p in layer.obs_names))
    if len(patients) == 0:
        raise ValueError("no layer has a patient.")
    without = obs.index.difference(patients, sort=False)
    dropped.add("clinical", "patients without any layer", without)
    if len(obs) and len(without) == len(obs):
        raise ValueError(
            f"no patient of the clinical table ({list(obs.index[:3])}, …) is in a layer ({list(patients[:3])}, …): do "
            "the identifiers agree?"
        )
    obs, sources = _with_survival(obs.reindex(patients))
    with warnings.catch_warnings():
        # The same gene in several layers is what a cohort looks like; mudata would have its names made unique.
        warnings.filterwarnings("ignore", "var_names are not unique", UserWarning)
        mdata = MuData(made)
    obs = obs.reindex(mdata.obs_names)
    for column in obs:
        mdata.obs[column] = obs[column]
    record = {"dropped": dropped.table(), "survival": sources, "versions": _slots.versions()}
    mdata.uns["ae"] = {"cohort": _slots.writable(record)}
    return mdata


class _Dropped:
    """The report of what was dropped."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int, str]] = []

    def add(self, table: str, what: str, names: Sequence[object] | pd.Index | np.ndarray) -> None:
        if len(names):
            self.rows.append((table, what, len(names), ", ".join(str(n) for n in list(names)[:3])))

    def table(self) -> pd.DataFrame:
        found = pd.DataFrame(self.rows, columns=["table", "what", "count", "examples"])
        return found.astype({"count": int}).set_axis([str(i) for i in range(len(found))], axis=0)


# ---- tables ----------------------------------------------------------------------------------------------------
def _read(table: Table, name: str) -> pd.DataFrame:
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
        frame = frame.reset_index() if _fold(frame.index.name) in _ALL_NAMES else frame
    frame.columns = [str(c).strip() for c in frame.columns]
    return frame


def _header(path: Path) -> tuple[int, str]:
    """Number of leading comment lines, and the line after them."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        for i, line in enumerate(lines):
            if not line.startswith("#"):
                return i, line
    raise ValueError(f"{str(path)!r} holds nothing but comments.")


def _fold(name: object) -> str:
    return str(name).strip().lstrip("#").lower()


_ALL_NAMES = {*FEATURE_NAMES, *FEATURE_NOTES, *PATIENT, *SAMPLE}


def _find(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The first of the names that is a column, in whatever case."""
    folded = {_fold(c): c for c in reversed(frame.columns)}
    return next((folded[name] for name in names if name in folded), None)


def _barcode(name: object) -> str:
    """An identifier as text; TCGA barcodes in capitals and with hyphens, also where R has made them dots."""
    text = str(name).strip()
    return text.replace(".", "-").upper() if TCGA.match(text) else text


def _patient(sample: str, patient_of: Mapping[str, str]) -> str:
    return patient_of.get(sample, sample[:12] if TCGA.match(sample) else sample)


def _one_sample_each(samples: pd.Index, patient_of: Mapping[str, str], table: str, dropped: _Dropped) -> pd.Series:
    """Position of the sample to keep, by patient: tumour before metastasis, then the first vial."""
    barcodes = [_barcode(s) for s in samples]
    kind = [b[13:15] if TCGA.match(b) and len(b) >= 15 else "" for b in barcodes]
    normal = [k.isdigit() and 10 <= int(k) < 20 for k in kind]
    dropped.add(table, "samples of normal tissue", [b for b, n in zip(barcodes, normal, strict=True) if n])
    order = sorted((i for i, n in enumerate(normal) if not n), key=lambda i: (kind[i], barcodes[i][15:], i))
    kept: dict[str, int] = {}
    for i in order:
        kept.setdefault(_patient(barcodes[i], patient_of), i)
    chosen = set(kept.values())
    dropped.add(table, "further samples of a patient", [barcodes[i] for i in sorted(set(order) - chosen)])
    return pd.Series(kept, dtype=int).sort_values()


# ---- layers ----------------------------------------------------------------------------------------------------
def _layer(name: str, table: Table, obs: pd.DataFrame, patient_of: Mapping[str, str], dropped: _Dropped):
    """One layer, patients x features."""
    frame = _samples_in_rows(_read(table, name), name, obs, patient_of, dropped)
    kept = _one_sample_each(frame.index, patient_of, name, dropped)
    frame = frame.iloc[kept.to_numpy()].set_axis(kept.index, axis=0)
    values = _numbers(frame, name)
    empty = np.isnan(values).all(0)
    dropped.add(name, "features without any value", frame.columns[empty])
    blank = np.isnan(values).all(1)
    dropped.add(name, "patients without any value", frame.index[blank])
    values, features = values[~blank][:, ~empty], frame.columns[~empty]
    spread = np.nan_to_num(np.nanvar(values, axis=0)) if len(values) else np.zeros(len(features))
    best = np.argsort(-spread, kind="stable")
    unique = np.sort(best[~features[best].duplicated()])
    dropped.add(name, "rows of a feature that occurs more than once", features[np.setdiff1d(best, unique)])
    if values.size == 0:
        raise ValueError(f"{name}: nothing is left of the table; see that samples and features are named as expected.")
    return _anndata(values[:, unique].astype(np.float32), frame.index[~blank], features[unique])


def _anndata(values, patients: pd.Index, features: pd.Index):
    from anndata import AnnData

    return AnnData(values, obs=pd.DataFrame(index=patients.astype(str)), var=pd.DataFrame(index=features.astype(str)))


def _samples_in_rows(
    frame: pd.DataFrame, name: str, obs: pd.DataFrame, patient_of: Mapping[str, str], dropped: _Dropped
) -> pd.DataFrame:
    """The table turned so that rows are samples, named by them, without columns of notes."""
    known = {*obs.index, *patient_of}

    def share(names: Sequence[object]) -> float:
        barcodes = [_barcode(n) for n in names]
        hits = sum(bool(TCGA.match(b)) or b in known or _patient(b, patient_of) in known for b in barcodes)
        return hits / max(len(barcodes), 1)

    samples_are_columns = share(frame.columns) > 0.5 or (
        _find(frame, FEATURE_NAMES) is not None and _find(frame, (*PATIENT, *SAMPLE)) is None
    )
    if samples_are_columns:
        return _turned(frame, name, dropped)
    key = _find(frame, (*SAMPLE, *PATIENT)) or _first_text(frame)
    if key is not None:
        frame = frame.set_index(key)
    also = [c for c in frame.columns if _fold(c) in (*SAMPLE, *PATIENT)]
    return frame.drop(columns=also)


def _turned(frame: pd.DataFrame, name: str, dropped: _Dropped) -> pd.DataFrame:
    key = _find(frame, (*FEATURE_NAMES, "sample"))  # Xena heads the names of the features "sample"
    entrez = _find(frame, FEATURE_NOTES[:2])
    if key is None:
        key = entrez or _first_text(frame)
    if key is None:
        features = pd.Series(frame.index.astype(str), frame.index)
    else:
        features = _slots.known(frame[key].astype(object))
        if entrez is not None and key != entrez:
            features = features.fillna(frame[entrez].map(lambda v: f"{v:.0f}" if isinstance(v, float) else str(v)))
    notes = [c for c in frame.columns if c == key or _fold(c) in _ALL_NAMES]
    unnamed = _slots.known(features.astype(object)).isna()
    dropped.add(name, "features without a name", features.index[unnamed])
    values = frame.drop(columns=notes)[~unnamed]
    return values.set_axis(features[~unnamed].astype(str).str.strip(), axis=0).T


def _first_text(frame: pd.DataFrame) -> str | None:
    """The first column, if it holds names rather than numbers."""
    first = frame.columns[0]
    values = _slots.known(frame[first])
    return first if pd.to_numeric(values, errors="coerce").notna().sum() < values.notna().sum() else None


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Values as float64, NaN where nothing is known; any other text is refused."""
    try:
        return frame.to_numpy(np.float64)
    except (TypeError, ValueError):  # some text: column by column
        numbers = frame.to_numpy(object)
    values = np.empty(numbers.shape)
    for j in range(numbers.shape[1]):
        column = _slots.known(pd.Series(numbers[:, j], dtype=object))
        values[:, j] = pd.to_numeric(column, errors="coerce")
        broken = column.notna() & np.isnan(values[:, j])
        if broken.any():
            where = f"{frame.columns[j]!r} of {frame.index[broken.argmax()]!r}"
            raise ValueError(
                f"{name}: {where} is {column[broken].iloc[0]!r}, which is no number; remove columns of text."
            )
    return values


def _mutations(maf: Table, patient_of: Mapping[str, str], dropped: _Dropped):
    """Patients x genes, 1 where a mutation that is not silent was found."""
    frame = _read(maf, "mut")
    gene, sample = _find(frame, ("hugo_symbol",)), _find(frame, ("tumor_sample_barcode", *SAMPLE))
    if gene is None or sample is None:
        raise KeyError(
            f"maf has no column Hugo_Symbol or Tumor_Sample_Barcode; columns are: {list(frame.columns)[:12]}."
        )
    barcodes = frame[sample].map(_barcode)
    samples = pd.Index(barcodes.unique())
    kept = _one_sample_each(samples, patient_of, "mut", dropped)
    patient = barcodes.map({samples[i]: p for p, i in kept.items()})
    genes = _slots.known(frame[gene].astype(object))
    counts = patient.notna() & genes.notna()
    variant = _find(frame, ("variant_classification", "effect"))
    if variant is not None:
        silent = frame[variant].astype(str).str.lower().isin(SILENT)
        dropped.add("mut", "silent mutations", genes[counts & silent].dropna())
        counts &= ~silent
    if not counts.any():
        raise ValueError("maf holds no mutation that is not silent.")
    rows = pd.Categorical(patient[counts], kept.index)
    columns = pd.Categorical(genes[counts].astype(str))
    shape = (len(kept), len(columns.categories))
    matrix = sp.coo_matrix((np.ones(counts.sum(), np.float32), (rows.codes, columns.codes)), shape).tocsr()
    matrix.data[:] = 1  # several mutations of a gene
    return _anndata(matrix, pd.Index(kept.index), pd.Index(columns.categories))


# ---- clinical tables -------------------------------------------------------------------------------------------
def _clinical(tables: Table | Sequence[Table] | None, dropped: _Dropped) -> tuple[pd.DataFrame, dict[str, str]]:
    """Clinical columns by patient, and the patient of each sample that the tables name."""
    if tables is None:
        return pd.DataFrame(), {}
    several = [tables] if isinstance(tables, (pd.DataFrame, str, Path)) else list(tables)
    frames = [_read(table, "clinical") for table in several]
    patient_of: dict[str, str] = {}
    for frame in frames:
        patient, sample = _find(frame, PATIENT), _find(frame, SAMPLE)
        if patient is not None and sample is not None:
            patient_of |= dict(zip(frame[sample].map(_barcode), frame[patient].map(_barcode), strict=True))
    obs = pd.DataFrame()
    for frame in frames:
        key = _find(frame, (*PATIENT, *SAMPLE))
        if key is None and isinstance(frame.index, pd.RangeIndex):
            key = _first_text(frame)
            if key is None:
                raise KeyError(f"clinical: no column names the patients; columns are: {list(frame.columns)[:12]}.")
        unnamed = frame.index.isna() if key is None else _slots.known(frame[key]).isna().to_numpy()
        dropped.add("clinical", "rows without a patient", np.flatnonzero(unnamed))
        frame = frame[~unnamed]
        barcodes = pd.Index(frame.index if key is None else frame[key]).map(_barcode)
        sample = _find(frame, SAMPLE)
        ranked = barcodes if sample is None else pd.Index(frame[sample].map(_barcode))
        kept = _one_sample_each(
            ranked, dict(zip(ranked, barcodes.map(lambda b: _patient(b, patient_of)), strict=True)), "clinical", dropped
        )
        frame = frame.drop(columns=[c for c in (key, sample) if c is not None and c != sample])
        frame = frame.iloc[kept.to_numpy()].set_axis(kept.index, axis=0)
        fresh = [c for c in frame.columns if c not in obs.columns]
        obs = frame if obs.empty else obs.join(frame[fresh], how="outer")
    empty = [c for c in obs.columns if _slots.known(obs[c]).isna().all()]
    dropped.add("clinical", "columns without any value", empty)
    return pd.DataFrame({c: _typed(obs[c]) for c in obs.columns if c not in empty}, index=obs.index), patient_of


def _typed(values: pd.Series) -> pd.Series:
    """Numbers where all known values are, else categories."""
    values = _slots.known(values)
    if pd.api.types.is_bool_dtype(values):
        return values
    numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(np.float64)
    if (numbers.notna() == values.notna()).all():
        return numbers
    return values.astype(object).map(lambda v: str(v).strip(), na_action="ignore").astype("category")


def _with_survival(obs: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Add times in months and events as 0 and 1, and say where they come from."""
    sources = {}
    for endpoint in ENDPOINTS:
        low = endpoint.lower()
        if f"{endpoint}_time" in obs or f"{endpoint}_event" in obs:
            continue
        months = _find(obs, (f"{low}_months", f"{LONG.get(endpoint)} (months)"))
        days = _find(obs, (f"{low}.time", f"{low}_days"))
        status = _find(obs, (f"{low}_status", low, f"{LONG.get(endpoint)} status"))
        if status is None and endpoint == "OS":
            status = _find(obs, ("vital_status", "vital_status.demographic"))
        if months is not None:
            time, source = obs[months], months
        elif days is not None:
            time, source = obs[days] / DAYS_PER_MONTH, f"{days} (days)"
        elif endpoint == "OS" and (found := _days_to_last_known(obs)) is not None:
            time, source = found[0] / DAYS_PER_MONTH, f"{found[1]} (days)"
        else:
            continue
        if status is None or not pd.api.types.is_numeric_dtype(time):
            continue
        event = obs[status].astype(object).map(_slots.happened).astype(np.float64)
        obs = obs.assign(**{f"{endpoint}_time": time.astype(np.float64), f"{endpoint}_event": event})
        sources[endpoint] = f"{source}; {status}"
    return obs, sources


def _days_to_last_known(obs: pd.DataFrame) -> tuple[pd.Series, str] | None:
    """Days to death, else to the last follow-up."""
    death = _find(obs, ("days_to_death", "days_to_death.demographic"))
    last = _find(obs, ("days_to_last_followup", "days_to_last_follow_up", "days_to_last_follow_up.diagnoses"))
    found = [c for c in (death, last) if c is not None and pd.api.types.is_numeric_dtype(obs[c])]
    if not found:
        return None
    return obs[found].bfill(axis=1).iloc[:, 0], " or ".join(found)
