"""Expression that is expected too high or too low, as molecules that were held out tell, by count and size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aeverse.nn._rows import Rows

SMALLEST, LARGEST = -14, 14  # of the nodes, log2 of the expected expression
N_CLASSES = 4  # counts of 0, 1, 2, and more
FEWEST = 50.0  # held-out molecules that are expected in the outermost group of nodes
USUAL = 10.0  # molecules that each node is given beside its own, as many found as expected


class Calibration(nn.Module):
    """Factors on the expected expression: what was found of held-out molecules over what was expected.

    For counts of 0, 1, 2 and more, by the logarithm of what is expected, with straight lines between nodes an octave apart.

    Attributes
    ----------
    factor
        At each node, (4, nodes); 1 before `fit`.

    Examples
    --------
    >>> import torch, scipy.sparse as sp
    >>> from aeverse.nn import Calibration, Rows
    >>> expected = torch.full((1000, 1), 0.5)
    >>> nothing, found = (Rows.from_scipy(sp.csr_matrix(torch.full((1000, 1), x).numpy())) for x in (0.0, 1.0))
    >>> calibration = Calibration()
    >>> calibration.add(expected, nothing, found)  # a molecule in each, where every second was to have one
    >>> calibration.fit()
    >>> torch.round(calibration(expected[:1], nothing.block(0, 1)), decimals=1)
    tensor([[2.]])
    """

    factor: Tensor
    expected: Tensor
    found: Tensor

    def __init__(self):
        super().__init__()
        n = LARGEST - SMALLEST + 1
        self.register_buffer("factor", torch.ones(N_CLASSES, n))
        self.register_buffer("expected", torch.zeros(N_CLASSES, n), persistent=False)
        self.register_buffer("found", torch.zeros(N_CLASSES, n), persistent=False)

    @staticmethod
    def _place(expected: Tensor, counts: Rows) -> tuple[Tensor, Tensor]:
        """Position of each entry between the nodes, and its class; (cells, genes)."""
        place = expected.log2().sub_(SMALLEST).clamp_(0, LARGEST - SMALLEST)
        kind = torch.zeros_like(expected, dtype=torch.int32)
        kind[counts.row_of_entry(), counts.columns] = counts.values.clamp(max=N_CLASSES - 1).int()
        return place, kind

    def add(self, expected: Tensor, counts: Rows, heldout: Rows, share: float = 1.0) -> None:
        """Count what was expected of the held-out molecules, `share` of the expression, and what was found."""
        place, kind = self._place(expected, counts)
        node = place.round_().int().add_(kind.mul_(self.factor.shape[1]))
        self.expected.view(-1).index_add_(0, node.view(-1), expected.view(-1), alpha=share)
        self.found.view(-1).index_add_(0, node[heldout.row_of_entry(), heldout.columns], heldout.values)

    def fit(self) -> None:
        """Factors from what was counted; nodes at either end are taken together until enough is expected of them."""
        expected, found = self.expected.clone(), self.found.clone()
        for kind in range(N_CLASSES):
            for flip in (torch.clone, torch.flipud):  # from the small end, from the large end
                e, f = (flip(v[kind]).cumsum(0) for v in (self.expected, self.found))
                few = int((e < FEWEST).sum())
                if few < len(e):
                    ends = flip(torch.arange(len(e), device=e.device))[: few + 1]
                    expected[kind, ends], found[kind, ends] = e[few], f[few]
        self.factor.copy_((found + USUAL) / (expected + USUAL))

    def forward(self, expected: Tensor, counts: Rows) -> Tensor:
        """Factor of each entry, (cells, genes)."""
        place, kind = self._place(expected, counts)
        below = place.floor()
        node = below.int().clamp_(max=self.factor.shape[1] - 2).add_(kind.mul_(self.factor.shape[1]))
        rise = self.factor.diff(dim=1, append=self.factor[:, -1:]).view(-1)
        return torch.addcmul(self.factor.view(-1)[node], rise[node], place.sub_(below))
