"""What is read of a MuData: modalities by kind of data, their scores, and the entries that training does not see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._features import SMALLEST_SHARE
from aeverse.models._shared._kinds import KINDS, kind_of
from aeverse.models._shared._views import View

FEWEST_SAMPLES = 10
SHARE_HELDOUT, MOST_HELDOUT = 0.01, 200_000  # entries of each modality
SMALL_ENTRIES = 20_000_000  # matrices up to this size may as well be dense


# ---- modalities --------------------------------------------------------------------------------------------------
def kinds_of(data: Mapping[str, _slots.Modality], kind: str | Mapping[str, str]) -> dict[str, str]:
    """Kind of data of each modality: what the caller says, else what its values tell."""
    if isinstance(kind, str):
        if kind != "auto":
            raise ValueError(f"kind={kind!r} must be 'auto' or a dict from modality to one of {list(KINDS)}.")
        kind = {}
    for m, kind_name in kind.items():
        if m not in data:
            raise KeyError(f"kind names {m!r}, but the modalities are {list(data)}.")
        if kind_name not in (*KINDS, "auto"):
            raise ValueError(f"kind={kind_name!r} of modality {m!r} must be 'auto' or one of {list(KINDS)}.")
        x = data[m].x
        values = x if isinstance(x, np.ndarray) else x.data
        if kind_name != "auto" and KINDS[kind_name].is_count and values.size and np.nanmin(values) < 0:
            raise ValueError(f"kind={kind_name!r} of modality {m!r} needs counts, but there are negative values.")
    chosen = {m: kind.get(m, "auto") for m in data}
    return {
        m: kind_of(data[m].x, data[m].names) if kind_name == "auto" else kind_name for m, kind_name in chosen.items()
    }


def without_empty(d: _slots.Modality, kind: str) -> _slots.Modality:
    """Leave out samples without a molecule; make small matrices that are no sparse counts dense."""
    x, rows, stays_sparse = d.x, d.rows, KINDS[kind].stays_sparse
    if not isinstance(x, np.ndarray) and not stays_sparse and x.shape[0] * x.shape[1] <= SMALL_ENTRIES:
        x = x.toarray()
    if not sp.issparse(x) and stays_sparse and not np.isnan(x).any():
        x = sp.csr_matrix(x)
    if KINDS[kind].is_count:
        total = np.asarray(x.sum(1) if sp.issparse(x) else np.nansum(x, 1)).ravel()
        if not (total > 0).all():
            x, rows = x[total > 0], rows[total > 0]
    return _slots.Modality(x, rows, d.names, d.mask)


def require_enough(data: Mapping[str, _slots.Modality], n_obs: int) -> None:
    """Refuse what cannot be embedded together, saying what is needed."""
    if n_obs < FEWEST_SAMPLES:
        raise ValueError(f"{n_obs} samples are too few to learn from; at least {FEWEST_SAMPLES} are needed.")
    for name, d in data.items():
        if len(d.rows) < _slots.FEWEST_COMMON:
            raise ValueError(
                f"modality {name!r} was measured in {len(d.rows)} samples; at least {_slots.FEWEST_COMMON} are needed. "
                "Leave it out with modalities=."
            )
    _slots.require_linked(data)


def mask_columns(d: _slots.Modality) -> np.ndarray | None:
    """Positions of the features that may be read; None: the view chooses."""
    return None if d.mask is None else np.flatnonzero(d.mask)


# ---- scores ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TrainingModalities:
    """What a fusion learns from: the modalities of one object, and the covariates of its samples."""

    data: Mapping[str, _slots.Modality]
    kinds: Mapping[str, str]
    covariates: Covariates
    table: pd.DataFrame | None
    n_obs: int


@dataclass(frozen=True)
class Scores:
    """Where samples lie in each modality.

    ``values``: modality -> (samples, dimensions), zero where it is missing; ``has``: (samples, modalities), in that order.
    """

    values: dict[str, np.ndarray]
    has: np.ndarray

    @classmethod
    def of(
        cls, scores: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], sizes: Mapping[str, int], n: int
    ) -> Scores:
        """From the scores of the samples that have a modality, and their positions among all."""
        values, has = {}, np.zeros((n, len(sizes)), bool)
        for i, (m, size) in enumerate(sizes.items()):
            values[m] = np.zeros((n, size), np.float32)
            if m in scores:
                values[m][rows[m]] = scores[m]
                has[rows[m], i] = True
        return cls(values, has)

    def some(self, rows: np.ndarray, modalities: Iterable[str] | None = None) -> Scores:
        """Some samples; of these only the given modalities, None: all."""
        is_given = (
            np.ones(len(self.values), bool) if modalities is None else np.isin(list(self.values), list(modalities))
        )
        values = {
            m: v[rows] * np.float32(present) for (m, v), present in zip(self.values.items(), is_given, strict=True)
        }
        return Scores(values, self.has[rows] & is_given)

    def rows_with(self, modalities: Iterable[str]) -> np.ndarray:
        """Positions of the samples that have all of some modalities."""
        return np.flatnonzero(self.has[:, np.isin(list(self.values), list(modalities))].all(1))

    def patterns(self) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Positions of the samples that have the same modalities, and these."""
        for pattern in np.unique(self.has, axis=0):
            modalities = [m for m, present in zip(self.values, pattern, strict=True) if present]
            yield np.flatnonzero((self.has == pattern).all(1)), modalities


