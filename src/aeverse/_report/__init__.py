"""One self-contained page about a command that was run: how well it did, pictures, what was done."""

from aeverse._report._html import Run
from aeverse._report._matrix import heldout_deviance_explained, read_scores
from aeverse._report._page import page

__all__ = ["Run", "heldout_deviance_explained", "page", "read_scores"]
