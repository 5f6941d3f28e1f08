"""Kinds of modality. One class each; they all answer the same questions.

``recognized``     whether values look like this kind, where no kind before it in `KINDS` recognized them
``likelihood``     of an autoencoder of such values
``choose``         which features are read where no mask says which
``fit, prepare``   what is learned from the training samples; values on a scale on which distances mean something
``natural_scale``  values as users want them predicted

A new kind is a class and its place in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from aeverse.models._shared._genes import overdispersed_genes
from aeverse.nn import LIKELIHOODS, fraction_logit

Matrix: TypeAlias = "sp.csr_matrix | np.ndarray"

FEW_FEATURES, MANY_FEATURES, FEW_LEVELS = 500, 5000, 8
PEAK_NAME = r"^(?:chr)?[0-9XYMTGLKJ.]+[:_-]\d+[-_]\d+$"
TERM_FREQUENCY = 1e4  # of a peak whose cell has no other


@dataclass(frozen=True)
class MatrixSummary:
    """What the kind of a matrix is recognized by.

    Attributes
    ----------
    low
        The smallest value, or zero where all are positive. Missing entries are left out.
    high
        The largest value; minus infinity where none was measured.
    is_whole
        Whether all values are whole numbers.
    is_sparse
        Whether the matrix is sparse.
    n_features
        Number of features.
    share_positive
        Share of the entries, missing ones counted, that are above zero.
    names
        Names of the features.
    """

    low: float
    high: float
    is_whole: bool
    is_sparse: bool
    n_features: int
    share_positive: float
    names: pd.Index

    @classmethod
    def of(cls, x: Matrix, names: pd.Index) -> MatrixSummary:
        """Summary of a matrix (samples, features)."""
        values = x[np.isfinite(x)] if isinstance(x, np.ndarray) else x.data
        low = float(values.min(initial=0))
        high = float(values.max()) if values.size else -np.inf
        is_whole = bool((values == np.rint(values)).all())
        share_positive = float((values > 0).sum()) / max(x.shape[0] * x.shape[1], 1)
        return cls(low, high, is_whole, sp.issparse(x), x.shape[1], share_positive, names)

    @property
    def are_counts(self) -> bool:
        """Whole numbers, none of them negative."""
        return self.is_whole and self.low == 0


class Kind:
    """A kind of modality; here, with the answers for values that are taken as they are.

    A kind of your own inherits them, sets ``name``, says which values it recognizes, and takes its place in
    ``aeverse.models.KINDS``. :doc:`/extend` lists what each method takes and returns.
    """

    name: ClassVar[str]
    is_count: ClassVar[bool] = False  # of molecules: a sample without one says nothing, and the rest can be halved
    stays_sparse: ClassVar[bool] = False  # too large to be made dense
    learned: ClassVar[tuple[str, ...]] = ()  # attributes that `fit` sets
    has_unit: ClassVar[bool] = False  # that the features share: their spreads can be compared

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """Whether values look like this kind."""
        raise NotImplementedError

    @staticmethod
    def likelihood(values: MatrixSummary) -> str:
        """Likelihood of an autoencoder of such values."""
        return "gaussian"

    @staticmethod
    def choose(x: Matrix, n_inputs: int) -> np.ndarray:
        """Positions of the features that are read where no mask says which."""
        return np.arange(x.shape[1])

    def fit(self, x: Matrix) -> None:
        """Learn from the training samples, (samples, features read)."""

    def prepare(self, x: Matrix, columns: slice | np.ndarray = slice(None)) -> Matrix:
        """Values on a scale on which distances mean something; `columns`: which of the features read these are."""
        return x

    @staticmethod
    def natural_scale(x: Matrix) -> Matrix:
        """Values as users want them predicted."""
        return x

    def tree(self) -> dict[str, Any]:
        """JSON values and arrays."""
        return {"name": self.name, **{name: getattr(self, name) for name in self.learned}}

    @staticmethod
    def from_tree(tree: Mapping[str, Any]) -> Kind:
        """Rebuild from a `tree`."""
        kind = KINDS[tree["name"]]()
        for name in kind.learned:
            setattr(kind, name, tree[name])
        return kind


class Counts(Kind):
    """RNA: normalized to the median depth, log1p."""

    name, is_count, stays_sparse, learned = "counts", True, True, ("depth",)
    depth: float

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """Any other counts."""
        return values.are_counts

    @staticmethod
    def likelihood(values: MatrixSummary) -> str:
        """Negative binomial."""
        return "nb"

    @staticmethod
    def choose(x: Matrix, n_inputs: int) -> np.ndarray:
        """The most overdispersed."""
        if x.shape[1] <= n_inputs:
            return np.arange(x.shape[1])
        return overdispersed_genes(x if isinstance(x, sp.csr_matrix) else sp.csr_matrix(np.nan_to_num(x)), n_inputs)

    def fit(self, x: Matrix) -> None:
        """The median depth."""
        self.depth = _median_depth(x)

    def prepare(self, x: Matrix, columns: slice | np.ndarray = slice(None)) -> Matrix:
        """See the class."""
        return _log1p(_of_depth(x, self.depth))

    @staticmethod
    def natural_scale(x: Matrix) -> Matrix:
        """Normalized to the median depth, log1p."""
        return _log1p(_of_depth(x, _median_depth(x)))


class Protein(Kind):
    """Counts of antibodies: log1p, centered by sample (CLR)."""

    name, is_count, has_unit, learned = "protein", True, True, ("is_alone",)
    is_alone: bool

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """Counts of few features, most of which are found in a cell; of a panel of genes most are not."""
        few = values.n_features <= FEW_FEATURES and values.high > FEW_LEVELS
        return values.are_counts and few and values.share_positive > 0.5

    @staticmethod
    def likelihood(values: MatrixSummary) -> str:
        """Negative binomial."""
        return "nb"

    def fit(self, x: Matrix) -> None:
        """A single protein cannot be centered by itself: nothing would be left."""
        self.is_alone = x.shape[1] == 1

    def prepare(self, x: Matrix, columns: slice | np.ndarray = slice(None)) -> Matrix:
        """See the class."""
        x = np.log1p(_dense(x))
        if self.is_alone:
            return x
        return x - np.nansum(x, 1, keepdims=True) / np.maximum(np.isfinite(x).sum(1, keepdims=True), 1)

    @staticmethod
    def natural_scale(x: Matrix) -> Matrix:
        """log1p."""
        return _log1p(x)


class Peaks(Kind):
    """Open chromatin: open or not, weighted by TF-IDF."""

    name, is_count, stays_sparse, learned = "peaks", True, True, ("idf",)
    idf: np.ndarray

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """Counts of features that are named as places in a genome, or 0 and 1 of many features."""
        if not values.are_counts:
            return False
        return (values.high <= 1 and values.n_features >= MANY_FEATURES) or values.names.str.match(
            PEAK_NAME
        ).mean() > 0.5

    @staticmethod
    def likelihood(values: MatrixSummary) -> str:
        """Poisson."""
        return "poisson"

    def fit(self, x: Matrix) -> None:
        """In how many cells a peak is open."""
        n_open = np.asarray((x != 0).sum(0) if sp.issparse(x) else np.nansum(x != 0, 0)).ravel()
        self.idf = np.log1p(x.shape[0] / np.maximum(n_open, 1)).astype(np.float32)

    def prepare(self, x: Matrix, columns: slice | np.ndarray = slice(None)) -> Matrix:
        """See the class."""
        x, idf = _of_depth(self.natural_scale(x), TERM_FREQUENCY), self.idf[columns]
        return _log1p(sp.csr_matrix(x @ sp.diags(idf)) if sp.issparse(x) else x * idf)

    @staticmethod
    def natural_scale(x: Matrix) -> Matrix:
        """Open or not."""
        return np.where(np.isnan(x), np.nan, x != 0) if isinstance(x, np.ndarray) else (x != 0).astype(np.float32)


class Binary(Kind):
    """0 and 1, such as mutations."""

    name = "binary"

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """0 and 1."""
        return values.are_counts and values.high <= 1

    @staticmethod
    def likelihood(values: MatrixSummary) -> str:
        """Bernoulli."""
        return "bernoulli"


class Ordinal(Kind):
    """Few levels, such as copy numbers."""

    name = "ordinal"

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """Few whole numbers, with negative ones or of few features."""
        few = values.is_whole and values.high - values.low <= FEW_LEVELS
        return few and (values.low < 0 or values.n_features <= FEW_FEATURES)

    @staticmethod
    def likelihood(values: MatrixSummary) -> str:
        """Gaussian; sparse ones without negative numbers are a panel of counts."""
        return "nb" if values.is_sparse and values.low == 0 else "gaussian"


class Fractions(Kind):
    """Between 0 and 1, such as methylation: the logit."""

    name = "fractions"

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """Between 0 and 1, and not whole."""
        return not values.is_whole and not values.is_sparse and values.low == 0 and values.high <= 1

    @staticmethod
    def likelihood(values: MatrixSummary) -> str:
        """Gaussian on the logit."""
        return "fractions"

    def prepare(self, x: Matrix, columns: slice | np.ndarray = slice(None)) -> Matrix:
        """See the class."""
        return fraction_logit(torch.as_tensor(_dense(x))).numpy()


class Continuous(Kind):
    """Anything else."""

    name = "continuous"

    @staticmethod
    def recognized(values: MatrixSummary) -> bool:
        """Anything."""
        return True


KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Peaks, Binary, Ordinal, Protein, Counts, Fractions, Continuous)
}  # as they are tried


def kind_of(x: Matrix, names: pd.Index) -> str:
    """Kind of data that a matrix holds, from its values (and, for peaks, from the names of its features)."""
    values = MatrixSummary.of(x, names)
    if values.high == -np.inf:  # nothing to go by
        return Continuous.name
    return next(name for name, kind in KINDS.items() if kind.recognized(values))


def likelihood_of(x: Matrix, names: pd.Index) -> str:
    """The likelihood that suits the values of a matrix."""
    return KINDS[kind_of(x, names)].likelihood(MatrixSummary.of(x, names))


def kind_for(likelihood: str) -> str:
    """The kind of data that a likelihood is for."""
    return LIKELIHOODS[likelihood].kind


# ---- helpers -----------------------------------------------------------------------------------------------------
def _dense(x: Matrix) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else x.toarray()


def _log1p(x: Matrix) -> Matrix:
    return np.log1p(x) if isinstance(x, np.ndarray) else x.log1p()


def _row_sums(x: Matrix) -> np.ndarray:
    return np.asarray(x.sum(1) if sp.issparse(x) else np.nansum(x, 1), np.float64).ravel()


def _median_depth(x: Matrix) -> float:
    """Of the samples with a molecule."""
    depth = _row_sums(x)
    return float(np.median(depth[depth > 0])) if (depth > 0).any() else 1.0


def _of_depth(x: Matrix, depth: float) -> Matrix:
    """Every sample scaled to a depth."""
    factor = (depth / np.maximum(_row_sums(x), 1)).astype(np.float32)
    return sp.csr_matrix(sp.diags(factor) @ x) if sp.issparse(x) else x * factor[:, None]