# ---- entries that training does not see --------------------------------------------------------------------------
@dataclass(frozen=True)
class HeldoutEntries:
    """Positions of the entries of a matrix that nothing is learned from."""

    row: np.ndarray
    column: np.ndarray

    @classmethod
    def draw(cls, d: _slots.Modality, rng: np.random.Generator) -> HeldoutEntries:
        """A hundredth of the entries."""
        n, p = d.x.shape
        size = max(1, int(min(SHARE_HELDOUT * n * p, MOST_HELDOUT)))
        position = np.unique(rng.integers(0, n * p, size))
        return cls(position // p, position % p)

    def without(self, x: sp.csr_matrix | np.ndarray) -> sp.csr_matrix | np.ndarray:
        """A copy without them: NaN where dense, zero where sparse."""
        if isinstance(x, sp.csr_matrix):
            mask = sp.csr_matrix((np.ones(len(self.row), np.float32), (self.row, self.column)), shape=x.shape)
            return sp.csr_matrix(x - x.multiply(mask))
        x = x.copy()
        x[self.row, self.column] = np.nan
        return x

    def judged(self, d: _slots.Modality, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Those that a view reads: row, feature read, and standardized value."""
        position = np.full(d.x.shape[1], -1)
        position[view.columns] = np.arange(len(view.columns))
        judgeable = position[self.column] >= 0
        row, column = self.row[judgeable], position[self.column[judgeable]]
        value = np.asarray(view.standardized(d.x)[row, column], np.float32).ravel()
        judgeable = np.isfinite(np.asarray(d.x[row, view.columns[column]], np.float32).ravel())
        return row[judgeable], column[judgeable], value[judgeable]


def explained(
    view: View, scores: np.ndarray, judged: tuple[np.ndarray, np.ndarray, np.ndarray], n_components: int | None = None
) -> float:
    """Share of the variance of held-out entries that scores on a view's components explain."""
    row, column, value = judged
    leading = slice(n_components)
    mean = np.einsum("ij,ij->i", scores[row, leading] * view.unit, view.loadings[column, leading])
    value = value - view.center[column]
    total = float((value**2).sum())
    return 1 - float(((value - mean) ** 2).sum()) / total if total > 0 else 0.0


def features_found(reads: pd.Index, n_found: int, modality: str, names: pd.Index) -> None:
    """Refuse data that hold too few of the features that a model reads of a modality; warn where some are missing."""
    message = f"modality {modality!r}: {n_found} of the {len(reads)} features that the encoder reads were found"
    if n_found < SMALLEST_SHARE * len(reads):
        raise ValueError(
            f"{message}; do the names match? The model has {list(reads[:3])} …, the data {list(names[:3])} …."
        )
    if n_found < len(reads):
        _slots.warn(f"{message}; the others are taken to be at their means.")
