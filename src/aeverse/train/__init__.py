"""Batches and the training loop, free of AnnData."""

from aeverse.train._heldout import Deviances, split_entries, split_molecules
from aeverse.train._loop import History, Schedule, train
from aeverse.train._samples import Samples
from aeverse.train._state import Checkpoint
from aeverse.train._stored import StoredSamples, in_memory

__all__ = [
    "Checkpoint",
    "Deviances",
    "History",
    "Samples",
    "Schedule",
    "StoredSamples",
    "in_memory",
    "split_entries",
    "split_molecules",
    "train",
]
