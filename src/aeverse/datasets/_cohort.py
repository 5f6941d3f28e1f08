"""A cohort from tables, as cBioPortal, Xena and the GDC export them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse._arguments import check_name, checked
from aeverse.datasets._assemble import assemble
from aeverse.datasets._clinical import read_clinical, with_survival
from aeverse.datasets._tables import (
    ALL_NAMES,
    FEATURE_NAMES,
    FEATURE_NOTES,
    PATIENT,
    SAMPLE,
    TCGA,
    Dropped,
    Table,
    barcode,
    find_column,
    first_text,
    fold_name,
    one_sample_each,
    patient_of_sample,
    read_table,
)

if TYPE_CHECKING:
    from mudata import MuData

SILENT = {
    *("silent", "intron", "3'utr", "5'utr", "3'flank", "5'flank", "igr", "rna", "lincrna"),
    *("synonymous_variant", "intron_variant", "intergenic_variant"),
}


@checked
def cohort_from_tables(
    modalities: Mapping[str, Table], clinical: Table | Sequence[Table] | None = None, *, maf: Table | None = None
) -> MuData:
    """Make a cohort from one table per modality, clinical tables and mutations in MAF form.

    Tables are data frames or files (TSV or CSV, also gzipped; leading lines that start with ``#`` are skipped). Samples
    may be rows or columns: columns named ``Hugo_Symbol`` and the like, TCGA barcodes, or names that the clinical table
    knows decide which; where nothing decides, rows are samples. Patients are the observations: of TCGA barcodes of any
    length the first 12 characters count, normal tissue is dropped, and of several samples of one patient the primary
    tumor is kept (then the first vial). Of several rows with the same gene symbol the most variable one is kept.

    No patient is dropped because a modality is missing; patients of the clinical table without any modality are.

    Parameters
    ----------
    modalities
        Table of each modality by the name that the modality shall have, such as ``{"rna": "data_mrna_seq_v2_rsem.txt"}``.
        Words that say that nothing is known (``NA``, ``[Not Available]``, …) become NaN; other text is refused.
    clinical
        Clinical table, or several (cBioPortal has one of patients and one of samples).
    maf
        Mutations, a row each, with ``Hugo_Symbol``, ``Tumor_Sample_Barcode`` and, if there, ``Variant_Classification``:
        becomes the modality ``"mut"`` of zeros and ones, in which silent mutations do not count. Patients of whom the
        table holds silent mutations only have zeros; of patients whom it does not name nothing is known.

    Returns
    -------
    MuData. ``obs`` holds the clinical columns, as numbers where all values are, else as categories; and ``OS_time``
    (months, float) and ``OS_event`` (1: it happened, 0: censored), likewise for DSS, DFS, DFI, PFS and PFI, made from
    ``OS_MONTHS`` and ``OS_STATUS`` (cBioPortal), ``OS.time`` in days and ``OS`` (Xena), or ``days_to_death``,
    ``days_to_last_followup`` and ``vital_status`` (GDC), unless such columns exist. ``uns["ae"]["cohort"]["dropped"]``
    is a data frame that lists for each table what was dropped, how often, and names examples; ``["survival"]`` which
    columns the times come from.

    Raises
    ------
    FileNotFoundError
        A file does not exist.
    KeyError, TypeError, ValueError
        A table is empty, holds text instead of numbers, does not have a column that it needs, or no patient is in any table.

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
    if not modalities and maf is None:
        raise ValueError(
            "modalities is empty; pass a dict of tables by the name of the modality, such as {'rna': 'expression.tsv'}."
        )
    for name in modalities:
        check_name("modalities", name)
    if maf is not None and "mut" in modalities:
        raise ValueError("modalities has a 'mut' already, which is the name of the modality made of maf=; rename it.")
    dropped = Dropped()
    obs, patient_of = read_clinical(clinical, dropped)
    assembled = {str(name): _modality(str(name), table, obs, patient_of, dropped) for name, table in modalities.items()}
    if maf is not None:
        assembled["mut"] = _mutations(maf, patient_of, dropped)
    patients = pd.Index(dict.fromkeys(p for one in assembled.values() for p in one.obs_names))
    if len(patients) == 0:
        raise ValueError("no modality has a patient.")
    without = obs.index.difference(patients, sort=False)
    dropped.add("clinical", "patients without any modality", without)
    if len(obs) and len(without) == len(obs):
        raise ValueError(
            f"no patient of the clinical table ({list(obs.index[:3])}, …) is in a modality ({list(patients[:3])}, …): do "
            "the identifiers agree?"
        )
    obs, sources = with_survival(obs.reindex(patients))
    mdata = assemble(assembled, obs)
    record = {"dropped": dropped.table(), "survival": sources, "versions": _slots.versions()}
    mdata.uns["ae"] = {"cohort": _slots.writable(record)}
    return mdata


def _modality(name: str, table: Table, obs: pd.DataFrame, patient_of: Mapping[str, str], dropped: Dropped):
    """One modality, patients x features."""
    frame = _samples_in_rows(read_table(table, name), name, obs, patient_of, dropped)
    sample_of_patient = one_sample_each(frame.index, patient_of, name, dropped)
    frame = frame.iloc[sample_of_patient.to_numpy()].set_axis(sample_of_patient.index, axis=0)
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
    frame: pd.DataFrame, name: str, obs: pd.DataFrame, patient_of: Mapping[str, str], dropped: Dropped
) -> pd.DataFrame:
    """The table turned so that rows are samples, named by them, without columns of notes."""
    sample_names = {*obs.index, *patient_of}

    def share(names: Sequence[object]) -> float:
        barcodes = [barcode(n) for n in names]
        hits = sum(
            bool(TCGA.match(b)) or b in sample_names or patient_of_sample(b, patient_of) in sample_names
            for b in barcodes
        )
        return hits / max(len(barcodes), 1)

    samples_are_columns = share(frame.columns) > 0.5 or (
        find_column(frame, FEATURE_NAMES) is not None and find_column(frame, (*PATIENT, *SAMPLE)) is None
    )
    if samples_are_columns:
        return _named_samples(_turned(frame, name, dropped), name, dropped)
    key = find_column(frame, (*SAMPLE, *PATIENT)) or first_text(frame)
    if key is not None:
        frame = frame.set_index(key)
    also = [c for c in frame.columns if fold_name(c) in (*SAMPLE, *PATIENT)]
    frame = frame.drop(columns=also)
    unnamed = _slots.unknown_as_nan(pd.Series(frame.columns, dtype=object)).isna().to_numpy()
    dropped.add(name, "features without a name", np.flatnonzero(unnamed))
    return _named_samples(frame.loc[:, ~unnamed], name, dropped)


