"""What a model is given beside the data: batches, other categories, numbers; as one matrix for encoder and decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from aeverse import _runtime, _slots


@dataclass(frozen=True)
class Covariates:
    """Columns of ``obs``: a batch is the first categorical one.

    The matrix that encoder and decoder are given has a one-hot block for each categorical column, then the continuous columns,
    standardized. What is not known of a sample is taken as average: of all categories alike, of the training samples' numbers.

    Parameters
    ----------
    batch_key
        Column with the batches, the first of `categories`; None: there are none.
    categories
        Column -> names of its categories.
    scales
        Continuous column -> mean and standard deviation in training.
    """

    batch_key: str | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    # ---- what there is -----------------------------------------------------------------------------------------
    @property
    def keys(self) -> list[str]:
        """All columns."""
        return [*self.categories, *self.scales]

    @property
    def others(self) -> list[str]:
        """All columns but that of the batches."""
        return [key for key in self.keys if key != self.batch_key]

    @property
    def batches(self) -> list[str] | None:
        """Names of the batches; None for a model without."""
        return None if self.batch_key is None else list(self.categories[self.batch_key])

    @property
    def n_columns(self) -> int:
        """Columns of the matrix."""
        return sum(map(len, self.categories.values())) + len(self.scales)

    def blocks(self) -> Iterator[slice]:
        """Columns of each categorical covariate in the matrix."""
        first = 0
        for names in self.categories.values():
            yield slice(first, first + len(names))
            first += len(names)

    # ---- samples -----------------------------------------------------------------------------------------------
    @classmethod
    def read(cls, data, batch_key: str | None, covariates: Sequence[str] | str | None) -> tuple[Covariates, Any]:
        """The covariates of training data (AnnData or MuData), and their table; None without any."""
        names = [] if covariates is None else _slots.name_list(covariates)
        if batch_key in names:
            raise ValueError(f"{batch_key!r} is both batch_key= and one of covariates=; name it once.")
        categories: dict[str, tuple[str, ...]] = {}
        scales, table = {}, {}
        for key in names if batch_key is None else [batch_key, *names]:
            values = _slots.read_covariate(data, key, categorical=True if key == batch_key else None)
            table[key] = values
            if isinstance(values, pd.Categorical):
                categories[key] = tuple(str(name) for name in values.categories)
                continue
            if not values.std() > 0:
                raise ValueError(f"obs[{key!r}] holds the same number everywhere; leave it out of covariates=.")
            scales[key] = float(values.mean()), float(values.std())
        return cls(batch_key, categories, scales), pd.DataFrame(table) if table else None

    def table(self, data, *, may_lack_columns: bool = False, treated: str = "taken as average") -> pd.DataFrame | None:
        """Covariates of new samples, NaN where they are not known to the model; None for a model without covariates.

        Parameters
        ----------
        data
            AnnData or MuData.
        may_lack_columns
            Warn, rather than raise, where `data` lack a column.
        treated
            What becomes of samples of which something is not known, for warnings.
        """
        table: dict[str, Any] = {}
        for key in self.keys:
            if may_lack_columns and key not in data.obs:
                _runtime.warn(f"{key!r} is not a column of obs; samples are {treated}.")
                table[key] = np.full(data.n_obs, np.nan)
                continue
            values = _slots.read_covariate(data, key, categorical=key in self.categories)
            if isinstance(values, pd.Categorical):
                self._warn_of_unknown(key, values, treated)
                values = values.set_categories(list(self.categories[key]))
            table[key] = values
        return pd.DataFrame(table) if table else None

    def _warn_of_unknown(self, key: str, values: pd.Categorical, treated: str) -> None:
        if unknown := sorted(set(values.categories) - set(self.categories[key])):
            named = f"batches {unknown[:5]}" if key == self.batch_key else f"categories {unknown[:5]} of obs[{key!r}]"
            _runtime.warn(f"{named} are not known to the model; their samples are {treated}.")

    def matrix(self, table: pd.DataFrame | None, *, unknown: float | None = None) -> np.ndarray | None:
        """What encoder and decoder are given, (samples, columns); None without covariates.

        The block of a category that is not known holds `unknown`, None: the same share of each.
        """
        if table is None or not self.n_columns:
            return None
        parts = []
        for key, names in self.categories.items():
            codes = np.asarray(pd.Categorical(table[key], categories=list(names)).codes)
            row = np.full((1, len(names)), 1 / len(names) if unknown is None else unknown, np.float32)
            parts.append(np.vstack([np.eye(len(names), dtype=np.float32), row])[codes])
        for key, (mean, sd) in self.scales.items():
            standardized = (table[key].to_numpy(np.float64) - mean) / sd
            parts.append(np.nan_to_num(standardized, nan=0.0).astype(np.float32)[:, None])
        return np.hstack(parts)

    def batch_codes(self, matrix: np.ndarray | None) -> np.ndarray | None:
        """Position of each sample's batch, of samples of known batches; None where the model has none."""
        return None if matrix is None or self.batch_key is None else matrix[:, next(self.blocks())].argmax(1)

    def average(self, n: int, batch: str | None = None) -> np.ndarray | None:
        """The matrix of `n` samples that are average in everything, or in everything but their batch."""
        if batch is not None and batch not in (self.batches or ()):
            raise KeyError(f"batch={batch!r} is not known to this model; batches are: {self.batches or 'none'}.")
        table = pd.DataFrame(np.nan, index=np.arange(n), columns=self.keys, dtype=object)
        if batch is not None:
            table[self.batch_key] = batch
        return self.matrix(table)

    # ---- keeping -----------------------------------------------------------------------------------------------
    def tree(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "batch_key": self.batch_key,
            "categories": [{"key": key, "names": list(names)} for key, names in self.categories.items()],
            "scales": [{"key": key, "mean": mean, "sd": sd} for key, (mean, sd) in self.scales.items()],
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Covariates:
        """Rebuild from a `tree`."""
        categories = {part["key"]: tuple(part["names"]) for part in tree["categories"]}
        return cls(tree["batch_key"], categories, {part["key"]: (part["mean"], part["sd"]) for part in tree["scales"]})
