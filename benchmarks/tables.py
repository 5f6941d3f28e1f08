"""Tables kept and shown as Markdown, for all benchmarks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def with_kept(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table and, before it, the rows on disk of the data sets and methods that it does not have."""
    by = [column for column in ("data", "method") if column in table]
    old = pd.read_csv(path)
    return pd.concat([old[~old.set_index(by).index.isin(table.set_index(by).index)], table])


def markdown(table: pd.DataFrame, decimals: int = 3) -> list[str]:
    """Lines of a table; empty where a value is missing, no decimals from 100 on."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * table.shape[1]]
    return lines + ["| " + " | ".join(_cell(v, decimals) for v in row) + " |" for row in table.itertuples(index=False)]


def _cell(value, decimals: int) -> str:
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.{decimals}f}"
