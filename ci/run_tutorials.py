"""Execute tutorials from top to bottom. Usage: python ci/run_tutorials.py [--check] [NAME ...]

Without ``--check`` the outputs are kept in the notebooks. With it the notebooks stay as they are, and the script ends with
status 1 where the text of an output differs from the committed one, in its words or by more than a tenth in a number
(pictures are not compared). No tutorial needs data or a network.
"""

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parents[1]
PROGRESS = re.compile(r"\s*$|\s*training: +\d+%|.*TqdmWarning: IProgress not found|\s+from .autonotebook import")
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?")
TOLERANCE, SMALL = 0.1, 0.05  # relative, and absolute: other processors round differently, and clusters follow


def without_progress_bars(outputs: list) -> list:
    """Outputs without the text of tqdm; other lines on stderr stay, for `tests/test_tutorials.py` to complain of."""
    kept = []
    for output in outputs:
        if output.get("name") == "stderr":
            lines = re.split(r"[\r\n]", output.text)
            output.text = "\n".join(line for line in lines if not PROGRESS.match(line))
            if not output.text:
                continue
        kept.append(output)
    return kept


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of the code, as it was when it ran last: `tests/test_tutorials.py` compares."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in an empty folder, with one BLAS thread as the last digits depend on their number."""
    with tempfile.TemporaryDirectory() as folder:  # for the files that a tutorial writes
        client = nbclient.NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
        )
        client.execute(
            env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = without_progress_bars(cell.outputs)
    notebook.metadata["aeverse"] = {"executed": digest(notebook)}
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}  # no version of the machine


def text_of(output: dict) -> str:
    """What an output shows as text; of an HTML table its plain form."""
    return "".join(output.get("data", {}).get("text/plain", "")) + output.get("text", "")


def differs(old: str, new: str) -> bool:
    """Whether two texts differ in words, or in a number by more than rounding explains."""
    if [*NUMBER.sub("#", old).split()] != [*NUMBER.sub("#", new).split()]:
        return True
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    values = [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs]
    return any(abs(a - b) > max(SMALL, TOLERANCE * max(abs(a), abs(b))) for a, b in values)


def stale_cells(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> list[str]:
    """Differences between the outputs of two runs, a line each."""
    found = []
    for i, (before, after) in enumerate(zip(old.cells, new.cells, strict=True)):
        if before.cell_type != "code":
            continue
        texts = ["\n".join(text_of(output) for output in cell.outputs) for cell in (before, after)]
        if differs(*texts):
            found.append(f"  cell {i}\n    committed: {texts[0]!r}\n    now:       {texts[1]!r}")
    return found


def main() -> int:
    """Run the tutorials that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    args, status = parser.parse_args(), 0
    for path in sorted((ROOT / "tutorials").glob("*.ipynb")):
        if args.names and path.stem not in args.names:
            continue
        committed, notebook, start = nbformat.read(path, 4), nbformat.read(path, 4), time.monotonic()
        execute(notebook)
        if not args.check:
            nbformat.write(notebook, path)
        stale = stale_cells(committed, notebook) if args.check else []
        status = max(status, bool(stale))
        result = "\n".join(["stale", *stale]) if stale else f"{path.stat().st_size / 1e3:.0f} kB"
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {result}", flush=True)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
