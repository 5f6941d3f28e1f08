"""Expression that is expected too high or too low, as molecules that were held out tell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from aeverse.nn._rows import SparseRows
from aeverse.nn._special import runs_compiled

N_CLASSES = 4  # counts of 0, 1, 2, and more
SMALLEST, N_NODES = -14, 29  # of either scale, in powers of two
MIN_EXPECTED = 50.0  # held-out molecules that are expected in the outermost group of nodes
PSEUDO_MOLECULES = 10.0  # molecules that each node is given beside its own, as many found as expected
N_ROUNDS = 10


class Calibration(nn.Module):
    """Factors on the expected expression: what was found of held-out molecules over what was expected.

    For counts of 0, 1, 2 and more, a factor by the ratio of what is expected to what the gene's mean gives in a cell of this
    depth (a gene that is off in some cells is expected there all the same, since a softmax cannot say zero), times one
    by what is expected; each on straight lines between nodes that are powers of two.

    Parameters
    ----------
    n_features
        How many genes.

    Attributes
    ----------
    frequency
        Mean profile, (genes,), summing to one; to be set before `add`.
    by_ratio, by_level
        The factors at the nodes, (4, nodes); 1 before `fit`.

    Examples
    --------
    >>> import torch, scipy.sparse as sp
    >>> from aeverse.nn import Calibration, SparseRows
    >>> expected, library = torch.full((1000, 1), 0.5), torch.full((1000, 1), 0.5)
    >>> nothing, found = (SparseRows.from_scipy(sp.csr_matrix(torch.full((1000, 1), x).numpy())) for x in (0.0, 1.0))
    >>> calibration = Calibration(1)
    >>> calibration.add(expected, library, nothing, found)  # a molecule in each, where every second was to have one
    >>> calibration.fit()
    >>> torch.round(calibration(expected[:1], library[:1], nothing.rows(0, 1)), decimals=1)
    tensor([[2.]])
    """

    frequency: Tensor
    by_ratio: Tensor
    by_level: Tensor
    expected: Tensor
    found: Tensor

    def __init__(self, n_features: int):
        super().__init__()
        self.register_buffer("frequency", torch.full((n_features,), 1 / n_features, dtype=torch.float32))
        for name in ("by_ratio", "by_level"):
            self.register_buffer(name, torch.ones(N_CLASSES, N_NODES, dtype=torch.float32))
        for name in ("expected", "found"):
            total = torch.zeros(
                N_CLASSES, N_NODES, N_NODES, dtype=torch.float64
            )  # of more entries than a float can count
            self.register_buffer(name, total, persistent=False)

    def _node_positions(self, expected: Tensor, library: Tensor) -> tuple[Tensor, Tensor]:
        """Position of each entry between the nodes, by ratio and by level, (cells, genes)."""
        level = expected.clamp_min(1e-30).log2_().sub_(SMALLEST)
        ratio = level - library.clamp_min(1e-30).log2()
        ratio -= self.frequency.clamp_min(1e-30).log2()
        return ratio.clamp_(0, N_NODES - 1), level.clamp_(0, N_NODES - 1)

    def add(
        self, expected: Tensor, library: Tensor, counts: SparseRows, heldout: SparseRows, share: float = 1.0
    ) -> None:
        """Count what was expected of the held-out molecules, `share` of the expression, and what was found."""
        ratio, level = self._node_positions(expected, library)
        node = ratio.round_().int().mul_(N_NODES).add_(level.round_().int())
        entry, kind = _stored(counts)
        node.view(-1)[entry] += (kind * N_NODES**2).int()
        entry_node = node[heldout.row_index(), heldout.columns]
        for total, where, values in ((self.expected, node, share * expected), (self.found, entry_node, heldout.values)):
            sums = torch.zeros(total.numel(), dtype=values.dtype, device=values.device)
            total += sums.index_add_(0, where.view(-1), values.view(-1)).view_as(total)

    def fit(self) -> None:
        """Factors from what was counted, by iterative proportional fitting (Deming and Stephan, 1940)."""
        for _ in range(N_ROUNDS):
            self.by_ratio.copy_(
                observed_over_expected((self.expected * self.by_level[:, None]).sum(2), self.found.sum(2))
            )
            self.by_level.copy_(
                observed_over_expected((self.expected * self.by_ratio[..., None]).sum(1), self.found.sum(1))
            )

    @property
    def is_fitted(self) -> bool:
        """Whether any factor differs from 1."""
        return bool((self.by_level != 1).any())

    def forward(self, expected: Tensor, library: Tensor, counts: SparseRows) -> Tensor:
        """Factor of each entry, (cells, genes)."""
        if runs_compiled(expected):
            from aeverse.nn import _kernels  # numba takes a second to load

            logs = (v.clamp_min(1e-30).log2().ravel() for v in (library, self.frequency))
            entries = (counts.pointers, counts.columns, counts.values)
            places = [part.contiguous().numpy() for part in (expected, *logs, *entries)]
            factors = self.by_ratio.numpy(), self.by_level.numpy()
            return torch.from_numpy(_kernels.calibration_factors(*places, np.float32(SMALLEST), *factors))
        entry, kind = _stored(counts)
        result = torch.ones_like(expected)
        for factor, place in zip((self.by_ratio, self.by_level), self._node_positions(expected, library), strict=True):
            stored = _interpolate(factor, place.view(-1)[entry], kind * N_NODES)
            factor_at = _interpolate(factor, place)
            factor_at.view(-1)[entry] = stored
            result *= factor_at
        return result


def _stored(counts: SparseRows) -> tuple[Tensor, Tensor]:
    """Position of each stored count in the dense matrix, and its class."""
    return counts.flat_index(), counts.values.clamp(max=N_CLASSES - 1).long()


def _interpolate(factor: Tensor, place: Tensor, first: Tensor | None = None) -> Tensor:
    """Factors at places between nodes; `first` is where the nodes of an entry's class begin, None: class 0."""
    below = place.floor()
    node = below.int() if first is None else below.int() + first
    rise = factor.diff(dim=1, append=factor[:, -1:])
    # index_select is several times faster than factor[node]
    start, slope = (v.view(-1).index_select(0, node.view(-1)).view_as(place) for v in (factor, rise))
    return start.addcmul_(slope, below.sub_(place), value=-1)


def observed_over_expected(expected: Tensor, observed: Tensor) -> Tensor:
    """Ratio at each node; nodes at either end are taken together until enough is expected of them."""
    pooled_expected, pooled_found = expected.clone(), observed.clone()
    for kind in range(len(expected)):
        for flip in (torch.clone, torch.flipud):  # from the small end, from the large end
            e, f = flip(expected[kind]).cumsum(0), flip(observed[kind]).cumsum(0)
            few = int((e < MIN_EXPECTED).sum())
            if few < len(e):
                ends = flip(torch.arange(len(e), device=e.device))[: few + 1]
                pooled_expected[kind, ends], pooled_found[kind, ends] = e[few], f[few]
    return (pooled_found + PSEUDO_MOLECULES) / (pooled_expected + PSEUDO_MOLECULES)
