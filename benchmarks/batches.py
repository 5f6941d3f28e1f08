"""tl.embed with batch_key: are batches mixed, and are the cell types still there?

    python benchmarks/batches.py                    # everything; scVI takes most of the time

The cells of snare_cortex (RNA, 12 batches) and 4,000 of mosaic_pbmc15k (RNA, 2 batches: two experiments; cells of unknown type
are embedded, and not judged) are embedded by one call of tl.embed each, with the defaults of the method:

aeverse, aeverse_batch    ours, without and with batch_key
pca                       of scanpy's recipe, which knows nothing of batches
harmony                   harmonypy's defaults on the components of pca
scvi                      with batch_key

batch      the mean of what follows, aeverse.metrics.batch_score
ilisi      effective number of batches among 90 neighbors, scaled to 0 .. 1
kbet       share of cells whose 50 neighbors hold the batches in the proportions of all cells; within each type, where types
           are known in more than one batch (snare_cortex)
silhouette, connectivity   of the batches within each type, and of the types, likewise
ari, nmi, n_clusters       of scanpy's default call with the types, and purity: balanced accuracy of the labels of a cell's 15
                           nearest cells
seconds    of CPU, one thread

Written are benchmarks/results/batches.csv, batches.md and batches.png; ``--codes FOLDER`` keeps the codes, to go on from there.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scores import default_scores
from tables import markdown, with_kept

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
METHODS = {
    "aeverse": {},
    "aeverse_batch": {"batch_key": "batch"},
    "pca": {"method": "pca"},
    "harmony": {"method": "pca"},
    "scvi": {"method": "scvi", "batch_key": "batch"},
}
CELLS = {"snare_cortex": 6989, "mosaic_pbmc15k": 4000}  # drawn at random; scVI takes long
SCORES = ("ari", "nmi", "n_clusters", "purity")
PARTS = ("ilisi", "kbet", "silhouette", "connectivity")


def read(name: str):
    """RNA counts with ``obs["label"]`` and ``obs["batch"]``."""
    import mudata as md

    mdata = md.read_h5mu(DATA / f"{name}.h5mu")
    rna = mdata["rna"].copy()
    for column, source in (("label", "cell_type"), ("batch", "batch")):
        rna.obs[column] = mdata.obs[source].reindex(rna.obs_names).astype(str).to_numpy()
    return rna[np.sort(np.random.default_rng(0).permutation(rna.n_obs)[: CELLS[name]])].copy()


def embedded(adata, method: str, seed: int, path: Path | None) -> tuple[np.ndarray, float]:
    """The code and the seconds it took, computed or read."""
    import aeverse as ae

    if path is not None and path.exists():
        with np.load(path) as kept:
            return kept["code"], float(kept["seconds"])
    start = time.process_time()
    ae.tl.embed(adata, **METHODS[method], key_added="X", random_state=seed, progress=False)
    code = harmonized(adata) if method == "harmony" else adata.obsm["X"]
    seconds = time.process_time() - start
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, code=code, seconds=seconds)
    return code, seconds


def harmonized(adata) -> np.ndarray:
    """The components of ``obsm["X"]``, moved by Harmony."""
    import harmonypy

    moved = np.asarray(harmonypy.run_harmony(adata.obsm["X"], adata.obs, "batch").Z_corr)
    return np.ascontiguousarray(moved if len(moved) == adata.n_obs else moved.T, np.float32)


def judged(code: np.ndarray, labels: np.ndarray, batches: np.ndarray) -> dict[str, float]:
    """Batch score, its parts, and what the default clusters are worth."""
    import aeverse as ae

    known = labels != "unknown"
    in_two = pd.Series(batches[known]).nunique() > 1
    parts = ae.metrics.batch_score(code, batches, labels=labels if in_two else None, parts=True)
    return {"batch": np.mean(list(parts.values())), **parts, **default_scores(code, labels)}


def main() -> None:
    """Run everything asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of ours; the others run once")
    parser.add_argument("--codes", type=Path, help="folder in which codes are kept")
    parser.add_argument(
        "--keep", action="store_true", help="keep the table's rows of data sets and methods that are not run now"
    )
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    warnings.simplefilter("ignore")
    rows = []
    for data in args.data:
        adata = read(data)
        labels, batches = adata.obs["label"].to_numpy(), adata.obs["batch"].to_numpy()
        for method in args.methods:
            for seed in args.seeds if method.startswith("aeverse") else args.seeds[:1]:
                path = None if args.codes is None else args.codes / f"{data}_{method}_{seed}.npz"
                code, seconds = embedded(adata.copy(), method, seed, path)
                row = {"data": data, "cells": adata.n_obs, "batches": len(set(batches)), "method": method, "seed": seed}
                rows.append({**row, **judged(code, labels, batches), "seconds": seconds})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    write(with_kept(table, RESULTS / "batches.csv") if args.keep else table)


def write(table: pd.DataFrame) -> None:
    """CSV, Markdown (means over seeds) and picture."""
    table.to_csv(RESULTS / "batches.csv", index=False, float_format="%.4g")
    by = ["data", "cells", "batches", "method"]
    mean = table.groupby(by, sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    mean = mean.reindex(columns=[*by, "batch", *PARTS, *SCORES, "seconds"])
    text = ["`python benchmarks/batches.py`, see there.", "", *markdown(mean)]
    (RESULTS / "batches.md").write_text("\n".join(text) + "\n")
    picture(table)


def picture(table: pd.DataFrame) -> None:
    """ARI over mixing, one panel a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colors = {
        "aeverse": "#fdba74",
        "aeverse_batch": "#c2410c",
        "pca": "#334155",
        "harmony": "#65a30d",
        "scvi": "#7dd3fc",
    }
    names = list(dict.fromkeys(table["data"]))
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), layout="constrained", squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        for method, own in table[table["data"] == name].groupby("method", sort=False):
            ax.scatter(own["batch"], own["ari"], s=36, color=colors[method], label=method)
        ax.set(title=name, xlabel="batch score: mixed →", ylabel="ARI of the default clusters →")
        ax.grid(color="#e2e8f0", lw=0.7)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, -1].legend(frameon=False, fontsize=8)
    figure.savefig(RESULTS / "batches.png", dpi=150)


if __name__ == "__main__":
    main()
