"""A simulated cohort of patients whose subtypes, drivers and hazards are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aeverse._arguments import checked
from aeverse.datasets._assemble import assemble

if TYPE_CHECKING:
    from mudata import MuData

N_GENES, N_SEGMENTS, GENES_PER_SEGMENT, N_MUTATED = 400, 40, 5, 30
SUBTYPES = ("A", "B", "C", "D")
SHARES = (0.35, 0.3, 0.2, 0.15)
HAZARD_RATIOS = np.array([1.0, 1.0, 2.0, 4.0])  # against subtype A
HAZARD_OF_TEN_YEARS, MEAN_MONTHS, MONTHS_OF_STUDY = 1.3, 180.0, 120.0


@checked
def simulate_cohort(n_obs: int = 300, *, random_state: int = 0) -> MuData:
    """Simulate tumors of four subtypes: expression, copy number and mutations, with survival.

    Subtypes differ in the expression of a tenth of the genes each, in copy number of three segments of the genome, and in
    how often three genes are mutated. Expression follows the copy number of its gene, and two programs that have nothing to
    do with subtypes (such as infiltrating cells). A third of the patients has no copy number. The hazard of death depends on
    the subtype (A and B: 1, C: 2, D: 4) and on age; stage depends on neither.

    Parameters
    ----------
    n_obs
        Patients.
    random_state
        Seed.

    Returns
    -------
    MuData with ``rna`` (n_obs x 400, log expression), ``cnv`` (two thirds of the patients x 200, from -2 to 2) and ``mut``
    (n_obs x 30, 0 or 1). ``var["driver_of"]`` of each modality names the subtype that a feature helps to make, or is
    empty. ``obs`` holds ``true_subtype``, ``age``, ``stage``, ``OS_time`` (months) and ``OS_event``.

    See Also
    --------
    aeverse.datasets.cohort_from_tables : a cohort from tables of real patients.
    aeverse.tl.subtypes, aeverse.tl.survival, aeverse.tl.associations

    Examples
    --------
    >>> import aeverse as ae
    >>> mdata = ae.datasets.simulate_cohort(90)
    >>> {name: modality.shape for name, modality in mdata.mod.items()}
    {'rna': (90, 400), 'cnv': (60, 200), 'mut': (90, 30)}
    """
    from anndata import AnnData

    rng = np.random.default_rng(random_state)
    subtype = rng.choice(len(SUBTYPES), size=n_obs, p=SHARES)
    patients = pd.Index([f"patient {i}" for i in range(n_obs)])
    cnv, cnv_drivers = _copy_number(subtype, rng)
    rna, rna_drivers = _expression(subtype, cnv, rng)
    mut, mut_drivers = _mutations(subtype, rng)
    measured = np.sort(rng.permutation(n_obs)[: -(-2 * n_obs // 3)])

    def modality(values: np.ndarray, drivers: np.ndarray, rows: np.ndarray) -> AnnData:
        var = pd.DataFrame({"driver_of": pd.Categorical(drivers)}, index=[f"G{g}" for g in range(len(drivers))])
        return AnnData(values[rows].astype(np.float32), obs=pd.DataFrame(index=patients[rows]), var=var)

    everybody = np.arange(n_obs)
    modalities = {
        "rna": modality(rna, rna_drivers, everybody),
        "cnv": modality(cnv, cnv_drivers, measured),
        "mut": modality(mut, mut_drivers, everybody),
    }
    return assemble(modalities, _clinical(subtype, patients, rng))


def _copy_number(subtype: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whole segments of neighboring genes are gained or lost: three by each subtype, others now and then."""
    chosen = rng.permutation(N_SEGMENTS)[: 3 * len(SUBTYPES)].reshape(len(SUBTYPES), 3)
    change = np.where(rng.random((len(subtype), N_SEGMENTS)) < 0.08, rng.choice([-1, 1], (len(subtype), N_SEGMENTS)), 0)
    drivers = np.full(N_SEGMENTS, "", object)
    for s, segments in enumerate(chosen):
        drivers[segments] = SUBTYPES[s]
        rows = np.flatnonzero(subtype == s)
        state = np.where(rng.random((len(rows), 3)) < 0.6, rng.choice([1, 2], (len(rows), 3)), 0)
        change[np.ix_(rows, segments)] = state * np.array([1, 1, -1])
    return np.repeat(change, GENES_PER_SEGMENT, axis=1), np.repeat(drivers, GENES_PER_SEGMENT)


def _expression(subtype: np.ndarray, cnv: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Log expression: the subtype's genes, copy number of the genes that have it, two other programs, and noise."""
    drivers = np.full(N_GENES, "", object)
    shift = np.zeros((len(SUBTYPES), N_GENES))
    free = np.arange(cnv.shape[1], N_GENES)  # genes without copy number, so that each has one reason
    for s, genes in enumerate(np.array_split(rng.permutation(free)[: N_GENES * 4 // 10], len(SUBTYPES))):
        drivers[genes] = SUBTYPES[s]
        shift[s, genes] = rng.choice([-1.0, 1.0], len(genes))
    programs = rng.normal(size=(len(subtype), 2)) @ (
        rng.normal(0, 0.6, (2, N_GENES)) * (rng.random((2, N_GENES)) < 0.3)
    )
    values = rng.normal(7, 1.5, N_GENES) + shift[subtype] + programs + rng.normal(size=(len(subtype), N_GENES))
    values[:, : cnv.shape[1]] += 0.5 * cnv
    return values, drivers


def _mutations(subtype: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    probability = np.tile(rng.uniform(0.02, 0.1, N_MUTATED), (len(SUBTYPES), 1))
    drivers = np.full(N_MUTATED, "", object)
    for s, genes in enumerate(rng.permutation(N_MUTATED)[: 3 * len(SUBTYPES)].reshape(len(SUBTYPES), 3)):
        drivers[genes] = SUBTYPES[s]
        probability[s, genes] = 0.35
    return rng.random((len(subtype), N_MUTATED)) < probability[subtype], drivers


def _clinical(subtype: np.ndarray, patients: pd.Index, rng: np.random.Generator) -> pd.DataFrame:
    """Age, stage and survival; follow-up ends at the end of the study or earlier."""
    age = rng.normal(60, 11, len(subtype)).clip(25, 90).round()
    hazard = HAZARD_RATIOS[subtype] * HAZARD_OF_TEN_YEARS ** ((age - 60) / 10)
    death = rng.exponential(MEAN_MONTHS, len(subtype)) / hazard
    last_seen = rng.uniform(12, MONTHS_OF_STUDY, len(subtype))
    return pd.DataFrame(
        {
            "true_subtype": pd.Categorical.from_codes(subtype, list(SUBTYPES)),
            "age": age,
            "stage": pd.Categorical(rng.choice(["I", "II", "III", "IV"], len(subtype), p=[0.3, 0.35, 0.25, 0.1])),
            "OS_time": np.minimum(death, last_seen).round(1).clip(0.1),
            "OS_event": (death <= last_seen).astype(int),
        },
        index=patients,
    )
