"""Data sets with raw counts, and simulators that know the truth."""

from aeverse.datasets._bundled import pbmc68k_counts
from aeverse.datasets._cohort import cohort_from_tables
from aeverse.datasets._simulate import simulate_counts
from aeverse.datasets._simulate_citeseq import simulate_citeseq
from aeverse.datasets._simulate_cohort import simulate_cohort

__all__ = ["cohort_from_tables", "pbmc68k_counts", "simulate_citeseq", "simulate_cohort", "simulate_counts"]
