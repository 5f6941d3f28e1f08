"""Random calls, writers and signals for some minutes: nothing may grow, nothing may be left, nothing half written.

    python benchmarks/soak.py --minutes 10

Each part gets a quarter of the time.

calls     random tools on random small data, with random mistakes. A call returns or refuses (ValueError, TypeError,
          KeyError); X is never changed, and after a refusal the object is as it was. Memory, threads and open files are
          counted along the way.
stops     the same tools, stopped by a KeyboardInterrupt at a random moment: the object is as it was, or the results are
          all there.
writers   two processes save models to the same few files and load them, and are killed at random moments: a file is one of
          the models, to the byte. What the killed ones left is gone after the next clean run.
signals   the command line, stopped by SIGINT, SIGTERM or SIGKILL at a random moment: the output is the old or the new one;
          the first two leave nothing behind, and what the third leaves is gone after the next run.

Written with --write: benchmarks/results/soak.md. Exit code 1 where something went wrong. Needs /proc (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import torch
from corpus import digest, small_budget

import aeverse as ae
from aeverse import cli

RESULTS = Path(__file__).parent / "results"
QUICK = {"n_models": 1, "n_latent": 4, "progress": False}
REFUSALS = (ValueError, TypeError, KeyError)
OPTIONS = ["--n-models", "1", "--n-latent", "4", "--overwrite"]


@dataclass
class Part:
    """What one part found: counts of what happened, faults, figures."""

    name: str
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)


# ---- random data and calls ---------------------------------------------------------------------------------------
def counts(rng: np.random.Generator) -> ad.AnnData:
    """Random counts, sometimes with a mistake in them."""
    n_cells, n_genes = int(rng.integers(1, 60)), int(rng.integers(1, 30))
    adata = ae.datasets.simulate_counts(
        n_cells, n_genes, n_types=int(rng.integers(1, 4)), random_state=int(rng.integers(99))
    )
    adata.obs["batch"] = rng.choice(["a", "b"], n_cells)
    adata.obs["group"] = pd.Categorical(rng.choice(["x", "y", "z"], n_cells))
    adata.obs["time"], adata.obs["event"] = rng.exponential(9, n_cells), rng.integers(0, 2, n_cells)
    mistake = rng.integers(12)
    if mistake == 0:
        adata.X = adata.X.astype(np.float64) * 0.5
    elif mistake == 1:
        adata.X = adata.X.toarray()
    elif mistake == 2:
        adata.var_names = ["gene"] * n_genes
    elif mistake == 3:
        adata.obs["batch"] = np.nan
    elif mistake == 4:
        adata.uns["ae"] = "mine"
    elif mistake == 5:
        adata = adata[: n_cells // 2]
    return adata


def tools(rng: np.random.Generator) -> dict[str, Callable[[ad.AnnData], object]]:
    """Calls by name, with random options."""
    seed = int(rng.integers(-1, 20))
    batch_key = rng.choice(np.array(["batch", "group", "nope", None], object), p=[0.2, 0.1, 0.1, 0.6])
    common = {**QUICK, "random_state": seed, "batch_key": batch_key}
    likelihood = str(rng.choice(["auto", "nb", "gaussian", "fractions"]))
    regularizer = rng.choice(np.array(["denoising", "variational", "contractive", "graph", None], object))
    return {
        "denoise": lambda a: ae.tl.denoise(a, uncertainty=bool(rng.integers(2)), **common),
        "embed": lambda a: ae.tl.embed(a, likelihood=likelihood, regularizer=regularizer, **common),
        "pca": lambda a: ae.tl.embed(a, method="pca", n_latent=int(rng.integers(-1, 5)), random_state=seed),
        "dropouts": lambda a: ae.tl.dropouts(a, random_state=seed, progress=False),
        "subtypes": lambda a: ae.tl.subtypes(a, use_rep="X_ae", n_resamples=10, evidence_rep=None, random_state=seed),
        "survival": lambda a: ae.tl.survival(a, time_key="time", event_key="event", groupby="group", n_splits=2),
        "associations": lambda a: ae.tl.associations(a, groupby="group", columns=["time", "batch"]),
        "get.denoised": lambda a: ae.get.denoised(a, list(a.var_names[:2])),
        "thin_counts": lambda a: ae.pp.thin_counts(a, float(rng.uniform(-0.2, 1.2)), random_state=seed),
        "map_query": lambda a: ae.tl.map_query(a, ae.get.model(a), key_added="X_query"),
        "attribute": lambda a: ae.tl.attribute(a, ae.get.model(a), groupby="group", n_top=3),
        "latent": lambda a: _drawn(lambda: ae.pl.latent(a, color="group", show=False)),
        "file": lambda a: _through_a_file(a),
        "several": lambda a: _several(a, rng),
    }


def _drawn(draw: Callable[[], object]) -> None:
    import matplotlib.pyplot as plt

    try:
        draw()
    finally:
        plt.close("all")


def _through_a_file(adata: ad.AnnData) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = ae.get.model(adata)
        model.save(Path(folder) / "m.ae")
        again = ae.models.load(Path(folder) / "m.ae")
        if not np.array_equal(again.encode(adata), model.encode(adata)):
            raise AssertionError("a model that was saved and loaded gives another embedding")


def _several(adata: ad.AnnData, rng: np.random.Generator) -> None:
    other = ad.AnnData(rng.normal(size=(adata.n_obs, 5)).astype("float32"), obs=adata.obs[[]])
    ae.tl.multimodal_embed(md.MuData({"a": adata.copy(), "b": other}), n_latent=4, progress=False)


def content(adata: ad.AnnData) -> tuple[str, str]:
    """Hashes of X, and of everything."""
    return digest(adata.X), digest(adata)


def whole(adata: ad.AnnData) -> bool:
    """Whether all that records say was written is there."""
    store = adata.uns.get("ae", {})
    keys = [str(key).split("/", 1) for entry in store.values() for key in entry.get("writes", ())]
    return all(key in getattr(adata, slot) for slot, key in keys)


# ---- what is left ------------------------------------------------------------------------------------------------
def memory() -> float:
    """Megabytes that are resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def n_threads() -> int:
    """Threads of this process, of libraries too."""
    return len(os.listdir("/proc/self/task"))


