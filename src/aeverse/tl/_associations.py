"""`tl.associations`: do groups of patients differ in stage, type or age?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.tl._multiple_testing import benjamini_hochberg

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

PERMUTATIONS = 9_999
FEW = 5  # expected patients of a cell of the table, below which the chi-square distribution is not to be trusted
MAX_CATEGORIES = 50


@checked
def associations(
    data: AnnData | MuData,
    *,
    groupby: str,
    columns: str | Sequence[str],
    key_added: str = "associations",
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Test whether groups of patients differ in clinical columns.

    Numbers: Kruskal and Wallis' test. Categories: the chi-square test; where a cell of the table expects fewer than 5
    patients, Fisher's exact test for two by two tables and a permutation of the chi-square statistic for larger ones.
    Missing values (NaN, ``"NA"``, ``"[Not Available]"``, …) are left out column by column.

    Parameters
    ----------
    data
        Cohort; patients are the observations.
    groupby
        Column of ``data.obs`` with the groups, such as that of `aeverse.tl.subtypes`.
    columns
        Columns of ``data.obs`` to test.
    key_added
        Name of the results.
    random_state
        Seed of the permutations.
    copy
        Write to a copy and return it.

    Returns
    -------
    `None`, or the copy. ``uns["ae"][key_added]["tests"]`` is a data frame, a row per column: the ``test``, its
    ``statistic`` (the odds ratio for Fisher's), ``p``, ``p_bh`` (corrected for the number of columns by Benjamini and
    Hochberg), the ``effect`` between 0 and 1 (Cramér's V; epsilon squared for numbers), the number of ``patients`` and
    of ``groups``.

    Raises
    ------
    KeyError, TypeError, ValueError
        A column does not exist, holds one value only or more than 50 categories. `data` is then as it was.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.associations(adata, groupby="bulk_labels", columns=["n_counts", "percent_mito"])
    >>> adata.uns["ae"]["associations"]["tests"]["test"].tolist()
    ['Kruskal-Wallis', 'Kruskal-Wallis']
    """
    params = _slots.parameters(locals())
    data = _slots.writable_any(data, copy)
    _slots.check_keys(data, [], key_added, tables=True)
    groups = _slots.read_groups(data.obs, groupby).astype(object).map(str, na_action="ignore")
    rng = np.random.default_rng(random_state)
    rows = {}
    for name in _slots.name_list(columns):
        values = _slots.unknown_as_nan(_slots.read_column(data.obs, name))
        use = groups.notna() & values.notna()
        rows[name] = _test(groups[use], values[use], groupby, name, rng)
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.insert(3, "p_bh", benjamini_hochberg(table["p"].to_numpy()))
    record = {"params": {**params, "columns": list(rows)}, "versions": _slots.versions(), "tests": table}
    _slots.write(data, _slots.Results(name=key_added, record=record))
    return data if copy else None


def _test(groups: pd.Series, values: pd.Series, groupby: str, name: str, rng: np.random.Generator) -> dict[str, object]:
    n_groups = groups.nunique()
    if n_groups < 2:
        raise ValueError(
            f"obs[{groupby!r}] has {n_groups} group(s) among the patients whose {name!r} is known; two are needed."
        )
    if values.nunique() < 2:
        raise ValueError(f"obs[{name!r}] has one value only among the patients of known {groupby!r}: nothing to test.")
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        test = _kruskal(groups, values.astype(np.float64))
    else:
        test = _contingency(groups, values.astype(str), name, rng)
    return {**test, "patients": len(groups), "groups": n_groups}


def _kruskal(groups: pd.Series, values: pd.Series) -> dict[str, object]:
    from scipy.stats import kruskal

    statistic, p = kruskal(*(part.to_numpy() for _, part in values.groupby(groups)))
    return {"test": "Kruskal-Wallis", "statistic": statistic, "p": p, "effect": statistic / (len(values) - 1)}


def _contingency(groups: pd.Series, values: pd.Series, name: str, rng: np.random.Generator) -> dict[str, object]:
    from scipy.stats import chi2_contingency, fisher_exact

    rows, cols = pd.factorize(groups)[0], pd.factorize(values)[0]
    n_rows, n_cols = rows.max() + 1, cols.max() + 1
    if n_cols > MAX_CATEGORIES:
        raise ValueError(
            f"obs[{name!r}] has {n_cols} categories; numbers stored as text? At most {MAX_CATEGORIES} are tested."
        )

    def counts(rows: np.ndarray) -> np.ndarray:
        return np.bincount(rows * n_cols + cols, minlength=n_rows * n_cols).reshape(n_rows, n_cols)

    table = counts(rows)
    statistic, p, _, expected = chi2_contingency(table, correction=False)
    effect = float(np.sqrt(statistic / (len(rows) * (min(table.shape) - 1))))
    test = "chi-square"
    if expected.min() < FEW and table.shape == (2, 2):
        test = "Fisher"
        statistic, p = fisher_exact(table)
    elif expected.min() < FEW:
        test = "chi-square, permutation"
        permuted = (((counts(rng.permutation(rows)) - expected) ** 2 / expected).sum() for _ in range(PERMUTATIONS))
        p = (1 + sum(s >= statistic * (1 - 1e-9) for s in permuted)) / (1 + PERMUTATIONS)
    return {"test": test, "statistic": float(statistic), "p": float(p), "effect": effect}
