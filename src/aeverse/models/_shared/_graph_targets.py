"""Where the samples lie in their neighbor graph: what the regularizer ``"graph"`` has the code predict.

Of counts, whose single samples are mostly noise, it is `smoothed_target`; of other values `diffusion_target`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse.models._shared._kinds import Counts, Peaks, kind_of
from aeverse.models._shared._neighbors import batch_shifts, neighbors_of, principal
from aeverse.models._shared._views import View, truncated_svd
from aeverse.nn import InputLayer, SparseRows, diffusion_coordinates, fuse, local_kernel, moments, smooth
from aeverse.train import Samples

N_NEIGHBORS = (5, 10, 20)
MAX_COMPONENTS = 64
DIFFUSION_TIME = 2
SMOOTHED_NEIGHBORS, SMOOTHING_STEPS = 15, 2


def diffusion_target(
    samples: Samples, input_layer: InputLayer, n_coordinates: int, batches: np.ndarray | None
) -> np.ndarray:
    """Diffusion coordinates of the samples, (samples, n_coordinates), of unit mean square.

    Neighbors are sought in the significant principal components of what the encoder reads (in every batch alike), and
    kernels of several widths are averaged.
    """
    y = _as_read(samples, input_layer)
    center, axes, _ = significant(y, fewest=2, most=MAX_COMPONENTS)
    scores = np.asarray(y @ axes - center @ axes, np.float32)
    distances, indices = neighbors_of(scores, max(N_NEIGHBORS), batches)
    widths = N_NEIGHBORS if batches is None else (distances.shape[1],)
    kernels = [local_kernel(distances[:, :k], indices[:, :k]) for k in widths]
    n = len(scores)
    graph = fuse(kernels, [np.arange(n)] * len(kernels), [1.0] * len(kernels), n)
    target = diffusion_coordinates(graph, n_coordinates, DIFFUSION_TIME)
    target = np.pad(target, ((0, 0), (0, n_coordinates - target.shape[1])))  # fewer samples than coordinates
    target = target - target.mean(0)
    return (target / max(float(np.sqrt(np.mean(target**2))), 1e-12)).astype(np.float32)


def smoothed_target(
    counts: sp.csr_matrix,
    names: pd.Index,
    n_coordinates: int,
    batches: np.ndarray | None,
    columns: np.ndarray | None,
) -> np.ndarray:
    """Principal components of counts, averaged along the neighbor graph, (samples, n_coordinates), of unit mean square.

    What is sampling noise in one cell averages out. Batches are shifted so that samples of different ones that match meet.
    `columns` limits the features that are read.
    """
    view = View(Peaks.name if kind_of(counts, names) == Peaks.name else Counts.name)
    scores = view.fit(counts, names, columns)
    if batches is not None:
        scores = scores - batch_shifts(scores, batches, SMOOTHED_NEIGHBORS)[batches]
    graph = local_kernel(*neighbors_of(scores, SMOOTHED_NEIGHBORS, batches))
    target = principal(smooth(graph, scores, np.arange(len(scores)), SMOOTHING_STEPS), n_coordinates)
    target = np.pad(target, ((0, 0), (0, n_coordinates - target.shape[1])))  # fewer components than coordinates
    return (target / max(float(np.sqrt(np.mean(target**2))), 1e-12)).astype(np.float32)


def significant(y: sp.csr_matrix | np.ndarray, fewest: int, most: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Principal components above the edge of the spectrum of noise (Marchenko-Pastur), but at least and at most so many.

    Returns
    -------
    Mean of the columns, axes (columns, components), root mean square of the scores.
    """
    n, p = y.shape
    center, sd = moments(y)
    noise = np.sqrt(np.sum(sd.astype(np.float64) ** 2) / p) * (np.sqrt(n) + np.sqrt(p))
    s, v = truncated_svd(y, center, max(1, min(most, n - 1, p)))
    k = min(max(int((s > noise).sum()), fewest), len(s))
    spread = float(np.sqrt(np.mean(s[:k].astype(np.float64) ** 2) / n))
    return center, np.ascontiguousarray(v[:k].T, np.float32), spread or 1.0


@torch.no_grad()
def _as_read(samples: Samples, input_layer: InputLayer) -> sp.csr_matrix | np.ndarray:
    """What the encoder's first layer is given, for all samples."""
    blocks = []
    for _, batch in samples.blocks(1024):
        y = input_layer.to(samples.device)(batch.x, batch.library)
        if isinstance(y, SparseRows):
            blocks.append(y.to_scipy())
        else:
            blocks.append(y.cpu().numpy())
    return sp.vstack(blocks, format="csr") if sp.issparse(blocks[0]) else np.vstack(blocks)
