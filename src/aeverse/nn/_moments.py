"""Mean and standard deviation of features, missing entries left out."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

Matrix: TypeAlias = "sp.csr_matrix | np.ndarray"


def moments(x: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, float32; NaN (of a sparse matrix, those stored) are left out."""
    if not isinstance(x, np.ndarray):
        missing = sp.csr_matrix((np.isnan(x.data).astype(np.float64), x.indices, x.indptr), shape=x.shape)
        n_present = np.maximum(x.shape[0] - np.asarray(missing.sum(0)).ravel(), 1)
        values = sp.csr_matrix((np.nan_to_num(x.data).astype(np.float64), x.indices, x.indptr), shape=x.shape)
        mean = np.asarray(values.sum(0)).ravel() / n_present
        variance = np.asarray(values.multiply(values).sum(0)).ravel() / n_present - mean**2
    else:
        n_present = np.maximum(np.isfinite(x).sum(0), 1)
        mean = np.nansum(x, 0, dtype=np.float64) / n_present
        variance = np.nansum((x - mean) ** 2, 0, dtype=np.float64) / n_present
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)
