"""Gene sets, from a dict or a table as decoupler has them, for a decoder whose dimensions have names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd


def parse_gene_sets(gene_sets: Mapping[str, Any] | pd.DataFrame) -> dict[str, dict[str, float]]:
    """Name -> {gene: weight}, from name -> genes, name -> {gene: weight}, or a table of source, target and weight.

    Raises
    ------
    KeyError
        The table lacks a column.
    ValueError
        There is no set, or one is empty.
    """
    if isinstance(gene_sets, pd.DataFrame):
        if missing := [c for c in ("source", "target") if c not in gene_sets]:
            raise KeyError(f"gene_sets lacks the columns {missing}; it has {list(gene_sets.columns)}.")
        weights = gene_sets["weight"] if "weight" in gene_sets else np.ones(len(gene_sets))
        table = pd.DataFrame({"source": gene_sets["source"], "target": gene_sets["target"], "weight": weights})
        gene_sets = {
            str(name): dict(zip(rows["target"].astype(str), rows["weight"].astype(float), strict=True))
            for name, rows in table.groupby("source", sort=False, observed=True)
        }
    if wrong := [str(name) for name, genes in gene_sets.items() if not isinstance(genes, (str, Iterable))]:
        raise TypeError(f"gene_sets: {wrong[:5]} must each be a list of genes, or a dict from gene to weight.")
    sets = {}
    for name, genes in gene_sets.items():
        genes = (
            genes if isinstance(genes, Mapping) else dict.fromkeys([genes] if isinstance(genes, str) else genes, 1.0)
        )
        sets[str(name)] = {str(gene): float(weight) for gene, weight in genes.items() if weight != 0}
    if empty := [name for name, genes in sets.items() if not genes]:
        raise ValueError(f"gene_sets: {empty[:5]} hold no gene.")
    if not sets:
        raise ValueError("gene_sets is empty; pass at least one set of genes by its name.")
    return sets


def gene_set_matrix(gene_sets: Mapping[str, Mapping[str, float]], names: pd.Index) -> np.ndarray:
    """Weights of the genes in the sets, (genes, sets), zero for those that are not in it.

    Raises
    ------
    KeyError
        None of a set's genes is among `names`.
    """
    table = np.zeros((len(names), len(gene_sets)), np.float32)
    for column, (name, genes) in enumerate(gene_sets.items()):
        where = names.get_indexer_for(list(genes))
        if (where < 0).all():
            raise KeyError(f"gene_sets: none of the {len(genes)} genes of {name!r} is in adata.var_names.")
        table[where[where >= 0], column] = np.asarray(list(genes.values()), np.float32)[where >= 0]
    return table