def n_files() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd"))


# ---- parts -------------------------------------------------------------------------------------------------------
def calls(seconds: float, rng: np.random.Generator) -> Part:
    """Random calls; a third of the time is warming up, since libraries keep what they compile."""
    part, track, start, n = Part("calls"), [], time.monotonic(), 0
    while (spent := time.monotonic() - start) < seconds:
        adata, before = counts(rng), None
        for _ in range(int(rng.integers(1, 6))):
            available = tools(rng)
            name = str(rng.choice(list(available)))
            before, n = content(adata), n + 1
            try:
                available[name](adata)
                part.counts["returned"] += 1
            except REFUSALS as error:
                part.counts["refused"] += 1
                if content(adata) != before:
                    part.faults.append(f"{name} refused and changed the object: {error}")
            except Exception as error:  # noqa: BLE001 (what we look for)
                part.faults.append(f"{name}: {type(error).__name__}: {str(error)[:120]}")
            if content(adata)[0] != before[0]:
                part.faults.append(f"{name} changed X")
        if spent > seconds / 3:
            track.append((n, memory(), n_threads(), n_files()))
    if len(track) > 20:
        number, megabytes, threads, files = (np.array(column, float) for column in zip(*track, strict=True))
        slope = np.polyfit(number, megabytes, 1)[0] * 1000
        part.figures["memory"] = f"{megabytes[0]:.0f} to {megabytes[-1]:.0f} MB, {slope:+.2f} MB per 1,000 calls"
        part.figures["threads, open files"] = f"{threads[-1] - threads[0]:+.0f}, {files[-1] - files[0]:+.0f}"
        if threads[-1] > threads[0] or files[-1] > files[0]:
            part.faults.append("threads or files were left open")
    return part


