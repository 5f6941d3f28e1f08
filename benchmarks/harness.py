"""What all benchmarks share: cases, each in a process of its own, and the tables that they go into.

A case is a data set, a method and a seed. It runs in a fresh process with a given number of threads. Its rows hold the scores,
seconds (wall), cpu_seconds, memory_mb (peak of the process beyond what it held after imports and reading), the versions of
what it depends on, the commit that measured it, and a key: a hash of the code that the case runs, of the data and of the package
(for peers, of `aeverse.methods`). A case whose rows have the same key is not run again.

A script declares its cases and how to score one::

    CASES = [harness.Cases("embed", data=SETS, methods=METHODS, score=labeled, seeds=(0, 1, 2), quick=(["pbmc68k"], ["pca"]))]

    if __name__ == "__main__":
        harness.main(__file__, __doc__, CASES, write)

``score(data, method, seed)`` returns a row or a list of them; what it does within ``harness.timed()`` is what is measured.
``write(tables, folder)`` returns the lines of the Markdown page, made from all rows, and draws the pictures. ``--quick`` runs the part of the cases that is
declared for it, all in one process, and writes to a temporary folder.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import hashlib
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
CASE = ["data", "method", "seed"]
RECORD = ["key", "commit", "versions"]
PACKAGES = ("anndata", "numpy", "scanpy", "torch", "scvi-tools", "muon", "harmonypy")
OURS = "aeverse"  # what the names of our methods start with
PLAIN = (str, int, float, bool, tuple, list, type(None))

Rows = dict[str, Any] | list[dict[str, Any]]
Write = Callable[[dict[str, pd.DataFrame], Path], list[str]]
_cost: dict[str, float] = {}


@dataclass(frozen=True)
class Cases:
    """The cases of one table: every data set by every method by every seed, where ``applies`` does not say otherwise."""

    table: str
    data: Sequence[str]
    methods: Mapping[str, Any]  # by name; what a name stands for is part of the key
    score: Callable[[str, str, int], Rows]
    seeds: Sequence[int] = (0,)
    quick: tuple[Sequence[str], Sequence[str]] = ((), ())  # data sets and methods of --quick
    applies: Callable[[str, str, int], bool] = lambda data, method, seed: True
    unusual: Sequence[str] = ()  # methods that run only where --methods names them, or with --quick


@contextlib.contextmanager
def timed() -> Iterator[None]:
    """What a case measures: wall time, processor time and the peak of memory beyond what was held before."""
    before = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    _cost.update(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu, memory_mb=_peak() - before)


def cost() -> dict[str, float]:
    """What ``timed`` measured last, for scores that measure several times; the harness adds the last one by itself."""
    return dict(_cost)


# ---- running -----------------------------------------------------------------------------------------------------
def main(file: str, doc: str | None, cases: Sequence[Cases], write: Write) -> None:
    """Parse the command line, run the cases that are not in the tables yet, and write these."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=[c.table for c in cases], choices=[c.table for c in cases])
    parser.add_argument("--data", nargs="+", help="data sets; default: all", choices=_names(c.data for c in cases))
    parser.add_argument("--methods", nargs="+", help="default: all", choices=_names(c.methods for c in cases))
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the committed tables")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run also what has not changed since it was run")
    parser.add_argument(
        "--none", action="store_true", help="run nothing, and write the pages from the rows that there are"
    )
    parser.add_argument("--quick", action="store_true", help="a few small cases, written to a temporary folder")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    if args.one:
        table, data, method, seed = args.one
        [declared] = [c for c in cases if c.table == table]
        print(json.dumps(_score(declared, (data, method, int(seed))), default=float))
        return
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-")) if args.quick else RESULTS
    for declared in cases if not args.none else ():
        if declared.table in args.tables:
            _run(file, declared, folder, args)
    tables = {c.table: read(c.table, folder) for c in cases if (folder / f"{c.table}.csv").exists()}
    if not tables:
        print("no cases")
        return
    scores = {name: table.drop(columns=RECORD) for name, table in tables.items()}
    commits = pd.concat([table["commit"] for table in tables.values()]).value_counts()
    measured = ", ".join(f"{name} ({n})" for name, n in commits.items())
    head = f"`python benchmarks/{Path(file).name}`, whose head explains the columns. Commits that measured the rows: {measured}."
    page = "\n".join([head, "Seconds are those of a shared machine.", "", *write(scores, folder)]) + "\n"
    (folder / f"{Path(file).stem}.md").write_text(page)
    print(f"{page}\nwritten to {folder}")


def read(table: str, folder: Path = RESULTS) -> pd.DataFrame:
    """All rows of a table; empty cells only are missing values."""
    return pd.read_csv(folder / f"{table}.csv", keep_default_na=False, na_values=[""])


