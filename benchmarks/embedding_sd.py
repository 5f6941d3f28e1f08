"""Is the sampling noise of a cell's place in the embedding as ``encode(return_sd=True)`` says? Repeated thinning tells.

    python benchmarks/embedding_sd.py            # some minutes on one core

``ae.tl.embed`` is called with its defaults on all molecules. Then the molecules of every cell are split in two halves, five
times. Each half is encoded with its standard deviations, and the difference of the two places is divided by what these say of
it. The root mean square of that is 1 where they are true. One row for each fifth of the cells by depth: molecules of a cell
(median), *sd*: what is said of the half (root mean square over cells and dimensions), *observed*: the difference between the
halves, divided by the root of two, and *ratio*: root mean square of the scaled difference.

Data are read from ../shared/data; pbmc68k comes with scanpy. Written are benchmarks/results/embedding_sd.csv and .md, and
docs/_static/embedding_sd.png.
"""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from tables import markdown

import aeverse as ae

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
SETS = ("pbmc68k", "celseq2_5cl", "dropseq_3cl")
N_REPEATS, N_BINS = 5, 5


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt((values**2).mean()))


def rows(name: str) -> list[dict]:
    """One row for each fifth of the cells."""
    adata = ae.datasets.pbmc68k_counts() if name == "pbmc68k" else ad.read_h5ad(DATA / f"{name}.h5ad")
    adata = ad.AnnData(sp.csr_matrix(adata.X, dtype=np.float32), var=adata.var[[]])
    ae.tl.embed(adata)
    model = ae.get.model(adata)
    said, observed, scaled = [], [], []
    for seed in range(N_REPEATS):
        ae.pp.thin_counts(adata, 0.5, random_state=seed)
        (one, sd_one), (other, sd_other) = (
            model.encode(adata, layer=layer, return_sd=True) for layer in ("thinned", "thinned_rest")
        )
        said.append(sd_one)
        observed.append((one - other) / np.sqrt(2))
        scaled.append((one - other) / np.hypot(sd_one, sd_other))
    depth = np.asarray(adata.X.sum(1)).ravel()
    found = []
    for cells in np.array_split(np.argsort(depth), N_BINS):
        row = {"of": name, "cells": len(cells), "molecules": int(np.median(depth[cells]))}
        row |= {key: rms(np.stack(v)[:, cells]) for key, v in (("sd", said), ("observed", observed), ("ratio", scaled))}
        found.append(row)
        print(row, flush=True)
    return found


def picture(table: pd.DataFrame, path: Path) -> None:
    """Estimated against observed standard deviations."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(4, 3.8), layout="constrained")
    for name, part in table.groupby("of", sort=False):
        ax.plot(part["sd"], part["observed"], "o-", label=name)
    ax.axline((0.4, 0.4), slope=1, color="0.5", lw=1)
    ax.set(xlabel="estimated standard deviation", ylabel="observed between halves")
    ax.legend(frameon=False, title="fifths of the cells, by depth")
    fig.savefig(path, dpi=150)


def main() -> None:
    """Run everything, print and write the table and the picture."""
    table = pd.DataFrame([row for name in SETS for row in rows(name)])
    page = "\n".join(["`python benchmarks/embedding_sd.py`, see there.", "", *markdown(table, 2), ""])
    print(page)
    table.to_csv(RESULTS / "embedding_sd.csv", index=False, float_format="%.4g")
    (RESULTS / "embedding_sd.md").write_text(page)
    picture(table, ROOT / "docs" / "_static" / "embedding_sd.png")


if __name__ == "__main__":
    main()
