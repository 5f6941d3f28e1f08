"""What a report shows of a model of one matrix: `denoise`, `embed`, `fit` and `dropouts`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse._report._html import Content, Run, grouping, picture, pictures, section, table

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST_MOLECULES = 200  # of a gene, for its held-out share to say something
LISTED, PICTURED = 12, 3  # genes in each table, and in pictures
GROUPED = 4  # genes in the picture of dropouts
# A picture of raw counts shows a gene that is counted in most cells, and neither picture shows one that is hardly counted.
SEEN_IN = (0.01, 0.4)  # share of the cells
FEWEST_PICTURED = 50  # molecules
# Markers that many know and that are often missed, in the spelling of human genes; those of the mouse differ in case.
MARKERS = (  # noqa: SIM905 (a list would have a line for each)
    "CCR7 CD8A CXCR5 FOXP3 CD4 IL7R MS4A1 CD14 FCER1A CD34 GZMK CD3E EPCAM PECAM1 PDGFRB COL1A1 KRT5 "
    "MKI67 GAD1 GAD2 SLC17A7 PVALB SST AQP4 OLIG2 CX3CR1 PDGFRA NEUROD1 INS GCG ALB "
).split()
COMPARED_CELLS = 2000  # from which it is judged whether two genes look alike

METHODS = {
    "aeverse": "aeverse",
    "cellmapper": "CellMapper",
    "pca": "PCA, 30 components",
    "knn_smoothing": "kNN smoothing",
    "scvi_default": "scVI, default epochs",
    "scvi_early_stopping": "scVI, early stopping",
    "magic": "MAGIC",
    "alra": "ALRA",
    "gene_means": "gene averages",
}


def denoise(run: Run) -> Content:
    """Held-out deviance, embedding, genes, raw beside denoised values, and other methods on other data."""
    counts = _slots.read_counts(run.data, run.record["params"].get("layer"))
    genes = _gene_table(run.data, counts, f"{run.key}_deviance_explained")
    sections = [
        *_heldout_sections(run),
        embedding_section(run, "X_ae"),
        *([] if genes is None else [_genes_section(genes), _denoised_section(run, counts, "X_ae")]),
        _methods_section(),
    ]
    return Content(
        [*_heldout_tiles(run), *_cells_tiles(run, counts), dimensions_tile(run, "X_ae")], sections, run.record
    )


def embed(run: Run) -> Content:
    """Held-out deviance and embedding; also of a model alone."""
    tiles = [*_heldout_tiles(run), *_cells_tiles(run, _counts_of(run)), dimensions_tile(run, run.key)]
    return Content(tiles, [*_heldout_sections(run), embedding_section(run, run.key)], run.record)


def dropouts(run: Run) -> Content:
    """Held-out deviance, the genes most often missed, and what the zeros of a few genes mean by group of cells."""
    counts = _slots.read_counts(run.data, run.record["params"].get("layer"))
    zeros = run.data.n_obs - np.bincount(counts.indices, minlength=run.data.n_vars)
    means = run.data.var[f"{run.key}_mean"].to_numpy(np.float64)
    known = np.isfinite(means)
    share = float(means[known] @ zeros[known] / max(zeros[known].sum(), 1))
    without = zeros / run.data.n_obs
    genes = pd.DataFrame(
        {
            "cells with counts": 1 - without,
            "cells in which it was missed": means * without,
            "mean probability of a zero": means,
        },
        index=run.data.var_names,
    )
    genes = genes[known].sort_values("cells in which it was missed", ascending=False, kind="stable")
    tiles = [(f"{share:.1%}", "of the zeros were probably missed"), *_heldout_tiles(run), *_cells_tiles(run, counts)]
    sections = [_zeros_section(run, genes), *_heldout_sections(run)]
    return Content(tiles, sections, run.record)


def heldout_deviance_explained(data, key: str) -> float:
    """Share of the deviance of held-out molecules that the model of a result explains, over all genes."""
    return float(_slots.read_record(data, key).get("deviance_explained", float("nan")))


def read_scores() -> pd.DataFrame:
    """Held-out deviance explained by method (rows) and data set, as ``benchmarks/denoise.py`` measured it."""
    from importlib.resources import files

    with (files("aeverse") / "_denoising_scores.csv").open() as file:
        table = pd.read_csv(file)
    scores = table.pivot(index="method", columns="data", values="deviance_explained")
    return scores.rename(index=METHODS).sort_values("pbmc3k", ascending=False)[
        ["pbmc3k", "mouse_bladder", "celseq2_5cl"]
    ]


# ---- tiles -----------------------------------------------------------------------------------------------------
def _heldout_tiles(run: Run) -> list[tuple[str, str]]:
    heldout = heldout_deviance_explained(run.data, run.key)
    return [] if np.isnan(heldout) else [(f"{heldout:.3f}", "held-out deviance explained")]


def _cells_tiles(run: Run, counts) -> list[tuple[str, str]]:
    sizes = [(f"{run.data.n_obs:,}", "cells"), (f"{run.data.n_vars:,}", "genes")]
    if counts is None:
        return [(f"{run.data.n_obs:,}", "samples"), (f"{run.data.n_vars:,}", "features")]
    return [*sizes, (f"{np.median(np.asarray(counts.sum(1))):,.0f}", "molecules in the median cell")]


def dimensions_tile(run: Run, basis: str) -> tuple[str, str]:
    """How many dimensions an embedding has."""
    return f"{run.data.obsm[basis].shape[1]}", "dimensions of the embedding"


def _counts_of(run: Run):
    """The counts that a model was trained on; None if it was trained on other values, or there is no model."""
    return _slots.read_counts(run.data, run.record["params"].get("layer")) if "source" in run.record else None


# ---- sections --------------------------------------------------------------------------------------------------
def _heldout_sections(run: Run) -> list[str]:
    """How well the model predicts what was held out; none of a method that does not say."""
    from aeverse import pl

    heldout = heldout_deviance_explained(run.data, run.key)
    if np.isnan(heldout):
        return []
    is_count = "source" in run.record
    what = "molecules of every cell" if is_count else "entries of every sample"
    noise = (
        "1 cannot be reached: counting molecules is a random process, and the set-aside counts are mostly noise, the more so "
        "the fewer molecules a cell has. "
    )
    model = run.arguments.get("model")
    source = f"<p><b>Not trained on these cells</b> but read from {escape(str(model))}; on its own training data:</p>"
    text = (source if model else "") + (
        f"<p>Before training, some {what} were set aside. The model never saw them. Of their "
        f"variation beyond the average of each feature, the model explains <b>{heldout:.1%}</b> (share of the "
        f"deviance).</p><p class=soft>0 would be no better than the averages. {noise if is_count else ''}"
        "The figure compares models on the same data; it does not compare data sets. The curve beside the "
        "loss is the same figure during training, on a sample of the cells.</p>"
    )
    captions = ("Training loss", "Held-out deviance")
    curves = pictures(lambda ax: pl.history(run.data, key=run.key, ax=ax), 2, (4.6, 3.2), *captions)
    return [section("How much the model explains", text + curves)]


def embedding_section(run: Run, basis: str, color: str | None = None, *, what: str = "cell") -> str:
    """The embedding, colored by `color` or by what `grouping` finds."""
    from aeverse import pl

    batches = _batch_of(run.data, basis)
    color = color or run.color or grouping(run.data, batches)

    def plot(ax: list) -> None:
        pl.latent(run.data, color=color, basis=basis, ax=ax[0], title=f"embedding of the {what}s")
        if ax[0].get_legend() is not None:  # below the picture, which then is wide enough on a phone
            legend = ax[0].get_legend()
            handles, names = legend.legend_handles, [text.get_text() for text in legend.get_texts()]
            place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.07), "ncols": 2}
            ax[0].legend(handles, names, **place, frameon=False, fontsize=9, handletextpad=0.3, columnspacing=1.0)

    image = pictures(plot, 1, (4.8, 5.2 if color else 4.0), f"The embedding of the {what}s")
    coloring = "" if color is None else f", colored by <b>{escape(color)}</b>"
    return section(
        "The embedding",
        f"<p>Each {what} is a point; {what}s that are alike lie close together{coloring}.</p>" + image,
    )


def _zeros_section(run: Run, genes: pd.DataFrame) -> str:
    from aeverse import pl

    params = run.record["params"]
    text = (
        f"<p>A zero was <i>missed</i> if the cell would have counts of the gene at {params['depth']:g} times its depth: the "
        "genes that were probably missed in the most cells, as shares of the cells, and the mean probability of a zero.</p>"
    )
    by = run.color or grouping(run.data)
    holds_all = params.get("genes") is not None or float(params["threshold"]) <= 0  # else the layer holds a part
    image = ""
    if holds_all and by is not None and not run.data.obs[by].isna().any():
        names = [str(name) for name in genes.index[:GROUPED]]
        image = picture(
            pl.dropouts, run.data, names, groupby=by, key=run.key, ncols=2, caption="Zeros by group of cells"
        )
    elif not holds_all:
        text += "<p class=soft>With <code>--genes A,B,…</code> this page also shows these genes by group of cells.</p>"
    return section("Zeros", text, table(genes.head(LISTED), index="gene"), image)


def _genes_section(genes: pd.DataFrame) -> str:
    best, worst = genes.head(LISTED), genes.iloc[LISTED:].tail(LISTED).iloc[::-1]
    widest = max(float(genes["explained"].abs().max()), 1e-9)
    text = (
        f"<p>Share of the held-out deviance explained, gene by gene, among the {len(genes):,} genes with at least "
        f"{FEWEST_MOLECULES} molecules. A gene that is not explained may differ little between cells, or too few "
        "molecules of it were counted to tell. Beside it: molecules per cell, and share of the cells that have any.</p>"
    )
    tables = "".join(
        f"<div><h3>{name}</h3>{_bars(table, widest)}</div>"
        for name, table in (("Best explained", best), ("Worst explained", worst))
        if len(table)
    )
    return section("Genes", f"{text}<div class=pair>{tables}</div>")


def _denoised_section(run: Run, counts, basis: str) -> str:
    from aeverse import pl

    text = (
        "<p>Raw counts beside denoised values, of genes with low counts: known markers first, then those that the model "
        "explains best. The denoised value weighs the cell's own count against what the model "
        "expects of a cell like it; look at genes with it, but do not test for differential expression on it.</p>"
    )
    names = _unlike_genes(run.data, run.key, _candidates(run.data, counts, f"{run.key}_deviance_explained"))
    images = [
        pictures(
            lambda ax, gene=gene: pl.denoised(run.data, gene, key=run.key, basis=basis, ax=ax),  # type: ignore[misc]
            2,
            (4.8, 3.8),
            f"{gene}, raw counts",
            f"{gene}, denoised",
        )
        for gene in names
    ]
    return section("Raw and denoised", text + "".join(images))


def _methods_section() -> str:
    scores = read_scores()
    sets = list(scores.columns)
    head = "<tr><th>method" + "".join(f"<th class=n>{escape(name)}" for name in sets) + "</tr>"
    rows = "".join(
        f"<tr><th>{escape(str(method))}</th>"
        + "".join(f"<td class=n>{round(row[name], 3) + 0.0:.3f}</td>" for name in sets)
        + "</tr>"
        for method, row in scores.iterrows()
    )
    text = (
        "<p>Share of the deviance of held-out molecules that methods explain on three published data sets, <b>not on these "
        "cells</b>: a tenth of the molecules was held out, and 0 is no better than the gene averages. "
        "<code>benchmarks/denoise.py</code> of aeverse measured it.</p>"
    )
    return section("Beside other methods", f"{text}<table>{head}{rows}</table>")


# ---- genes that are shown --------------------------------------------------------------------------------------------
def _candidates(adata: AnnData, counts, column: str) -> list[str]:
    """Genes worth a picture: neither counted nearly everywhere nor nearly nowhere; known markers first."""
    table = _gene_table(adata, counts, column, FEWEST_PICTURED)
    if table is None:
        return []
    low = table[table["cells"].between(*SEEN_IN)]
    table = (low if len(low) else table)[lambda t: t["explained"] > 0]
    markers = sorted((str(g) for g in table.index if str(g).upper() in MARKERS), key=lambda g: MARKERS.index(g.upper()))
    return [*markers, *(str(gene) for gene in table.index[: 3 * LISTED] if str(gene) not in markers)]


def _gene_table(adata: AnnData, counts, column: str, fewest: int = FEWEST_MOLECULES) -> pd.DataFrame | None:
    """Genes with enough molecules, best explained first; None where nothing is known of single genes."""
    if column not in adata.var or not adata.var_names.is_unique:
        return None
    molecules = np.asarray(counts.sum(0)).ravel()
    table = pd.DataFrame(
        {
            "explained": adata.var[column].to_numpy(np.float64),
            "mean": molecules / adata.n_obs,
            "cells": np.bincount(counts.indices, minlength=adata.n_vars) / adata.n_obs,
        },
        index=adata.var_names,
    )
    table = table[(molecules >= fewest) & table["explained"].notna().to_numpy()]
    return table.sort_values("explained", ascending=False, kind="stable") if len(table) else None


def _unlike_genes(adata: AnnData, key: str, candidates: list[str]) -> list[str]:
    """A few of the candidates, in order, that do not show the same pattern twice."""
    from aeverse import get

    rows = np.linspace(0, adata.n_obs - 1, min(adata.n_obs, COMPARED_CELLS)).astype(int)
    values = get.denoised(adata[rows], candidates, key=key).rank()
    chosen: list[str] = []
    for gene in candidates:
        if len(chosen) < PICTURED and all(abs(values[gene].corr(values[other])) < 0.5 for other in chosen):
            chosen.append(gene)
    return chosen


def _batch_of(adata: AnnData, basis: str) -> str | None:
    """The batch_key of the run that wrote the embedding."""
    for record in adata.uns["ae"].values():
        if f"obsm/{basis}" in record["writes"]:
            return record["params"].get("batch_key")
    return None


def _bars(genes: pd.DataFrame, widest: float) -> str:
    rows = [
        f"<tr><td class=gene>{escape(str(gene))}</td><td class=n>{row['explained']:.3f}</td>"
        f'<td class=track><div class="bar{" low" if row["explained"] < 0 else ""}" '
        f'style="width:{100 * abs(row["explained"]) / widest:.1f}%"></div></td>'
        f"<td class=n>{row['mean']:.2f}</td><td class=n>{row['cells']:.0%}</td></tr>"
        for gene, row in genes.iterrows()
    ]
    head = "<tr><th>gene<th class=n>explained<th><th class=n>per cell<th class=n>in cells</tr>"
    return f"<table>{head}{''.join(rows)}</table>"
