"""Execute the tutorials from top to bottom and keep their outputs. Usage: python ci/run_tutorials.py"""

import re
import tempfile
import time
from pathlib import Path

import nbclient
import nbformat

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
    for path in sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb")):
        notebook, start = nbformat.read(path, 4), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:  # for the files that a tutorial writes
            resources = {"metadata": {"path": folder}}
            nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources, record_timing=False).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = without_progress_bars(cell.outputs)
        notebook.metadata["language_info"] = {"name": "python"}  # no version of the machine that ran it
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {path.stat().st_size / 1e3:.0f} kB")