def _named_samples(frame: pd.DataFrame, name: str, dropped: Dropped) -> pd.DataFrame:
    """The rows whose sample has a name."""
    unnamed = _slots.unknown_as_nan(pd.Series(frame.index, dtype=object)).isna().to_numpy()
    dropped.add(name, "samples without a name", np.flatnonzero(unnamed))
    return frame[~unnamed]


def _turned(frame: pd.DataFrame, name: str, dropped: Dropped) -> pd.DataFrame:
    key = find_column(frame, (*FEATURE_NAMES, "sample"))  # Xena heads the names of the features "sample"
    entrez = find_column(frame, FEATURE_NOTES[:2])
    if key is None:
        key = entrez or first_text(frame)
    if key is None:
        features = pd.Series(frame.index.astype(str), frame.index)
    else:
        features = _slots.unknown_as_nan(frame[key].astype(object))
        if entrez is not None and key != entrez:
            features = features.fillna(frame[entrez].map(lambda v: f"{v:.0f}" if isinstance(v, float) else str(v)))
    notes = [c for c in frame.columns if c == key or fold_name(c) in ALL_NAMES]
    unnamed = _slots.unknown_as_nan(features.astype(object)).isna()
    dropped.add(name, "features without a name", features.index[unnamed])
    values = frame.drop(columns=notes)[~unnamed]
    return values.set_axis(features[~unnamed].astype(str).str.strip(), axis=0).T


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Values as float64, NaN where nothing is known; any other text and infinite values are refused."""
    values = _as_numbers(frame, name)
    if (infinite := np.argwhere(np.isinf(values))).size:
        sample, feature = infinite[0]
        where = f"{frame.columns[feature]!r} of {frame.index[sample]!r}"
        raise ValueError(f"{name}: {where} is infinite; leave empty what is missing.")
    return values


def _as_numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    try:
        return frame.to_numpy(np.float64)
    except (TypeError, ValueError):  # some text: column by column
        numbers = frame.to_numpy(object)
    values = np.empty(numbers.shape)
    for j in range(numbers.shape[1]):
        column = _slots.unknown_as_nan(pd.Series(numbers[:, j], dtype=object))
        values[:, j] = pd.to_numeric(column, errors="coerce")
        broken = column.notna() & np.isnan(values[:, j])
        if broken.any():
            where = f"{frame.columns[j]!r} of {frame.index[broken.argmax()]!r}"
            raise ValueError(
                f"{name}: {where} is {column[broken].iloc[0]!r}, which is no number; remove columns of text."
            )
    return values


def _mutations(maf: Table, patient_of: Mapping[str, str], dropped: Dropped):
    """Patients x genes, 1 where a mutation that is not silent was found."""
    frame = read_table(maf, "mut")
    gene, sample = find_column(frame, ("hugo_symbol",)), find_column(frame, ("tumor_sample_barcode", *SAMPLE))
    if gene is None or sample is None:
        raise KeyError(
            f"maf has no column Hugo_Symbol or Tumor_Sample_Barcode; columns are: {list(frame.columns)[:12]}."
        )
    barcodes = frame[sample].map(barcode)
    samples = pd.Index(barcodes.unique())
    sample_of_patient = one_sample_each(samples, patient_of, "mut", dropped)
    patient = barcodes.map({samples[i]: p for p, i in sample_of_patient.items()})
    genes = _slots.unknown_as_nan(frame[gene].astype(object))
    counts = patient.notna() & genes.notna()
    variant = find_column(frame, ("variant_classification", "effect"))
    if variant is not None:
        silent = frame[variant].astype(str).str.lower().isin(SILENT)
        dropped.add("mut", "silent mutations", genes[counts & silent].dropna())
        counts &= ~silent
    if not counts.any():
        raise ValueError("maf holds no mutation that is not silent.")
    rows = pd.Categorical(patient[counts], sample_of_patient.index)
    columns = pd.Categorical(genes[counts].astype(str))
    shape = (len(sample_of_patient), len(columns.categories))
    matrix = sp.coo_matrix((np.ones(counts.sum(), np.float32), (rows.codes, columns.codes)), shape).tocsr()
    matrix.data[:] = 1  # several mutations of a gene
    return _anndata(matrix, pd.Index(sample_of_patient.index), pd.Index(columns.categories))
