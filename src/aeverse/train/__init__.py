"""Batches and the training loop, free of AnnData."""

from aeverse.train._heldout import Deviances, split_entries, split_molecules
from aeverse.train._loop import Schedule, train
from aeverse.train._samples import Samples

__all__ = ["Deviances", "Samples", "Schedule", "split_entries", "split_molecules", "train"]
