"""How time and memory grow with the number of cells, and what reading from disk in blocks costs in quality.

    python benchmarks/scale.py --cells 1000 10000 100000 1000000 --genes 2000
    python benchmarks/scale.py --blocks

The first command simulates counts (40 populations, about 90 genes with molecules in a cell at 2,000 genes), writes them to
zarr, and runs each method in a process of its own, one after another, from the file to the embedding of all cells in memory:

aeverse      tl.embed of a file that stays on disk (counts beyond ten million entries are read in blocks), one member
aeverse_3    the same with the default of three members
scvi         scVI on the counts in memory. Two epochs are run; the time is that of its default number of epochs at this
             rate, which is an extrapolation

seconds      wall time, imports not counted
cpu          seconds of CPU of the process, which depend less on what else the machine does
memory       largest resident size beyond imports, MB
load         load average of the machine at the end: above its number of cores, wall time says little, and seconds of CPU
             are up to three times those of a quiet machine

The second command holds out a tenth of the molecules of mosaic_pbmc15k's RNA (10,849 cells, 4,000 genes), sorts the cells by
type (the worst order for blocks), and trains one member from the file with different block sizes. D2 is the Poisson deviance
of the held-out molecules explained beyond library size x gene mean.

Written to benchmarks/results/scale.csv, scale.md, scale.png and scale_blocks.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from harness import commit

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
METHODS = ("aeverse", "aeverse_3", "scvi")
SCVI_EPOCHS = 2
# rows of a block, blocks in the buffer; None: in memory
BLOCKS = (None, (2048, 16), (512, 16), (128, 16), (32, 16), (2048, 1))
POPULATIONS, STEP = 40, 10_000
FAR = 100_000_000  # cells


# ---- data ----------------------------------------------------------------------------------------------------------
def simulated(folder: Path, n_cells: int, n_genes: int) -> Path:
    """A zarr of simulated counts, written block by block unless it is there."""
    import anndata as ad
    import pandas as pd
    import zarr

    path = folder / f"sim_{n_cells}_{n_genes}.zarr"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    base = rng.normal(-1.5, 1.6, n_genes)
    loadings = rng.normal(0, 1, (12, n_genes)) * (rng.random((12, n_genes)) < 0.3)
    centers = rng.normal(0, 1, (POPULATIONS, 12))

    def cells(n: int) -> sp.csr_matrix:
        z = centers[rng.integers(0, POPULATIONS, n)] + rng.normal(0, 0.25, (n, 12))
        mean = np.exp(base + z @ loadings)
        mean *= rng.lognormal(np.log(300), 0.4, n)[:, None] / mean.sum(1, keepdims=True)
        return sp.csr_matrix(rng.poisson(mean).astype(np.float32))

    names = {"obs": pd.DataFrame(index=[f"c{i}" for i in range(n_cells)])}
    names["var"] = pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])
    store = zarr.open_group(str(path), mode="w")
    ad.io.write_elem(store, "/", ad.AnnData(sp.csr_matrix((0, n_genes), dtype=np.float32), var=names["var"]))
    ad.io.write_elem(store, "X", cells(min(STEP, n_cells)))
    for start in range(STEP, n_cells, STEP):
        ad.io.sparse_dataset(store["X"]).append(cells(min(STEP, n_cells - start)))
    ad.io.write_elem(store, "obs", names["obs"])
    return path


# ---- one run -------------------------------------------------------------------------------------------------------
def resident() -> float:
    """Resident size of this process, MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


class Peak(threading.Thread):
    """Remembers the largest resident size of this process."""

    def __init__(self):
        super().__init__(daemon=True)
        self.base = self.largest = resident()
        self.start()

    def run(self) -> None:
        while True:
            self.largest = max(self.largest, resident())
            time.sleep(0.05)


def embed(path: Path, n_models: int) -> None:
    """What `aeverse embed` does, without writing the file."""
    import aeverse as ae
    from aeverse._slots import open_file

    adata = open_file(path)
    ae.tl.embed(adata, likelihood="nb", n_models=n_models)
    assert len(adata.obsm["X_ae"]) == adata.n_obs


