"""Execute tutorials from top to bottom and keep their outputs. Usage: python ci/run_tutorials.py [NAME ...]

A notebook whose metadata name data files (``"aeverse": {"needs": [...]}``) finds them in the folder AEVERSE_DATA, by
default ../shared/data beside the repository, and is left as it is where they are not there.
"""

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


if __name__ == "__main__":
    data = Path(os.environ.setdefault("AEVERSE_DATA", str(ROOT.parent / "shared" / "data")))
    for path in sorted((ROOT / "tutorials").glob("*.ipynb")):
        notebook, start = nbformat.read(path, 4), time.monotonic()
        if sys.argv[1:] and path.stem not in sys.argv[1:]:
            continue
        if lacking := [n for n in notebook.metadata.get("aeverse", {}).get("needs", []) if not (data / n).exists()]:
            print(f"{path.name}: left as it is, needs {lacking} in the folder AEVERSE_DATA")
            continue
        with tempfile.TemporaryDirectory() as folder:  # for the files that a tutorial writes
            resources = {"metadata": {"path": folder}}
            nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources, record_timing=False).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = without_progress_bars(cell.outputs)
        notebook.metadata["language_info"] = {"name": "python"}  # no version of the machine that ran it
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {path.stat().st_size / 1e3:.0f} kB")
