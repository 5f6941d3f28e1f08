"""Fails where training has become slower: reruns ``step.py`` and compares its ratios with the committed table.

``python benchmarks/guard.py`` exits with 1 where ours loses more than a fifth against scVI, or against the bare matrix
products, at any number of genes. Ratios within one run say the same on any machine, more or less; seconds do not.
"""

from __future__ import annotations

import sys

import pandas as pd
import step

MOST_LOST = 0.2
HIGHER_IS_BETTER = {"ours / scVI": True, "three members / scVI": True, "products / ours": False}


def lost(now: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """Share of each ratio that is lost, (genes, ratios)."""
    ratios = now.set_index("genes")[[*HIGHER_IS_BETTER]] / before.set_index("genes")[[*HIGHER_IS_BETTER]]
    return 1 - pd.DataFrame({name: ratios[name] if up else 1 / ratios[name] for name, up in HIGHER_IS_BETTER.items()})


if __name__ == "__main__":
    found = step.table(n_rounds=3)
    print(found.to_string(index=False))
    losses = lost(found, pd.read_csv(step.RESULTS))
    print(f"lost against {step.RESULTS.name}:", losses.round(2).to_string(), sep="\n")
    sys.exit(int((losses > MOST_LOST).to_numpy().any()))
