"""What a report shows of `markers`, `map` and `benchmark`."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse._report._html import MOST_CATEGORIES, Content, Run, picture, section, table
from aeverse._report._matrix import embedding_section

NAMED, DOTTED = 8, 3  # markers of a group in the table and in the picture
LEVEL = 0.05
DEPTH = 1e4  # counts of a cell in the picture
COSTS = ("n_dims", "fit_seconds", "encode_seconds", "memory_mb")


# ---- markers ---------------------------------------------------------------------------------------------------
def markers(run: Run) -> Content:
    """The marker genes of each group, and a dot plot of the first ones."""
    record, ranked = run.record, run.data.uns[run.key]
    groups = pd.DataFrame(record["groups"]).set_index("group")
    by_group = {str(group): _significant(ranked, group) for group in groups.index}
    groups["markers"] = [", ".join(by_group[str(group)][:NAMED]) for group in groups.index]
    groups = groups.rename(columns={"n_cells": "cells", "found": "found in splits", "n_markers": "number"})
    n_markers = len({gene for genes in by_group.values() for gene in genes})
    tiles = [(f"{n_markers:,}", "marker genes"), (f"{len(groups)}", "groups"), (f"{run.data.n_obs:,}", "cells")]
    text = (
        "<p>Genes with more counts in the group than elsewhere and an adjusted p-value below "
        f"{LEVEL:g}, the largest score first. A group that at most half of the splits found has no markers.</p>"
    )
    dots = _dotplot(run, {group: genes[:DOTTED] for group, genes in by_group.items() if genes})
    return Content(tiles, [section("Marker genes", text, table(groups, index="group"), dots)], record)


def _significant(ranked: Any, group: str) -> list[str]:
    """Markers of a group, the largest score first."""
    use = (ranked["pvals_adj"][group] < LEVEL) & (ranked["scores"][group] > 0)
    return [str(name) for name in ranked["names"][group][use]]


def _dotplot(run: Run, genes: dict[str, list[str]]) -> str:
    """Scanpy's dot plot of counts per 10,000, ``log1p``; nothing where no group has markers."""
    import anndata as ad
    import scanpy as sc

    names = list(dict.fromkeys(gene for group in genes.values() for gene in group))
    if not names:
        return ""
    groupby = str(run.data.uns[run.key]["params"]["groupby"])
    counts = _slots.read_counts(run.data, run.record["params"].get("layer"))
    values = counts[:, _slots.positions(names, run.data.var_names)].toarray()
    depth = np.maximum(np.asarray(counts.sum(1)), 1)
    groups = run.data.obs[[groupby]].astype("category")
    small = ad.AnnData(np.log1p(values / depth * DEPTH), obs=groups, var=pd.DataFrame(index=names))

    def plot(**options: Any):
        dots = sc.pl.dotplot(small, genes, groupby, standard_scale="var", **options)
        dots.make_figure()
        return dots.fig

    return picture(plot, caption="Dot plot of the first markers of each group")


# ---- map -------------------------------------------------------------------------------------------------------
def map_query(run: Run) -> Content:
    """How typical the samples are of the training data, and the labels that were transferred."""
    labels = _slots.name_list(run.arguments["transfer"])
    p_values = run.data.obs[_slots.side_key(run.key, "typicality")].to_numpy(float)
    share = float(run.record["share_unlike"])
    tiles = [(f"{share:.1%}", f"unlike the training data ({LEVEL:.0%} expected)"), (f"{run.data.n_obs:,}", "samples")]
    if unknown := int(np.isnan(p_values).sum()):
        tiles.append((f"{unknown:,}", "samples without a single value"))
    text = (
        f"<p>A sample is unlike the training data if its p-value of typicality is at most {LEVEL:g}: here "
        f"<b>{share:.1%}</b>, where {LEVEL:.0%} are expected of samples like the training data. Labels transferred to samples "
        "that are unlike it are not to be trusted.</p>"
    )
    color = f"{labels[0]}_predicted" if labels else _slots.side_key(run.key, "typicality")
    if labels and run.data.obs[color].nunique() > MOST_CATEGORIES:
        color = _slots.side_key(run.key, "typicality")
    sections = [section("How typical the samples are", text), *(_label_section(run, label) for label in labels)]
    return Content(tiles, [*sections, embedding_section(run, run.key, color, what="sample")], run.record)


def _label_section(run: Run, label: str) -> str:
    from aeverse import pl

    obs = run.data.obs
    predicted = obs[f"{label}_predicted"].astype(object)
    values = pd.DataFrame(
        {
            "samples": 1,
            "mean confidence": obs[f"{label}_confidence"],
            "share with one label in the prediction set": obs[f"{label}_set"].astype(str) == predicted.astype(str),
        }
    )
    of_label = values.groupby(predicted).agg(dict(zip(values, ("sum", "mean", "mean"), strict=True)))
    of_label = of_label.sort_values("samples", ascending=False, kind="stable")
    truth = label if label in obs else None
    image = picture(pl.mapping, run.data, label, truth=truth, key=run.key, caption=f"Mapping of {label}")
    return section(f"Labels: {label}", table(of_label, index=label), image)


# ---- benchmark -------------------------------------------------------------------------------------------------
def benchmark(run: Run) -> Content:
    """The mean score of each method over the folds, and all scores in a picture."""
    from aeverse import pl

    assert run.table is not None
    scores = run.table
    by = ["method", "modalities"] if "modalities" in scores else ["method"]
    means = scores.groupby(by, sort=False).mean(numeric_only=True).drop(columns=["split", "saw_test"], errors="ignore")
    means = means.dropna(axis=1, how="all").T
    means.columns = [", ".join(name) if isinstance(name, tuple) else str(name) for name in means.columns]
    tiles = [(f"{scores['method'].nunique()}", "methods"), (f"{scores['split'].nunique()}", "folds")]
    tiles.append((f"{run.data.n_obs:,}", "samples"))
    text = (
        "<p>Mean over the folds, on samples that the methods did not see. Larger is better, but for dimensions, seconds, "
        "memory and the number of clusters, which only describe.</p>"
    )
    if scores["saw_test"].any():
        names = ", ".join(scores.loc[scores["saw_test"].astype(bool), "method"].unique())
        text += (
            f"<p><b>{escape(names)}</b> saw the samples, having no embedding for new ones: not comparable in full.</p>"
        )
    image = picture(pl.benchmark, scores, ncols=4, caption="Scores of the methods on each fold")
    record = {"params": dict(run.arguments), "versions": _slots.versions()}
    return Content(tiles, [section("Scores", text, table(means, index="score"), image)], record)
