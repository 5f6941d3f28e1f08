"""Tools: one call each, from a data object to results in it."""

from aeverse.tl._denoise import denoise
from aeverse.tl._embed import embed

__all__ = ["denoise", "embed"]
