"""Tutorials are committed as they ran, call what there is, and need neither data nor a network.

They are executed by ``python ci/run_tutorials.py --check``, in a job of its own, which compares the outputs as well.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import aeverse as ae

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

REPO = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPO / "tutorials").glob("*.ipynb"))
BYTES = 1_000_000
every_tutorial = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)

SPEC = importlib.util.spec_from_file_location("run_tutorials", REPO / "ci" / "run_tutorials.py")
run_tutorials = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_tutorials)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_the_page_of_tutorials_lists_them_all():
    page = (REPO / "docs" / "tutorials.md").read_text("utf-8")
    listed = set(re.findall(r"^tutorials/(\w+)$", page, flags=re.MULTILINE))
    assert listed == {path.stem for path in NOTEBOOKS}
    assert len(NOTEBOOKS) >= 8


@every_tutorial
def test_tutorial_is_committed_as_it_ran(path):
    assert path.stat().st_size < BYTES
    notebook, cells = nbformat.read(path, 4), code_cells(path)
    again = f"run: python ci/run_tutorials.py {path.stem}"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), again
    assert notebook.metadata["aeverse"]["executed"] == run_tutorials.digest(notebook), f"the code has changed; {again}"
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    for output in outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr", f"a warning is shown: {output.text[:200]}"
        assert not re.search(r"/(home|root|tmp|Users)/", run_tutorials.text_of(output)), "a path of someone's machine"


@every_tutorial
def test_tutorial_says_what_one_will_have_and_needs_no_data(path):
    notebook = nbformat.read(path, 4)
    assert notebook.cells[0].source.split("\n\n")[1].startswith("**At the end you will have**")
    assert not re.search(r"shared/|environ|https?://\S+\.(h5ad|h5mu)", "".join(c.source for c in code_cells(path)))


@every_tutorial
def test_tutorial_calls_what_there_is(path):
    """Names and keywords of the package: what a rename breaks, without running anything."""
    code = "\n".join(re.sub(r"^!.*", "", cell.source) for cell in code_cells(path))
    calls = 0
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("ae."):
            continue
        found = ae
        for name in re.match(r"ae((?:\.\w+)+)", ast.unparse(node.func))[1].split(".")[1:]:
            found = getattr(found, name)
        if ast.unparse(node.func).count("(") == 0:
            parameters = inspect.signature(found).parameters
            assert {keyword.arg for keyword in node.keywords if keyword.arg} <= set(parameters)
        calls += 1
    assert calls >= 3


@pytest.mark.parametrize(
    ("old", "new", "is_stale"),
    [
        ("ARI 0.51 in 8 clusters", "ARI 0.53  in 8 clusters", False),  # spaces, a rounding
        ("ARI 0.51", "ARI 0.61", True),
        ("1,204 cells", "1,240 cells", False),
        ("1,204 cells", "1,540 cells", True),
        ("cells", "genes", True),
        ("p 1.2e-30", "p 1.9e-28", False),
        ("array([1, 2])", "array([1, 2, 3])", True),
    ],
)
def test_outputs_are_stale_where_words_or_numbers_differ(old, new, is_stale):
    assert run_tutorials.differs(old, new) == is_stale