def scvi_epochs(path: Path) -> float:
    """How many times longer scVI's default training would take than what is run here."""
    import anndata as ad
    import scvi

    scvi.settings.seed = 0
    adata = ad.read_zarr(path)
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(max_epochs=SCVI_EPOCHS, accelerator="cpu", enable_progress_bar=False, logger=False)
    return min(round(20_000 / adata.n_obs * 400), 400) / SCVI_EPOCHS


def run(path: Path, method: str) -> dict:
    """Time and memory of a method from the file to the embedding."""
    import anndata  # noqa: F401 (imports are not counted)
    import igraph  # noqa: F401
    import scanpy  # noqa: F401

    if method == "scvi":
        import scvi  # noqa: F401
    else:
        import aeverse as ae

        ae.tl.embed(ae.datasets.simulate_counts(60, 30), n_models=1)  # loads what loads when first used
    peak, wall, cpu = Peak(), time.perf_counter(), time.process_time()
    factor = scvi_epochs(path) if method == "scvi" else embed(path, 3 if method == "aeverse_3" else 1) or 1.0
    seconds, busy = time.perf_counter() - wall, time.process_time() - cpu
    _, n_cells, n_genes = path.stem.split("_")
    return {
        "cells": int(n_cells),
        "genes": int(n_genes),
        "method": method,
        "seconds": seconds * factor,
        "cpu": busy * factor,
        "memory": peak.largest - peak.base,
        "extrapolated": factor != 1,
        "load": os.getloadavg()[0],
        "commit": commit(),
    }


def run_block(block: tuple[int, int] | None) -> dict:
    """Held-out D2 after training with blocks of this size."""
    import anndata as ad
    import mudata

    import aeverse as ae
    from aeverse._slots import _stored as slots
    from aeverse.train import _stored as train

    rna = mudata.read_h5mu(DATA / "mosaic_pbmc15k.h5mu")
    order = np.argsort(rna.obs["cell_type"].astype(str).to_numpy(), kind="stable")
    names = rna.obs_names[order]
    rna = rna["rna"]
    rna = ad.AnnData(rna.layers["counts"], obs=rna.obs[[]], var=rna.var[[]])[names].copy()
    ae.pp.thin_counts(rna, 0.9)
    seen, heldout = rna.layers["thinned"], rna.layers["thinned_rest"]
    if block is not None:
        slots.LARGEST_READ, slots.MOST_ROWS, train.BUFFER_BLOCKS = 0, *block
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        ad.AnnData(seen, obs=rna.obs, var=rna.var).write_h5ad(f"{folder}/seen.h5ad")
        adata = ad.read_h5ad(f"{folder}/seen.h5ad", backed="r")
        model = ae.models.Autoencoder(likelihood="nb", n_models=1, share_calibration=0.0).fit(adata)
        denoised = model.denoise(adata)
    return {
        "rows": "in memory" if block is None else block[0],
        "blocks": "" if block is None else block[1],
        "cells": rna.n_obs if block is None else min(block[0] * block[1], rna.n_obs),
        "D2": ae.metrics.deviance_explained(denoised, seen, heldout),
        "cpu": time.process_time() - start,
    }


# ---- all runs ------------------------------------------------------------------------------------------------------
def main() -> None:
    """Run everything asked for, one process each; add to the tables; draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--genes", nargs="+", type=int, default=[2000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "aeverse-scale")
    parser.add_argument("--blocks", nargs="*", type=int, help="numbers of the rows of the table; none: all")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.one:
        own = args.blocks is not None
        path = None if own else simulated(args.folder, args.cells[0], args.genes[0])
        print(json.dumps(run_block(BLOCKS[args.blocks[0]]) if own else run(path, args.methods[0])))
    elif args.blocks is not None:
        for i in args.blocks or range(len(BLOCKS)):
            add(one(["--blocks", str(i)]), "scale_blocks.csv", ["rows", "blocks"])
        report()
    else:
        for p, n, m in [(p, n, m) for p in args.genes for n in args.cells for m in args.methods]:
            simulated(args.folder, n, p)
            options = ["--cells", str(n), "--genes", str(p), "--methods", m, "--folder", str(args.folder)]
            add(one(options), "scale.csv", ["cells", "genes", "method"])
            report()


def one(options: list[str]) -> dict:
    """The row that a process of its own prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--one", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    row = json.loads(done.stdout.strip().splitlines()[-1])
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    return row


