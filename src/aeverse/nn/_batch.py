"""A mini-batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from aeverse.nn._rows import SparseRows


@dataclass(frozen=True)
class Batch:
    """A mini-batch: what the encoder reads, what the decoder has to explain, the covariates that both read, and what guides the code.

    `generator` is where corruptions and draws of the code come from while training; None: torch's global generator.
    """

    x: SparseRows | Tensor
    target: SparseRows | Tensor
    library: Tensor | None = None
    covariate: Tensor | None = None
    graph_target: Tensor | None = None
    generator: Generator | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def counts(self) -> SparseRows:
        """What a model of counts has to explain."""
        assert isinstance(self.target, SparseRows)
        return self.target

    @property
    def values(self) -> Tensor:
        """What a model of other values has to explain."""
        assert isinstance(self.target, Tensor)
        return self.target

    @property
    def depth(self) -> Tensor:
        """Library sizes, (samples, 1), which a model of counts needs."""
        assert self.library is not None
        return self.library

    def part(self, start: int, stop: int) -> Batch:
        """Samples ``start`` to ``stop``."""

        def cut(values):
            if values is None:
                return None
            return values.rows(start, stop) if isinstance(values, SparseRows) else values[start:stop]

        library, covariate, graph_target = map(cut, (self.library, self.covariate, self.graph_target))
        return Batch(cut(self.x), cut(self.target), library, covariate, graph_target, self.generator)
