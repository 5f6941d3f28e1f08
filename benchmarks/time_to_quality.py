"""How well held-out molecules are explained after how many seconds: ours and scVI with early stopping.

    python benchmarks/time_to_quality.py --limit 600

A tenth of the molecules is held out (`aeverse.pp.thin_counts`); both see the rest, all genes. Seconds are those of the CPU on
one thread, from the counts to the denoised matrix, imports not counted, so that a busy machine counts little. D2 is the Poisson
deviance of the held-out molecules explained beyond library size x gene mean, of the whole denoised matrix.

aeverse   a whole call for each point: models.Autoencoder(max_steps=) is fitted, and denoises; the last point is the default
scVI      one training with early stopping and scVI's other defaults; at some epochs the present weights denoise. A point's
          seconds are those of training so far and of denoising once. --limit: seconds of training after which it is stopped

"scVI / ours" is scVI's time to its best D2, divided by that of our first point with at least that D2. Where scVI was stopped by
the limit at its best, it would have gone on, and the table says so: the ratio then says nothing about scVI's final D2.

Written to benchmarks/results/time_to_quality.csv, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
SETS, METHODS = ("pbmc3k", "mouse_bladder", "mosaic_pbmc15k"), ("aeverse", "scVI")
STEPS = (22, 44, 88, 175, None)
EPOCHS = {1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 400}


# ---- one run -------------------------------------------------------------------------------------------------------
def halves(name: str):
    """Counts that are seen, and the molecules held out."""
    import anndata as ad
    import mudata

    import aeverse as ae

    if name == "mosaic_pbmc15k":
        rna = mudata.read_h5mu(DATA / f"{name}.h5mu")["rna"]
        adata = ad.AnnData(rna.layers["counts"])
    else:
        adata = ad.AnnData(ad.read_h5ad(DATA / f"{name}.h5ad").X)
    ae.pp.thin_counts(adata, 0.9)
    return adata.layers["thinned"], adata.layers["thinned_rest"]


def aeverse(seen, heldout) -> list[dict]:
    """One call for each number of steps."""
    import anndata as ad

    import aeverse as ae

    ae.tl.denoise(ae.datasets.simulate_counts(60, 30), n_models=1)  # loads what loads when first used
    points = []
    for n_steps in STEPS:
        start, adata = time.process_time(), ad.AnnData(seen)
        model = ae.models.Autoencoder(likelihood="nb", max_steps=n_steps).fit(adata, progress=False)
        denoised = model.denoise(adata)
        seconds = time.process_time() - start
        d2 = ae.metrics.deviance_explained(denoised, seen, heldout)
        points.append({"after": model.history["step"][-1], "seconds": seconds, "D2": d2, "stopped": False})
        print(points[-1], file=sys.stderr, flush=True)
    return points


def scvi(seen, heldout, limit: float) -> list[dict]:
    """One training, looked at after some epochs."""
    import anndata as ad
    import scvi as tools
    from lightning.pytorch.callbacks import Callback

    import aeverse as ae

    tools.settings.seed = 0
    adata = ad.AnnData(seen.copy())
    points: list[dict] = []

    class Look(Callback):
        apart, start = 0.0, 0.0

        def on_train_epoch_end(self, trainer, module):
            before = time.process_time()
            trained = before - self.start - self.apart
            trainer.should_stop = trainer.should_stop or trained > limit
            if trainer.current_epoch + 1 not in EPOCHS and not trainer.should_stop:
                return
            model.module.eval()
            model.is_trained_ = True
            denoised = model.get_normalized_expression(library_size="latent", return_numpy=True)
            model.module.train()
            seconds = trained + time.process_time() - before
            d2 = ae.metrics.deviance_explained(denoised, seen, heldout)
            point = {"after": trainer.current_epoch + 1, "seconds": seconds, "D2": d2, "stopped": trained > limit}
            points.append(point)
            print(point, file=sys.stderr, flush=True)
            self.apart += time.process_time() - before

    look = Look()
    look.start = time.process_time()
    tools.model.SCVI.setup_anndata(adata)
    model = tools.model.SCVI(adata)
    model.train(accelerator="cpu", early_stopping=True, enable_progress_bar=False, logger=False, callbacks=[look])
    return points


# ---- all runs ------------------------------------------------------------------------------------------------------
def main() -> None:
    """Run everything asked for, one process each; add to the table; draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--limit", type=float, default=600)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        import torch

        torch.set_num_threads(1)
        split = halves(args.data[0])
        print(json.dumps(aeverse(*split) if args.methods == ["aeverse"] else scvi(*split, args.limit)))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    for data in args.data:
        for method in args.methods:
            command = [sys.executable, __file__, "--one", "--data", data, "--methods", method]
            command += ["--limit", str(args.limit)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
            points = json.loads(done.stdout.strip().splitlines()[-1])
            report(pd.DataFrame([{"data": data, "method": method, **point} for point in points]))


def report(points: pd.DataFrame) -> None:
    """Replace the points of a method on a data set, and write the summary and the picture."""
    from tables import markdown

    path = RESULTS / "time_to_quality.csv"
    if path.exists():
        old = pd.read_csv(path)
        same = (old["data"] == points.loc[0, "data"]) & (old["method"] == points.loc[0, "method"])
        points = pd.concat([old[~same], points], ignore_index=True)
    points = points.sort_values(["data", "method", "seconds"])
    points.to_csv(path, index=False, float_format="%.5g")
    rows = [row for data, own in points.groupby("data") if (row := summary(str(data), own)) is not None]
    if rows:
        lines = markdown(pd.DataFrame(rows), decimals=3)
        text = (
            "`python benchmarks/time_to_quality.py`, see there; seconds of CPU on one thread. Where the last column says yes,\n"
            "scVI was stopped by `--limit`, and the ratio is that of the times to the D2 that it had reached by then.\n\n"
        )
        (RESULTS / "time_to_quality.md").write_text(text + "\n".join(lines) + "\n")
    draw(points)


def summary(data: str, points: pd.DataFrame) -> dict | None:
    """scVI's time to its best, and ours to the same; None unless both were run."""
    ours, theirs = (points[points["method"] == name] for name in METHODS)
    if ours.empty or theirs.empty:
        return None
    best = theirs.loc[theirs["D2"].idxmax()]
    enough = ours[ours["D2"] >= best["D2"]]["seconds"]
    own = float(enough.min()) if len(enough) else np.nan
    cut = bool(theirs["stopped"].any()) and best.name == theirs["seconds"].idxmax()
    return {
        "data": data,
        "best D2 of scVI": best["D2"],
        "its epochs": str(int(best["after"])),
        "its seconds": round(best["seconds"], 1),
        "our seconds to that": round(own, 1),
        "D2 of our default": ours["D2"].iloc[-1],
        "our default's seconds": round(ours["seconds"].iloc[-1], 1),
        "scVI / ours": round(best["seconds"] / own, 1),
        "scVI stopped while it got better": "yes" if cut else "no",
    }


def draw(points: pd.DataFrame) -> None:
    """D2 against seconds, one panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = [name for name in SETS if name in set(points["data"])]
    fig, axes = plt.subplots(1, len(sets), figsize=(3.8 * len(sets), 3.4), layout="constrained", squeeze=False)
    for ax, data in zip(axes.flat, sets, strict=True):
        for method, color in zip(METHODS, ("#d95f02", "#7f7f7f"), strict=True):
            own = points[(points["data"] == data) & (points["method"] == method)]
            ax.plot(own["seconds"], own["D2"], "o-", color=color, label=method, ms=4)
        ax.set(title=data, xscale="log", xlabel="seconds of CPU", ylabel="D2 (held out)", ylim=(-0.2, None))
        ax.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
        ax.set_xticks([], minor=True)
        ax.axhline(0, color="black", lw=0.6)
    axes[0, 0].legend(frameon=False)
    fig.savefig(RESULTS / "time_to_quality.png", dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
