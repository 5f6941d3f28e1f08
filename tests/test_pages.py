"""The code of README.md and of the pages in docs runs from top to bottom, on small data.

A block that cannot run stands below a comment that the page's source shows: ``<!-- not run: needs ... -->``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import aeverse as ae
from aeverse import cli

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
NOT_RUN = "<!-- not run:"


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks that are to run."""
    found = re.findall(rf"(<!-- [^\n]* -->\n)?```{language}\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    return [code for comment, code in found if not comment.startswith(NOT_RUN)]


# ---- what the pages take for granted: names that their code uses without making them -----------------------------
def counts() -> dict[str, Any]:
    adata = ae.datasets.simulate_counts(300, 80, n_types=3)
    del adata.layers
    adata.var_names = ["LYZ", "CD79A", "CCR7", "CD8A", "ISG15", "IFI6", "GNLY", "NKG7", "GZMB", *adata.var_names[9:]]
    adata.obs["batch"] = adata.obs["plate"] = pd.Categorical(["a", "b"] * 150)
    adata.obs["donor"] = pd.Categorical(["d1", "d2", "d3"] * 100)
    adata.obs["percent_mito"] = np.random.default_rng(0).random(300)
    return {"ae": ae, "sc": sc, "pd": pd, "ad": ad, "adata": adata}


def reference_and_new() -> dict[str, Any]:
    names = counts()
    names["training"], names["new"] = names["adata"][:240].copy(), names["adata"][240:].copy()
    return names


def saved() -> dict[str, Any]:
    names = counts()
    ae.tl.denoise(names["adata"])
    return {**names, "new": names["adata"][:40].copy()}


def multimodal() -> dict[str, Any]:
    paired = ae.datasets.simulate_citeseq(150)
    query = ae.datasets.simulate_citeseq(40, random_state=1)
    del query.mod["prot"]
    query.update()
    return {"mdata": paired.copy(), "paired": paired, "query": query}


def cohort() -> dict[str, Any]:
    mdata = ae.datasets.simulate_cohort(120)
    for name, file in {"rna": "expression.tsv", "cnv": "copy_number.tsv"}.items():
        mdata[name].to_df().to_csv(file, sep="\t")
    mutated = mdata["mut"].to_df().stack()
    maf = mutated[mutated > 0].index.to_frame(index=False).set_axis(["Tumor_Sample_Barcode", "Hugo_Symbol"], axis=1)
    maf.to_csv("mutations.maf", sep="\t", index=False)
    mdata.obs.rename_axis("PATIENT_ID").rename(columns={"OS_time": "OS_MONTHS", "OS_event": "OS_STATUS"}).to_csv(
        "clinical.tsv", sep="\t"
    )
    return {"ae": ae, "train": mdata[:90].copy(), "test": mdata[90:].copy()}


def on_disk() -> dict[str, Any]:
    import zarr

    names = counts()
    adata = names["adata"]
    adata.write_h5ad("big.h5ad")
    adata.write_zarr("big.zarr")
    named = {"cells": slice(0, 5), "genes": ["LYZ", "CCR7"], "paths": ["big.zarr"]}
    return {**names, **named, "zarr": zarr, "obs": adata.obs, "var": adata.var}


BEFORE: dict[str, Callable[[], dict[str, Any]]] = {
    "batches": counts,
    "cohorts": cohort,
    "extend": lambda: {"adata": ad.AnnData(np.random.default_rng(0).normal(size=(80, 20)).astype(np.float32))},
    "family": counts,
    "mapping": reference_and_new,
    "multimodal": multimodal,
    "saving": saved,
    "scaling": on_disk,
    "trust": counts,
}


# ---- the tests ---------------------------------------------------------------------------------------------------
@pytest.fixture
def nothing_stays(monkeypatch, tmp_path):
    """In an empty folder, and what a page registers or draws is gone afterwards."""
    import matplotlib
    import matplotlib.pyplot

    from aeverse.models import KINDS
    from aeverse.nn import LIKELIHOODS

    monkeypatch.chdir(tmp_path)
    before = [(table, dict(table)) for table in (LIKELIHOODS, KINDS)]
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")
    for table, entries in before:
        table.clear()
        table.update(entries)


def run(page: Path) -> None:
    """All blocks of a page, one after the other, as a reader would."""
    if page.stem == "scaling" and not hasattr(ad.experimental, "read_lazy"):
        pytest.skip("this anndata has no read_lazy")
    names = BEFORE.get(page.stem, dict)()
    for i, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page.name}, block {i + 1}", "exec"), names)


@pytest.mark.timeout(1200)  # the gallery draws all plots: more than five minutes on a machine with other work
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if blocks(p, "python") and p.stem not in ("clusters", "index")],
    ids=lambda page: page.stem,
)
def test_code_of_a_page_runs(page, few_steps, nothing_stays):
    run(page)


def test_home_page_shows_the_code_of_the_readme():
    readme, home = (
        [re.sub(r" *#.*", "", b) for b in blocks(REPO / p, "python")] for p in ("README.md", "docs/index.md")
    )
    assert home == readme


@pytest.mark.filterwarnings("ignore")
def test_clusters_page_shows_what_it_says(nothing_stays, capsys):
    """The score rises and falls with the resolution."""
    run(REPO / "docs" / "clusters.md")
    scores = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(scores) == 5
    assert max(scores) > scores[0] + 0.003
    assert max(scores) > scores[-1] + 0.003


COMMANDS = [
    pytest.param(shlex.split(line.split("aeverse ", 1)[1], comments=True), id=f"{page.stem}: {line[:60]}")
    for page in PAGES
    for block in blocks(page, "bash")
    for line in block.splitlines()
    if re.match(r"(\.venv/bin/)?aeverse ", line)
]


@pytest.mark.parametrize("argv", COMMANDS)
def test_commands_of_a_page_are_understood(argv):
    if argv[-1] not in ("--help", "--version"):
        assert cli._parser(argv[0]).parse_args(argv).run


def test_pages_have_code_and_commands():
    assert len([page for page in PAGES if blocks(page, "python")]) >= 10
    assert len(COMMANDS) >= 10