def add(row: dict, file: str, keys: list[str]) -> None:
    """Put a row into a table on disk, in place of an older one."""
    import pandas as pd

    table, path = pd.DataFrame([row]).astype(dict.fromkeys(keys, str)), RESULTS / file
    if path.exists():
        old = pd.read_csv(path, dtype=dict.fromkeys(keys, str), keep_default_na=False)
        table = pd.concat([old[~(old[keys] == table.loc[0, keys].to_list()).all(axis=1)], table], ignore_index=True)
    table.to_csv(path, index=False, float_format="%.5g")


def report() -> None:
    """Write the summary of both tables and its picture."""
    import pandas as pd
    from tables import markdown

    lines = []
    if (RESULTS / "scale.csv").exists():
        table = pd.read_csv(RESULTS / "scale.csv").sort_values(["genes", "cells", "method"])
        lines += [
            "`python benchmarks/scale.py`: from a zarr on disk to the embedding of all cells, see there. The machine has two",
            "cores and was shared (`load`): seconds of CPU compare better than wall time. MB are beyond imports.",
            "",
            *markdown(table, decimals=1),
            "",
            *_far_beyond(table),
        ]
        _draw(table)
    if (RESULTS / "scale_blocks.csv").exists():
        table = pd.read_csv(RESULTS / "scale_blocks.csv", keep_default_na=False)
        lines += [
            "`python benchmarks/scale.py --blocks`: held-out D2 (mosaic_pbmc15k's RNA, cells sorted by type, one member) against",
            "the rows of a block and the blocks in the buffer in which cells are shuffled; `cells` are those in the buffer.",
            "",
            *markdown(table, decimals=4),
            "",
        ]
    (RESULTS / "scale.md").write_text("\n".join(lines))


def _far_beyond(table) -> list[str]:
    """What more cells would take at the rate of the largest run."""
    own = table[(table["method"] == "aeverse") & (table["genes"] == table["genes"].min())]
    n, seconds = own.sort_values("cells")[["cells", "cpu"]].to_numpy()[-1]
    text = f"Computed at the rate of the largest run of one member, training included, not measured: {FAR:,} cells would take"
    return [f"{text} {seconds / n * FAR / 3600:.1f} hours of CPU.", ""]


def _draw(table) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for color, (name, part) in zip(["#d95f02", "#1b9e77", "#7f7f7f"], table.groupby("method"), strict=False):
        part = part[part["genes"] == table["genes"].min()].sort_values("cells")
        style = {"marker": "o", "color": color, "ls": ":" if part["extrapolated"].any() else "-"}
        axes[0].loglog(
            part["cells"], part["cpu"], label=name + (" (extrapolated)" if style["ls"] == ":" else ""), **style
        )
        axes[1].loglog(part["cells"], part["memory"].clip(lower=1), **style)
    axes[0].set(title=f"{table['genes'].min():,} genes", xlabel="cells", ylabel="seconds of CPU")
    axes[1].set(title="beyond imports", xlabel="cells", ylabel="peak memory, MB")
    for ax, ticks in zip(axes, ([1, 10, 100, 1000], [50, 100, 200, 500, 1000, 2000]), strict=True):
        ax.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        ax.set_yticks([], minor=True)
    fig.legend(loc="outside lower center", ncols=3, frameon=False)
    fig.savefig(RESULTS / "scale.png", dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
