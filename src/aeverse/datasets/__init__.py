"""Data sets with raw counts, and simulators that know the truth."""

from aeverse.datasets._bundled import pbmc68k_counts
from aeverse.datasets._simulate import simulate_counts

__all__ = ["pbmc68k_counts", "simulate_counts"]
