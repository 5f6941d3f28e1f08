"""Batches and the training loop, free of AnnData."""

from aeverse.train._loop import Schedule, train
from aeverse.train._samples import Samples
from aeverse.train._split import split_entries, split_molecules

__all__ = ["Samples", "Schedule", "split_entries", "split_molecules", "train"]
