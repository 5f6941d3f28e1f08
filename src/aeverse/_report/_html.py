"""The page of a report and its parts: tiles, sections, tables, pictures. No network, no scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

MOST_CATEGORIES = 28  # that colors and markers tell apart
MOST_ROWS = 50  # of a table
DPI = 170
WIDEST = 9.2  # inches of a picture across the whole page, at 100 pixels an inch

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
code{overflow-wrap:anywhere}
td.track{width:34%;min-width:60px}
footer{margin-top:22px}
"""


@dataclass(frozen=True)
class Run:
    """A command that was run: its data with the results, and its arguments as they were given, defaults included.

    `line` is the command as it was typed, `table` what a command writes that leaves the data as they are, `color` a
    column of ``obs`` to color cells by.
    """

    command: str
    line: str
    title: str
    data: AnnData | MuData
    arguments: Mapping[str, Any]
    seconds: float
    table: pd.DataFrame | None = None
    color: str | None = None

    @property
    def key(self) -> str:
        """Name of the record in ``uns["ae"]``."""
        return str(self.arguments["key_added"])

    @property
    def record(self) -> Mapping[str, Any]:
        return _slots.read_record(self.data, self.key)


@dataclass(frozen=True)
class Content:
    """What a command shows: figures for the tiles, the most important first, sections, and the record of the call."""

    tiles: Sequence[tuple[str, str]]
    sections: Sequence[str]
    record: Mapping[str, Any]


def page_of(run: Run, content: Content) -> str:
    """The HTML of a report."""
    title = escape(run.title)
    versions = {str(k): str(v) for k, v in content.record["versions"].items()}
    tiles = [*content.tiles, (f"{run.seconds:.1f} s", "for the results" if _model_of(run) else "for the whole run")]
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title} · aeverse</title>"
        f'<meta name=viewport content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main><header><h1>{title}</h1><div class=soft>aeverse {versions['aeverse']}, {date.today():%d %B %Y}"
        f"<br><code>{escape(run.line)}</code></div></header>"
        f"{_tiles(tiles)}{''.join(content.sections)}{_done(run, content.record, versions)}</main></body></html>\n"
    )


def _model_of(run: Run) -> Any:
    return run.arguments.get("model")


def _tiles(tiles: Sequence[tuple[str, str]]) -> str:
    parts = [
        f'<div class="tile{" main" if i == 0 else ""}"><b>{escape(value)}</b><span class=soft>{escape(name)}</span></div>'
        for i, (value, name) in enumerate(tiles)
    ]
    return f"<div class=tiles>{''.join(parts)}</div>"


def _done(run: Run, record: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    params = {NAMES.get(name, name): shown(value) for name, value in record["params"].items()}
    if "writes" in record:
        params["Written to the file"] = ", ".join([*map(str, record["writes"]), f"uns/ae/{run.key}"])
    tables = f"<div><h3>Parameters</h3>{_rows(params)}</div><div><h3>Versions</h3>{_rows(versions)}</div>"
    return section("What was done", f"<div class=pair>{tables}</div>")


# ---- parts -----------------------------------------------------------------------------------------------------
def section(title: str, *content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(content)}</section>"


def table(values: pd.DataFrame, *, index: str | None = None) -> str:
    """A data frame, numbers to three digits; its index as a first column named `index`, or without it."""
    values = values.head(MOST_ROWS)
    frame = values.reset_index(drop=True) if index is None else values.rename_axis(index).reset_index()
    numeric = [pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype) for dtype in frame.dtypes]
    classes = ["n" if is_number else "word" for is_number in numeric]
    head = "".join(f"<th class={c}>{escape(str(name))}" for c, name in zip(classes, frame, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td class={c}>{escape(shown(value))}</td>' for c, value in zip(classes, row, strict=True))}</tr>"
        for row in frame.itertuples(index=False)
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _rows(values: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(k)}</th><td class=word>{escape(v)}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


def pictures(plot: Callable[[list], Any], n: int, size: tuple[float, float], *captions: str) -> str:
    """Draw on `n` separate figures, so that they stand below one another where the page is narrow."""
    from matplotlib.figure import Figure

    figures = [Figure(figsize=size, layout="constrained") for _ in range(n)]
    plot([figure.subplots() for figure in figures])
    return f"<div class=pair>{''.join(map(_image, figures, captions))}</div>"


def picture(plot: Callable[..., Any], *arguments: Any, caption: str, **options: Any) -> str:
    """A plot of `aeverse.pl` in its own size."""
    import matplotlib.pyplot as plt

    figure = plot(*arguments, **options, show=False, return_fig=True)
    image = _image(figure, caption)
    plt.close(figure)
    return image


def _image(figure, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    png = buffer.getvalue()
    inches = int.from_bytes(png[16:20], "big") / DPI  # the header of a PNG begins with its width
    content = base64.b64encode(png).decode("ascii")
    width = round(100 * min(inches, WIDEST))
    return f'<figure><img alt="{escape(caption)}" width="{width}" src="data:image/png;base64,{content}"></figure>'


# ---- what is shown ---------------------------------------------------------------------------------------------
def shown(value: Any) -> str:
    """A value as the page writes it."""
    values: Any = [f"{k}: {v}" for k, v in value.items()] if isinstance(value, Mapping) else np.atleast_1d(value)
    if len(values) > 1:
        return ", ".join(map(str, values[:10])) + (f" and {len(values) - 10} more" if len(values) > 10 else "")
    single: Any = values[0] if len(values) else ""
    if not isinstance(single, (float, np.floating)):
        return str(single)
    number = float(single)
    return "-" if np.isnan(number) else f"{number:,.0f}" if 1000 <= abs(number) < 1e9 else f"{number:.3g}"


def grouping(data: AnnData | MuData, batch_key: str | None = None) -> str | None:
    """The batches, else the first column of ``obs`` with a handful of categories."""
    if batch_key:
        return str(batch_key)
    for name, values in data.obs.items():
        if isinstance(values.dtype, pd.CategoricalDtype) and 1 < values.nunique() <= MOST_CATEGORIES:
            return str(name)
    return None
