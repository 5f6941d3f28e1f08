"""Where the samples lie in their neighbour graph: what the regularizer ``"graph"`` has the code predict.

Of counts, whose single samples are mostly noise, it is `smoothed`; of other values `coordinates`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse.models._fronts import Front, _moments, _svd, kind_of
from aeverse.models._neighbours import batch_shifts, neighbours_of, principal
from aeverse.nn import Rows, diffusion_coordinates, fuse, local_kernel, smooth
from aeverse.train import Samples

N_NEIGHBORS = (5, 10, 20)
MAX_COMPONENTS = 64
DIFFUSION_TIME = 2
SMOOTHED_NEIGHBORS, SMOOTHING_STEPS = 15, 2
EMPHASIS = 0.5  # errors of smoothed components are divided by their variance to this power


def coordinates(
    samples: Samples, input_layer: torch.nn.Module, n_coordinates: int, batches: pd.Categorical | None
) -> np.ndarray:
    """Diffusion coordinates of the samples, (samples, n_coordinates), of unit mean square.

    Neighbours are sought in the significant principal components of what the encoder reads (in every batch alike), and
    kernels of several widths are averaged.
    """
    y = _as_read(samples, input_layer)
    centre, axes, _ = significant(y, fewest=2, most=MAX_COMPONENTS)
    scores = np.asarray(y @ axes - centre @ axes, np.float32)
    distances, indices = neighbours_of(scores, max(N_NEIGHBORS), None if batches is None else np.asarray(batches.codes))
    widths = N_NEIGHBORS if batches is None else (distances.shape[1],)
    kernels = [local_kernel(distances[:, :k], indices[:, :k]) for k in widths]
    n = len(scores)
    graph = fuse(kernels, [np.arange(n)] * len(kernels), [1.0] * len(kernels), n)
    found = diffusion_coordinates(graph, n_coordinates, DIFFUSION_TIME)
    found = np.pad(found, ((0, 0), (0, n_coordinates - found.shape[1])))  # fewer samples than coordinates
    found = found - found.mean(0)
    return (found / max(float(np.sqrt(np.mean(found**2))), 1e-12)).astype(np.float32)


def smoothed(
    counts: sp.csr_matrix,
    names: pd.Index,
    n_coordinates: int,
    batches: pd.Categorical | None,
    columns: np.ndarray | None,
) -> np.ndarray:
    """Principal components of counts, averaged along the neighbour graph, (samples, n_coordinates), of unit mean square.

    What is sampling noise in one cell averages out. Batches are shifted so that samples of different ones that match meet.
    `columns` limits the features that are read.
    """
    front = Front("peaks" if kind_of(counts, names) == "peaks" else "counts")
    scores, codes = front.fit(counts, names, columns), None
    if batches is not None:
        codes = np.asarray(batches.codes)
        scores = scores - batch_shifts(scores, codes, len(batches.categories), SMOOTHED_NEIGHBORS)[codes]
    graph = local_kernel(*neighbours_of(scores, SMOOTHED_NEIGHBORS, codes))
    found = principal(smooth(graph, scores, np.arange(len(scores)), SMOOTHING_STEPS), n_coordinates)
    found = np.pad(found, ((0, 0), (0, n_coordinates - found.shape[1])))  # fewer components than coordinates
    return (found / max(float(np.sqrt(np.mean(found**2))), 1e-12)).astype(np.float32)


def significant(y: sp.csr_matrix | np.ndarray, fewest: int, most: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Principal components above the edge of the spectrum of noise (Marchenko-Pastur), but at least and at most so many.

    Returns
    -------
    Mean of the columns, axes (columns, components), root mean square of the scores.
    """
    n, p = y.shape
    centre, sd = _moments(y)
    noise = np.sqrt(np.sum(sd.astype(np.float64) ** 2) / p) * (np.sqrt(n) + np.sqrt(p))
    s, v = _svd(y, centre, max(1, min(most, n - 1, p)))
    k = min(max(int((s > noise).sum()), fewest), len(s))
    spread = float(np.sqrt(np.mean(s[:k].astype(np.float64) ** 2) / n))
    return centre, np.ascontiguousarray(v[:k].T, np.float32), spread or 1.0


@torch.no_grad()
def _as_read(samples: Samples, input_layer: torch.nn.Module) -> sp.csr_matrix | np.ndarray:
    """What the encoder's first layer is given, for all samples."""
    blocks = []
    for _, batch in samples.blocks(1024):
        y = input_layer.to(samples.device)(batch.x, batch.library)
        if isinstance(y, Rows):
            values, columns, pointers = (t.cpu().numpy() for t in (y.values, y.columns, y.pointers))
            blocks.append(sp.csr_matrix((values, columns, pointers), shape=y.shape))
        else:
            blocks.append(y.cpu().numpy())
    return sp.vstack(blocks, format="csr") if sp.issparse(blocks[0]) else np.vstack(blocks)
