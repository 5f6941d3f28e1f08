"""What covariates do to an embedding, learned after training: batches and other categories one by one, numbers together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from aeverse.models._shared._alignment import alignment
from aeverse.models._shared._arrays import arrays_of, load_arrays
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._noise_units import coarse_populations, population_means
from aeverse.nn import Alignment, Correction

MOST_SAMPLES = 5000  # to learn slopes from
FEWEST_SAMPLES = 50  # below, all are one population
RIDGE = 1e-3  # of covariates of unit variance


def correction(
    code: np.ndarray, covariates: Covariates, matrix: np.ndarray | None, random_state: int
) -> Correction | None:
    """Learn what covariates do to an embedding, (samples, dimensions); None where that is nothing.

    Numbers by their slopes within populations, as if those of all populations were the same. Then each categorical one by its
    matching samples (see `alignment`), without what the former do.
    """
    if matrix is None:
        return None
    slopes = torch.from_numpy(_slopes(code, covariates, matrix, random_state)) if covariates.scales else None
    result = Correction(slopes, {})
    for block in covariates.blocks():
        # the first that is largest: a sample of training is of one category
        codes, moved = matrix[:, block].argmax(1), result(torch.from_numpy(code), torch.from_numpy(matrix)).numpy()
        part = alignment(moved, codes, block.stop - block.start, random_state)
        if part is not None:
            result.add(block.start, part)
    return result if slopes is not None or len(result.alignments) else None


def _slopes(code: np.ndarray, covariates: Covariates, matrix: np.ndarray, random_state: int) -> np.ndarray:
    """Change of the embedding with each number within populations, given the categories, (numbers, dimensions).

    Populations must not be cut along a number, or its slope within them comes out too small. So they are found first in the
    directions in which, over all samples, the numbers change nothing, then again without the slopes within those.
    """
    n = len(covariates.scales)
    rows = np.sort(np.random.default_rng(random_state).permutation(len(code))[:MOST_SAMPLES])
    z, x = code[rows].astype(np.float64), matrix[rows].astype(np.float64)
    slopes = _within(z, x, np.zeros(len(z), int))[-n:]
    if len(z) >= FEWEST_SAMPLES and z.shape[1] > n:
        moved = np.linalg.qr(slopes.T)[0]
        slopes = _within(z, x, coarse_populations(z - z @ moved @ moved.T, random_state))[-n:]
        slopes = _within(z, x, coarse_populations(z - x[:, -n:] @ slopes, random_state))[-n:]
    return slopes.astype(np.float32)


def _within(code: np.ndarray, matrix: np.ndarray, populations: np.ndarray) -> np.ndarray:
    """Slopes of a ridge regression on all covariates within populations, (covariates, dimensions)."""
    x, z = (values - population_means(values, populations)[populations] for values in (matrix, code))
    return np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ z)


def corrected(scores: np.ndarray, fitted: Correction | None, matrix: np.ndarray | None) -> np.ndarray:
    """Scores less what covariates do where they lie."""
    if fitted is None or matrix is None:
        return scores
    return fitted(torch.from_numpy(scores), torch.from_numpy(matrix)).numpy()


def empty_correction(covariates: Covariates, n_dimensions: int, arrays: Mapping[str, np.ndarray]) -> Correction:
    """To load arrays into."""
    n = len(covariates.scales)
    result = Correction(torch.zeros(n, n_dimensions, dtype=torch.float32) if n else None, {})
    for block in covariates.blocks():
        shifts = arrays.get(f"alignments.{block.start}.shifts")
        if shifts is not None:
            empty = torch.zeros(shifts.shape, dtype=torch.float32)
            result.add(block.start, Alignment(empty, empty.clone()))
    return result


def correction_tree(fitted: Correction | None) -> dict[str, np.ndarray]:
    """Arrays by name; empty for none."""
    return {} if fitted is None else arrays_of(fitted)


def correction_from_tree(
    tree: Mapping[str, np.ndarray], covariates: Covariates, n_dimensions: int
) -> Correction | None:
    """Rebuild from a `correction_tree`."""
    if not tree:
        return None
    result = empty_correction(covariates, n_dimensions, tree)
    load_arrays(result, tree)
    return result
