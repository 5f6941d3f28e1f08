"""Preparation: look at counts before a model does, and split them."""

from aeverse.pp._check_counts import check_counts
from aeverse.pp._thin_counts import thin_counts

__all__ = ["check_counts", "thin_counts"]
