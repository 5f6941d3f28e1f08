"""One self-contained page about a run: what was done, how well, and pictures. No network, no scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from datetime import date
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST_MOLECULES = 200  # of a gene, for its held-out share to say something
LISTED, PICTURED = 12, 3  # genes in each table, and in pictures
# A picture of raw counts shows a gene that is counted in most cells, and neither picture shows one that is hardly counted.
SEEN_IN = (0.01, 0.4)  # share of the cells
FEWEST_PICTURED = 50  # molecules
# Markers that many know and that are often missed, in the spelling of human genes; those of the mouse differ in case.
MARKERS = [
    "CCR7",
    "CD8A",
    "CXCR5",
    "FOXP3",
    "CD4",
    "IL7R",
    "MS4A1",
    "CD14",
    "FCER1A",
    "CD34",
    "GZMK",
    "CD3E",
    "EPCAM",
    "PECAM1",
    "PDGFRB",
    "COL1A1",
    "KRT5",
    "MKI67",
    "GAD1",
    "GAD2",
    "SLC17A7",
    "PVALB",
    "SST",
    "AQP4",
    "OLIG2",
    "CX3CR1",
    "PDGFRA",
    "NEUROD1",
    "INS",
    "GCG",
    "ALB",
]
COMPARED_CELLS = 2000  # from which it is judged whether two genes look alike
MOST_CATEGORIES = 28  # that colors and markers tell apart

NAMES = {
    "likelihood": "Likelihood",
    "regularizer": "Regularizer",
    "n_latent": "Dimensions of a model's embedding",
    "n_models": "Models in the ensemble",
    "layer": "Layer with the counts",
    "batch_key": "Batches",
    "target_sum": "Values of a cell add up to",
    "genes": "Genes in the layer",
    "n_hidden": "Hidden units of the encoder",
    "n_inputs": "Most genes that the encoder reads",
    "max_epochs": "Most epochs",
    "max_steps": "Most steps",
    "patience": "Judgments without a better one before training ends",
    "batch_size": "Cells in a batch",
    "learning_rate": "Learning rate",
    "prior_precision": "Precision of the loadings' prior",
    "share_heldout": "Share of the molecules set aside",
    "random_state": "Seed",
}

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

STYLE = """
:root{--ink:#1b1f24;--soft:#5b6570;--line:#e3e7ea;--accent:#0072b2;--low:#d55e00;--ground:#f6f8f9}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink)}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1040px;margin:0 auto;padding:28px 18px 48px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 10px}
h3{font-size:.95rem;margin:0 0 6px}
p{margin:0 0 12px;max-width:70ch}
.soft,figcaption{color:var(--soft);font-size:.9rem}
section{background:#fff;border:1px solid var(--line);border-radius:10px;padding:18px;margin-top:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin-top:18px}
.tile{background:#fff;border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:1.45rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile.main{border-color:var(--accent)} .tile.main b{color:var(--accent)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:18px;align-items:start}
figure{margin:0 0 6px;min-width:0}
img{display:block;max-width:100%;height:auto;margin:0 auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 8px 4px 0;border-bottom:1px solid var(--line);vertical-align:middle}
th{font-weight:600;color:var(--soft)} td.n,th.n{text-align:right}
td.word{overflow-wrap:anywhere}
td.gene{white-space:nowrap;max-width:13ch;overflow:hidden;text-overflow:ellipsis}
.bar{height:9px;border-radius:3px;background:var(--accent);min-width:1px} .bar.low{background:var(--low)}
td.track{width:34%;min-width:60px}
footer{margin-top:22px}
"""


def page(
    adata: AnnData, key: str, *, title: str, seconds: float, model: str | None = None, color: str | None = None
) -> str:
    """Return the HTML of a report about ``uns["ae"][key]``.

    `model` is the file of the fitted model that was used, if it was not trained on these data; `color` is a column of
    ``adata.obs`` to color cells by.
    """
    record = _slots.read_record(adata, key)
    params = record["params"]
    counts = _slots.read_counts(adata, params.get("layer"))
    library = np.asarray(counts.sum(1)).ravel()
    heldout = heldout_deviance_explained(adata, key)
    basis = "X_ae" if key in adata.layers else key
    genes = _gene_table(adata, counts, f"{key}_deviance_explained")
    done = "Denoised" if key in adata.layers else "Embedded"
    tiles = [
        ("main", f"{heldout:.3f}", "held-out deviance explained"),
        ("", f"{adata.n_obs:,}", "cells"),
        ("", f"{adata.n_vars:,}", "genes"),
        ("", f"{np.median(library):,.0f}", "molecules in the median cell"),
        ("", f"{adata.obsm[basis].shape[1]}", "dimensions of the embedding"),
        ("", f"{seconds:.1f} s", "for the results" if model else "for training and results"),
    ]
    body = [
        f"<header><h1>{escape(title)}</h1><div class=soft>{done} with aeverse {record['versions']['aeverse']}"
        f" on {date.today():%d %B %Y}</div></header>",
        "<div class=tiles>"
        + "".join(
            f'<div class="tile {kind}"><b>{value}</b><span class=soft>{name}</span></div>'
            for kind, value, name in tiles
        )
        + "</div>",
        _heldout_section(heldout, adata, key, model),
        _code_section(adata, basis, color or _color(adata, params)),
        *([] if genes is None else [_genes_section(genes)]),
        *([_denoised_section(adata, key, counts, basis)] if key in adata.layers and genes is not None else []),
        *([_methods_section()] if key in adata.layers else []),
        _done_section(adata, key, record),
    ]
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)} · aeverse</title>"
        f'<meta name=viewport content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def heldout_deviance_explained(adata: AnnData, key: str) -> float:
    """Share of the deviance of held-out molecules that the model of a result explains, over all genes."""
    return float(_slots.read_record(adata, key).get("deviance_explained", float("nan")))


# ---- sections --------------------------------------------------------------------------------------------------
def _heldout_section(heldout: float, adata: AnnData, key: str, model: str | None) -> str:
    from aeverse import pl

    source = f"<p><b>Not trained on these cells</b> but read from {escape(str(model))}; on its own training data:</p>"
    text = (source if model else "") + (
        "<p>Before training, some molecules of every cell were set aside. The model never saw them. Of their "
        f"variation beyond the average expression of each gene, the model explains <b>{heldout:.1%}</b> (share of the Poisson "
        "deviance).</p><p class=soft>0 would be no better than the gene averages. 1 cannot be reached: counting "
        "molecules is a random process, and the set-aside counts are mostly noise, the more so the fewer molecules "
        "a cell has. The figure compares models on the same data; it does not compare data sets. The curve beside the "
        "loss is the same figure during training, on a sample of the cells.</p>"
    )
    pictures = _pictures(
        lambda ax: pl.history(adata, key=key, ax=ax), 2, (4.6, 3.2), "Training loss", "Held-out deviance"
    )
    return _section("How much the model explains", text + pictures)


def _code_section(adata: AnnData, basis: str, color: str | None) -> str:
    from aeverse import pl

    def plot(ax: list) -> None:
        pl.latent(adata, color=color, basis=basis, ax=ax[0])
        if ax[0].get_legend() is not None:  # below the picture, which then is wide enough on a phone
            legend = ax[0].get_legend()
            handles, names = legend.legend_handles, [text.get_text() for text in legend.get_texts()]
            place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.07), "ncols": 2}
            ax[0].legend(handles, names, **place, frameon=False, fontsize=9, handletextpad=0.3, columnspacing=1.0)

    pictures = _pictures(plot, 1, (4.8, 5.2 if color else 4.0), "The embedding of the cells")
    coloring = "" if color is None else f", colored by <b>{escape(color)}</b>, which the model did not see"
    if color is not None and color == _batch_of(adata, basis):
        coloring = f", colored by the batches in <b>{escape(color)}</b>"
    return _section(
        "The embedding",
        f"<p>Each cell is a point; cells with alike expression lie close together{coloring}.</p>" + pictures,
    )


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
    return _section("Genes", f"{text}<div class=pair>{tables}</div>")


def _denoised_section(adata: AnnData, key: str, counts, basis: str) -> str:
    from aeverse import pl

    text = (
        "<p>Raw counts beside denoised values, of genes with low counts: known markers first, then those that the model "
        "explains best. The denoised value weighs the cell's own count against what the model "
        "expects of a cell like it; look at genes with it, but do not test for differential expression on it.</p>"
    )
    names = _unlike_genes(adata, key, _candidates(adata, counts, f"{key}_deviance_explained"))
    pictures = [
        _pictures(
            lambda ax, gene=gene: pl.denoised(adata, gene, key=key, basis=basis, ax=ax),  # type: ignore[misc]
            2,
            (4.8, 3.8),
            f"{gene}, raw counts",
            f"{gene}, denoised",
        )
        for gene in names
    ]
    return _section("Raw and denoised", text + "".join(pictures))


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
    return _section("Beside other methods", f"{text}<table>{head}{rows}</table>")


def read_scores() -> pd.DataFrame:
    """Held-out deviance explained by method (rows) and data set, as ``benchmarks/denoise.py`` measured it."""
    from importlib.resources import files

    with (files("aeverse") / "_denoising_scores.csv").open() as file:
        table = pd.read_csv(file)
    scores = table.pivot(index="method", columns="data", values="deviance_explained")
    return scores.rename(index=METHODS).sort_values("pbmc3k", ascending=False)[
        ["pbmc3k", "mouse_bladder", "celseq2_5cl"]
    ]


def _done_section(adata: AnnData, key: str, record: Mapping[str, Any]) -> str:
    params = {NAMES.get(name, name): _shown(value) for name, value in record["params"].items()}
    writes = {"Written to the file": ", ".join(str(w) for w in record["writes"]) + f", uns/ae/{key}"}
    versions = {str(k): str(v) for k, v in record["versions"].items()}
    tables = f"<div><h3>Parameters</h3>{_rows(params | writes)}</div><div><h3>Versions</h3>{_rows(versions)}</div>"
    return _section("What was done", f"<div class=pair>{tables}</div>")


# ---- what is shown ---------------------------------------------------------------------------------------------
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


def _color(adata: AnnData, params: Mapping[str, Any]) -> str | None:
    """The batches, else the first column of ``obs`` with a handful of categories."""
    if params.get("batch_key"):
        return str(params["batch_key"])
    for name, values in adata.obs.items():
        if isinstance(values.dtype, pd.CategoricalDtype) and 1 < values.nunique() <= MOST_CATEGORIES:
            return str(name)
    return None


def _batch_of(adata: AnnData, basis: str) -> str | None:
    """The batch_key of the run that wrote the embedding."""
    for record in adata.uns["ae"].values():
        if f"obsm/{basis}" in record["writes"]:
            return record["params"].get("batch_key")
    return None


# ---- HTML ------------------------------------------------------------------------------------------------------
def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _rows(values: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(k)}</th><td class=word>{escape(v)}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


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


def _pictures(plot: Callable[[list], Any], n: int, size: tuple[float, float], *captions: str) -> str:
    """Draw on `n` separate figures, so that they stand below one another where the page is narrow."""
    from matplotlib.figure import Figure

    figures = [Figure(figsize=size, layout="constrained") for _ in range(n)]
    plot([figure.subplots() for figure in figures])
    images = "".join(
        f'<figure><img alt="{escape(caption)}" width="{round(size[0] * 100)}" '
        f'src="data:image/png;base64,{_png(figure)}"></figure>'
        for figure, caption in zip(figures, captions, strict=True)
    )
    return f"<div class=pair>{images}</div>"


def _png(figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _shown(value: Any) -> str:
    values = np.atleast_1d(value)
    if len(values) > 1:
        return ", ".join(map(str, values[:10])) + (f" and {len(values) - 10} more" if len(values) > 10 else "")
    value = values[0] if len(values) else ""
    return f"{value:,g}" if isinstance(value, (float, np.floating)) else str(value)