def _run(file: str, declared: Cases, folder: Path, args: argparse.Namespace) -> None:
    path = folder / f"{declared.table}.csv"
    usual = [m for m in declared.methods if m not in declared.unusual]
    data, methods = declared.quick if args.quick else (declared.data, args.methods or usual)
    chosen = [d for d in data if d in (args.data or data)], [m for m in methods if m in declared.methods]
    seeds = args.seeds or (declared.seeds[:1] if args.quick else declared.seeds)
    for case in [(d, m, s) for d in chosen[0] for m in chosen[1] for s in seeds if declared.applies(d, m, s)]:
        key = content_key(declared, *case[:2])
        table = read(declared.table, folder) if path.exists() else pd.DataFrame(columns=[*CASE, *RECORD])
        of_case = (table[CASE] == list(case)).all(axis=1)
        if not args.again and (table.loc[of_case, "key"] == key).any():
            continue
        rows = _score(declared, case) if args.quick else _in_a_process(file, declared.table, case, args.threads)
        for row in rows:
            values = (f"{name} {v:.4g}" if isinstance(v, float) else f"{name} {v}" for name, v in row.items())
            print(declared.table, *case, "", *values, sep="  ", flush=True)
        record = dict(zip(RECORD, (key, commit(), versions()), strict=True))
        new = pd.DataFrame([dict(zip(CASE, case, strict=True)) | row | record for row in rows])
        if len(rows):
            table = pd.concat([table[~of_case], new], ignore_index=True) if len(table) else new
            columns = [*CASE, *(c for c in table if c not in (*CASE, *RECORD)), *RECORD]
            sorted_rows(table[columns], declared).to_csv(path, index=False, float_format="%.5g")


def sorted_rows(table: pd.DataFrame, declared: Cases) -> pd.DataFrame:
    """Rows in the order of the declaration."""
    order = {name: i for i, name in enumerate([*declared.data, *declared.methods])}
    return table.sort_values(CASE, kind="stable", key=lambda c: c if c.name == "seed" else c.map(order))


def _in_a_process(file: str, table: str, case: tuple[str, str, int], threads: int) -> list[dict[str, Any]]:
    command = [sys.executable, file, "--one", table, *map(str, case)]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    environment = {**os.environ, **limits, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        print(table, *case, f"failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return []
    return json.loads(done.stdout.strip().splitlines()[-1])


def _score(declared: Cases, case: tuple[str, str, int]) -> list[dict[str, Any]]:
    """Rows of one case, computed in this process."""
    warnings.simplefilter("ignore")  # of the peers
    _cost.clear()
    rows = declared.score(*case)
    return [{**_cost, **row} for row in (rows if isinstance(rows, list) else [rows])]


# ---- what a row depends on -----------------------------------------------------------------------------------------
def content_key(declared: Cases, data: str, method: str) -> str:
    """Hash of the code that a case runs, of its data, and of the package: for peers only of what runs them."""
    known = hashlib.sha256()
    for text in sorted({*_sources(declared.score), *_sources(declared.methods[method])}):
        known.update(text.encode())
    for source in sorted(DATA.glob("*.h5*")):
        if source.stem in data:
            known.update(_digest(source))
    known.update(_package("" if method.startswith(OURS) else "methods"))
    return known.hexdigest()[:12]


def _sources(thing: Any, seen: set[int] | None = None) -> Iterator[str]:
    """What a function says, without comments and docstrings, and all that it calls in this folder; constants as they are."""
    seen = set() if seen is None else seen
    if isinstance(thing, PLAIN):
        yield repr(thing)
    elif isinstance(thing, Mapping):
        for name, value in thing.items():
            if isinstance(value, (*PLAIN, Mapping)):  # functions by name are chosen by the case
                yield from (repr(name), *_sources(value, seen))
    elif isinstance(thing, functools.partial):
        yield from (*_sources(thing.func, seen), *_sources(thing.args, seen), *_sources(thing.keywords, seen))
    elif isinstance(thing, FunctionType) and id(thing) not in seen and _is_here(thing.__code__.co_filename):
        seen.add(id(thing))
        yield _without_words(inspect.getsource(thing))
        for cell in thing.__closure__ or ():
            yield from _sources(cell.cell_contents, seen)
        names = set(_names_in(thing.__code__))
        for name in names & set(thing.__globals__):
            value = thing.__globals__[name]
            if not isinstance(value, ModuleType):
                yield from _sources(value, seen)
            elif _is_here(getattr(value, "__file__", None) or ""):
                for own in names & set(vars(value)):
                    yield from _sources(vars(value)[own], seen)


def _is_here(file: str) -> bool:
    return Path(file).resolve().parent == ROOT / "benchmarks" and Path(file).resolve() != Path(__file__).resolve()


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _without_words(source: str) -> str:
    """The syntax tree of a piece of code as text; the source itself where it is a part of a line (a lambda)."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return source.strip()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@functools.cache
def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@functools.cache
def _package(folder: str) -> bytes:
    known = hashlib.sha256()
    for source in sorted((ROOT / "src" / "aeverse" / folder).rglob("*.py")):
        known.update(_without_words(source.read_text()).encode())
    return known.digest()


def commit() -> str:
    """The commit that is run, with a plus where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def versions() -> str:
    """Of Python and the packages that there are."""
    present = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            present.append(f"{package} {version(package)}")
    return "; ".join(present)


def _names(groups) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _peak() -> float:
    """Largest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