def stops(seconds: float, rng: np.random.Generator) -> Part:
    """Calls that are stopped by a KeyboardInterrupt at a random moment."""
    part, start = Part("stops"), time.monotonic()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    usual = 0.3
    try:
        while time.monotonic() - start < seconds:
            adata = ae.datasets.simulate_counts(40, 20, random_state=int(rng.integers(99)))
            was, began = digest(adata), time.monotonic()
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 1.2 * usual))
                ae.tl.denoise(adata, **QUICK)
                signal.setitimer(signal.ITIMER_REAL, 0)
                part.counts["returned"] += 1
                usual = 0.9 * usual + 0.1 * (time.monotonic() - began)
            except KeyboardInterrupt:
                part.counts["stopped"] += 1
            finally:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0)
            if digest(adata) != was and not (whole(adata) and "denoised" in adata.uns.get("ae", {})):
                part.faults.append("stopped with results that are not whole")
    finally:
        signal.signal(signal.SIGALRM, before)
    return part


def writers(seconds: float, rng: np.random.Generator, folder: Path) -> Part:
    """Two processes on one folder of models, killed now and then."""
    part, adata = Part("writers"), ae.datasets.simulate_counts(40, 20)
    models = [ae.models.Autoencoder(n_models=1, n_latent=4, random_state=s).fit(adata, progress=False) for s in (0, 1)]
    known = [digest(model.encode(adata)) for model in models]

    def work(seed: int) -> None:
        draw = random.Random(seed)
        while True:
            path = folder / f"{draw.randrange(3)}.ae"
            models[draw.randrange(2)].save(path)
            if digest(ae.models.load(path).encode(adata)) not in known:
                os._exit(3)

    start, children = time.monotonic(), {}
    while time.monotonic() - start < seconds:
        while len(children) < 2:
            children[_forked(lambda: work(int(rng.integers(1 << 30))))] = True
        time.sleep(rng.uniform(0.05, 0.6))
        child = list(children)[int(rng.integers(2))]
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        del children[child]
        part.counts["killed"] += 1
        if os.WIFEXITED(status):
            part.faults.append(f"a writer ended with {os.WEXITSTATUS(status)}")
        for path in folder.glob("*.ae"):
            part.counts["loaded"] += 1
            if digest(ae.models.load(path).encode(adata)) not in known:
                part.faults.append(f"{path.name} is neither of the models")
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    models[0].save(folder / "0.ae")
    if left := [p.name for p in folder.iterdir() if p.suffix != ".ae"]:
        part.faults.append(f"left behind: {left}")
    return part


def signals(seconds: float, rng: np.random.Generator, folder: Path) -> Part:
    """The command line, stopped at random moments."""
    part, source = Part("signals"), folder / "in.h5ad"
    ae.datasets.simulate_counts(40, 20).write_h5ad(source)
    outputs = [folder / "out.h5ad", folder / "out.zarr"]
    start = time.monotonic()
    for output in outputs:
        _forked_and_waited(["denoise", str(source), str(output), *OPTIONS])
    usual = (time.monotonic() - start) / 2
    while time.monotonic() - start < seconds:
        output = outputs[int(rng.integers(2))]
        number = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL][int(rng.integers(3))]
        command = ["denoise", str(source), str(output), *OPTIONS, "--random-state", str(int(rng.integers(50)))]
        began, left_before = time.monotonic(), _leftovers(folder)
        child = _forked(lambda command=command: cli.main(command))
        code = _stopped(child, number, began + rng.uniform(0, 1.2 * usual))
        if code == 0:
            usual = 0.8 * usual + 0.2 * (time.monotonic() - began)
        part.counts[f"{number.name}: {'done' if code == 0 else 'stopped'}"] += 1
        allowed = {0, -number} if number == signal.SIGKILL else {0, cli.INTERRUPTED, -number}
        if code not in allowed:
            part.faults.append(f"{number.name}: exit code {code}")
        _check_outputs(part, outputs, number.name)
        if code in (0, cli.INTERRUPTED) and (left := _leftovers(folder) - left_before):
            part.faults.append(f"{number.name} left {sorted(left)}")
    _forked_and_waited(["denoise", str(source), str(outputs[0]), *OPTIONS])
    if left := {p.name for p in folder.iterdir()} - {"in.h5ad", "out.h5ad", "out.zarr"}:
        part.faults.append(f"left behind: {sorted(left)}")
    return part


