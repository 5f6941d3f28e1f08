"""Background of protein counts: the mixture, with neighbors that say what to expect of a cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse.models._shared._kinds import Protein
from aeverse.models._shared._views import View
from aeverse.nn import foreground_probability, nearest

N_NEIGHBORS = 15


def foreground(counts: np.ndarray, names: pd.Index, code: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Probability of foreground (cells, proteins), and means of background and foreground.

    Cells are alike by `code`, or by the significant components of the proteins themselves.
    """
    _, near = nearest(View(Protein.name).fit(counts, names) if code is None else code, N_NEIGHBORS)
    n, k = near.shape
    graph = sp.csr_matrix((np.full(n * k, 1 / k), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return foreground_probability(counts, graph)
