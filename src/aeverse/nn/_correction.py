"""An embedding without what covariates do to it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from aeverse.nn._alignment import Alignment


class Correction(nn.Module):
    """Take out what numbers change, then what each categorical covariate is off.

    Parameters
    ----------
    slopes
        Change of the embedding with each continuous covariate, the last columns of the covariates, (numbers, dimensions);
        None: there are none.
    alignments
        First column of a categorical covariate -> how far its categories are off.
    """

    slopes: Tensor | None
    alignments: Mapping[str, Alignment]

    def __init__(self, slopes: Tensor | None, alignments: Mapping[int, Alignment]):
        super().__init__()
        self.register_buffer("slopes", slopes)
        self.alignments = nn.ModuleDict({str(first): part for first, part in alignments.items()})  # type: ignore[assignment] # it does not say what it is a mapping of

    def add(self, first: int, alignment: Alignment) -> None:
        """Take out another categorical covariate, after all that are taken out already."""
        self.alignments = nn.ModuleDict({**self.alignments, str(first): alignment})  # type: ignore[assignment]

    def forward(self, code: Tensor, covariate: Tensor) -> Tensor:
        """Codes without it; ``covariate``: one-hot blocks (or means over categories), then standardized numbers."""
        code = code if self.slopes is None else code - self._numbers(covariate) @ self.slopes
        for first, part in self.alignments.items():
            code = part(code, self._block(covariate, first, part))
        return code

    def inverse(self, code: Tensor, covariate: Tensor) -> Tensor:
        """Codes as they were before `forward`."""
        for first, part in reversed([*self.alignments.items()]):
            code = part.inverse(code, self._block(covariate, first, part))
        return code if self.slopes is None else code + self._numbers(covariate) @ self.slopes

    def _numbers(self, covariate: Tensor) -> Tensor:
        assert self.slopes is not None
        return covariate[:, covariate.shape[1] - len(self.slopes) :]

    @staticmethod
    def _block(covariate: Tensor, first: str, part: Alignment) -> Tensor:
        return covariate[:, int(first) : int(first) + len(part.centroids)]
