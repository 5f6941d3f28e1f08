"""How much of the data an embedding keeps: their variance, and who is whose neighbor."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from aeverse._arguments import checked
from aeverse.metrics._codes import as_code, as_data

MOST_JUDGED = 1500  # samples whose neighborhoods are compared
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the ridge regression, per sample
SHARE_INNER = 0.2  # of the training samples, to choose the penalty


@checked
def variance_explained(
    code: np.ndarray, x: np.ndarray | sp.spmatrix, *, test_code: np.ndarray, test_x: np.ndarray | sp.spmatrix
) -> float:
    """Share of the variance of held-out samples that a linear map from the embedding explains.

    The map from the standardized embedding to the features is learned from the training samples by ridge regression, whose
    penalty is chosen on a fifth of them. Embeddings of any method, also of those that cannot decode, are so judged alike;
    what they hold in other than linear form does not count.

    Parameters
    ----------
    code, x
        Embeddings (samples, dimensions) and data (samples, features) of the training samples; missing entries are NaN.
    test_code, test_x
        Of the held-out samples.

    Returns
    -------
    1 less the squared error, over all entries, relative to that of the training means. 0 is no better than the means.

    Raises
    ------
    ValueError
        Shapes do not fit.

    Examples
    --------
    >>> import numpy as np, aeverse as ae
    >>> code = np.random.default_rng(0).normal(size=(50, 2))
    >>> x = code @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    >>> round(ae.metrics.variance_explained(code[:40], x[:40], test_code=code[40:], test_x=x[40:]), 3)
    1.0
    """
    code, test_code = as_code(code), as_code(test_code, "test_code")
    x, test_x = as_data(x), as_data(test_x, "test_x")
    if len(code) != len(x) or len(test_code) != len(test_x) or x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f"shapes do not fit: code {code.shape}, x {x.shape}, test_code {test_code.shape}, test_x {test_x.shape}."
        )
    if code.shape[1] != test_code.shape[1]:
        raise ValueError(f"code has {code.shape[1]} dimensions, test_code has {test_code.shape[1]}.")
    mean = np.nan_to_num(np.nanmean(x, 0)) if np.isnan(x).any() else x.mean(0)
    y = np.nan_to_num(x - mean)  # a missing entry is at its mean
    center, sd = code.mean(0), code.std(0)
    z, new = ((c - center) / np.where(sd > 1e-12, sd, np.inf) for c in (code, test_code))
    n_inner = max(1, round(SHARE_INNER * len(z)))
    order = np.random.default_rng(0).permutation(len(z))
    inner, outer = order[:n_inner], order[n_inner:]
    if len(outer) == 0:
        return 0.0
    errors = [((y[inner] - z[inner] @ b) ** 2).sum() for b in _ridge(z[outer], y[outer], PENALTIES)]
    [weights] = _ridge(z, y, (PENALTIES[int(np.argmin(errors))],))
    finite = np.isfinite(test_x)
    target = np.where(finite, test_x - mean, 0)
    total = (target**2).sum()
    return float(1 - ((target - new @ weights)[finite] ** 2).sum() / total) if total > 0 else 0.0


def _ridge(z: np.ndarray, y: np.ndarray, penalties) -> list[np.ndarray]:
    """Weights of ridge regressions, one for each penalty."""
    values, vectors = np.linalg.eigh(z.T @ z)
    along = vectors.T @ (z.T @ y)
    return [vectors @ (along / (np.maximum(values, 0) + penalty * len(z))[:, None]) for penalty in penalties]


@checked
def trustworthiness(
    code: np.ndarray, x: np.ndarray | sp.spmatrix, *, n_neighbors: int = 15, random_state: int = 0
) -> float:
    """Are neighbors in the embedding neighbors in the data [Venna2001]_?

    Parameters
    ----------
    code, x
        Embedding (samples, dimensions) and data (samples, features) of the same samples; of more than 1,500 as many are drawn.
    n_neighbors
        Neighbors of each sample; at most half as many as there are samples.
    random_state
        Seed of the draw.

    Returns
    -------
    Between 0 and 1; 1: all neighbors in the embedding are neighbors in the data.

    Raises
    ------
    ValueError
        Lengths do not fit, or there are fewer than 4 samples.

    Examples
    --------
    >>> import numpy as np, aeverse as ae
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> ae.metrics.trustworthiness(x, x)
    1.0
    """
    from sklearn import manifold

    code, x = as_code(code), as_data(x)
    if x.shape[0] != len(code):
        raise ValueError(f"{len(code)} codes for {x.shape[0]} samples of data.")
    if len(code) < 4:
        raise ValueError(f"{len(code)} samples are too few; 4 are needed.")
    if len(code) > MOST_JUDGED:
        rows = np.sort(np.random.default_rng(random_state).permutation(len(code))[:MOST_JUDGED])
        code, x = code[rows], x[rows]
    x = np.nan_to_num(x)
    return float(manifold.trustworthiness(x, code, n_neighbors=min(n_neighbors, (len(code) - 1) // 2)))
