"""What all benchmarks share: cases, each in a process of its own, and the table that they go into.

A case is a data set, a method and a seed. It runs in a fresh process with a given number of threads; its row holds the scores,
seconds (wall), cpu_seconds, memory_mb (peak of the process beyond what it held after imports and reading), the versions of
what it depends on, the commit, and a key: a hash of the script, of the data and, for our own methods, of the package. A case
whose row has the same key is not run again.

A script declares its cases and how to score one::

    if __name__ == "__main__":
        harness.main(__file__, __doc__, data=DATA_SETS, methods=METHODS, score=score, write=write)

``score(data, method, seed)`` returns the columns of the row; what it does within ``harness.timed()`` is what is measured.
``write(table)`` makes the Markdown and the picture from all rows.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
CASE = ["data", "method", "seed"]
PACKAGES = ("anndata", "numpy", "scanpy", "torch", "scvi-tools", "muon", "harmonypy")
OURS = "aeverse"  # what the names of our methods start with

Score = Callable[[str, str, int], dict[str, Any]]
_cost: dict[str, float] = {}


@contextlib.contextmanager
def timed() -> Iterator[None]:
    """What a case measures: wall time, processor time and the peak of memory beyond what was held before."""
    before = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    _cost.update(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu, memory_mb=_peak() - before)


def main(
    file: str, doc: str | None, *, data: Iterable[str], methods: Iterable[str], score: Score, write: Callable
) -> None:
    """Parse the command line, run the cases that are not in the table yet, and write it."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[*data], choices=[*data])
    parser.add_argument("--methods", nargs="+", default=[*methods], choices=[*methods])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run also what has not changed since it was run")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    if args.one:
        scores = score(args.data[0], args.methods[0], args.seeds[0])
        print(json.dumps({**scores, **_cost}))
        return
    path = RESULTS / f"{Path(file).stem}.csv"
    for case in [(d, m, s) for d in args.data for m in args.methods for s in args.seeds]:
        row = dict(zip(CASE, case, strict=True))
        key = content_key(file, *case[:2])
        table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*CASE, "key"])
        if not args.again and ((table[[*CASE, "key"]] == [*case, key]).all(axis=1)).any():
            continue
        result = _in_a_process(file, case, args.threads)
        if result is None:
            continue
        row |= result
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)
        row |= {"key": key, "commit": commit(), "versions": versions()}
        kept = table[~(table[CASE] == list(case)).all(axis=1)]
        table = pd.concat([kept, pd.DataFrame([row])], ignore_index=True) if len(kept) else pd.DataFrame([row])
        table.sort_values(CASE).to_csv(path, index=False, float_format="%.5g")
    write(pd.read_csv(path))


def content_key(file: str, data: str, method: str) -> str:
    """Hash of what a row depends on."""
    known = hashlib.sha256(Path(file).read_bytes())
    for source in sorted(DATA.glob(f"{data}.h5*")):
        known.update(f"{source.name} {source.stat().st_size}".encode())
    if method.startswith(OURS):
        for source in sorted((ROOT / "src" / "aeverse").rglob("*.py")):
            known.update(source.read_bytes())
    return known.hexdigest()[:12]


def commit() -> str:
    """The commit that is run, with a plus where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False)
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


def versions() -> str:
    """Of Python and the packages that there are."""
    there = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            there.append(f"{package} {version(package)}")
    return "; ".join(there)


def _in_a_process(file: str, case: tuple[str, str, int], threads: int) -> dict[str, Any] | None:
    data, method, seed = case
    command = [sys.executable, file, "--one", "--data", data, "--methods", method, "--seeds", str(seed)]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    environment = {**os.environ, **limits, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        print(f"{data} {method} {seed} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def _peak() -> float:
    """Largest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
