"""What every method of `aeverse.methods` returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fitted:
    """A fitted method: the codes of the data that it was fitted to, and a way to those of new data.

    ``code``: float32 (samples, dimensions). ``settings``: what was taken, for ``uns["ae"]``. ``encode``: new data of
    the same form to their codes; None where the method is transductive, so that it knows no samples but its own.
    """

    code: np.ndarray
    settings: dict[str, Any]
    encode: Callable[..., np.ndarray] | None = None