def _leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".aeverse-")}


def _check_outputs(part: Part, outputs: list[Path], when: str) -> None:
    for output in outputs:
        if output.exists():
            read = ad.read_h5ad if output.suffix == ".h5ad" else ad.read_zarr
            adata = read(output)
            if "denoised" not in adata.layers or not whole(adata):
                part.faults.append(f"{output.name} is not whole after {when}")


def _forked(work: Callable[[], object]) -> int:
    """The id of a process that does some work, quietly."""
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        code = 4
        try:
            code = work() or 0
        finally:
            os._exit(code)
    return child


def _forked_and_waited(command: list[str]) -> None:
    os.waitpid(_forked(lambda: cli.main(command)), 0)


def _stopped(child: int, number: signal.Signals, at: float) -> int:
    """Send a signal at a time; the exit code."""
    while time.monotonic() < at:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ---- all ---------------------------------------------------------------------------------------------------------
def soak(seconds: float, seed: int = 0) -> list[Part]:
    """All parts; processes are forked before any thread of ours could be."""
    rng, found = np.random.default_rng(seed), []
    torch.set_num_threads(1)
    with small_budget(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        for name in ("writers", "signals"):
            (Path(folder) / name).mkdir()
        _warm_up()
        for part in (
            lambda: writers(seconds / 4, rng, Path(folder) / "writers"),
            lambda: signals(seconds / 4, rng, Path(folder) / "signals"),
            lambda: stops(seconds / 4, rng),
            lambda: calls(seconds / 4, rng),
        ):
            found.append(part())
            print(table(found[-1:]), *found[-1].faults, sep="\n", flush=True)
    if threading.active_count() > 1 and not any("tqdm" in t.name.lower() for t in threading.enumerate()):
        found[-1].figures["threads of Python"] = ", ".join(t.name for t in threading.enumerate())
    return found


def _warm_up() -> None:
    """Import all: an extension module whose import is interrupted cannot be imported again by the same process."""
    rng = np.random.default_rng(0)
    for call in tools(rng).values():
        adata = ae.datasets.simulate_counts(40, 20)
        adata.obs["group"], adata.obs["batch"] = ["x", "y"] * 20, "a"
        adata.obs["time"], adata.obs["event"] = rng.exponential(9, 40), [0, 1] * 20
        with contextlib.suppress(*REFUSALS):
            ae.tl.denoise(adata, **QUICK)
            call(adata)


def table(found: list[Part]) -> str:
    """As Markdown."""
    lines = ["| part | what happened | figures | faults |", "|---|---|---|---:|"]
    for part in found:
        happened = ", ".join(f"{name} {n:,}" for name, n in sorted(part.counts.items()))
        figures = "; ".join(f"{name} {value}" for name, value in part.figures.items())
        lines.append(f"| {part.name} | {happened} | {figures} | {len(part.faults)} |")
    return "\n".join(lines)


def main() -> None:
    """Soak, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/soak.md")
    args = parser.parse_args()
    found = soak(60 * args.minutes, args.seed)
    print(table(found))
    faults = [f"{part.name}: {fault}" for part in found for fault in part.faults]
    print("\n".join(f"{n} x {fault}" for fault, n in Counter(faults).most_common(50)))
    if args.write:
        said = f"`python benchmarks/soak.py --minutes {args.minutes:g} --write`, seed {args.seed}, on a shared machine."
        (RESULTS / "soak.md").write_text(f"{said} What the parts are, the script says.\n\n{table(found)}\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
