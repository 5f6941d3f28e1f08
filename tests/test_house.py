"""The rules of the house: who imports whom, how functions look, how light the import is, what stays untouched."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import random
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aeverse as ae

PACKAGE = Path(ae.__file__).parent
REPO = Path(__file__).parents[1]
USER_ROOMS = ("pp", "tl", "pl", "get", "datasets", "metrics")  # what users call

# ---- who imports whom --------------------------------------------------------------------------------------------
# cli -> tl -> models -> train -> nn. A room may import itself and the rooms named here, nothing else of aeverse.
MAY_IMPORT = {
    "_arguments": set(),
    "_runtime": set(),
    "_files": set(),
    "_schema": set(),
    "_slots": {"_arguments", "_runtime"},
    "io": {"_arguments", "_files"},
    "nn": set(),
    "train": {"nn", "_runtime"},
    "models": {"_arguments", "train", "nn", "io", "_slots", "_schema", "_runtime"},
    "methods": {"train", "nn", "io", "_slots", "_runtime"},
    "metrics": {"_arguments", "_slots", "_runtime"},
    "datasets": {"_arguments", "_slots", "_runtime", "io"},
    "pp": {"_arguments", "train", "_slots", "_runtime"},
    "get": {"_arguments", "models", "_slots", "_runtime"},
    "tl": {"_arguments", "models", "methods", "metrics", "pp", "train", "io", "_slots", "_runtime"},
    "pl": {"_arguments", "get", "metrics", "_slots", "_runtime", "_files"},
}
DRIVERS = {"cli", "_commands", "_demo", "_report", "__main__", "__init__"}  # stand above all rooms
ONLY_TENSORS = {"torch", "numpy", "scipy", "numba"}  # what nn and train may import besides the standard library


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, whether it is imported when the file is), leaving out what only type checkers see."""
    found = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [f"aeverse.{alias.name}" for alias in node.names] if node.module == "aeverse" else [node.module]
            found.extend((name, at_import) for name in names)
        inner = at_import and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = room_of(path)
    if room in DRIVERS:
        return
    assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
    for module, _ in imports(path):
        if module.startswith("aeverse."):
            other = module.split(".")[1]
            assert other == room or other in MAY_IMPORT[room], f"{room} must not import {other}"
        elif room in ("nn", "train"):
            top = module.split(".")[0]
            assert top in ONLY_TENSORS or top in sys.stdlib_module_names, f"{room} must not import {top}"


def inner_imports() -> dict[str, set[str]]:
    """For each file of the package the files that it imports, those included that only type checkers see."""

    def dotted(path: Path) -> str:
        return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")

    files = {dotted(path): path for path in sources()}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {module if module in files else node.module for module in full} & files.keys()
    return graph


def test_no_file_imports_itself_by_way_of_others():
    sorter = graphlib.TopologicalSorter(inner_imports())
    sorter.prepare()  # CycleError names the files


def test_names_with_an_underscore_stay_in_their_room():
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("aeverse."):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                other = node.module.split(".")[1]
                assert not private or other == room_of(path), f"{path} imports {private} of {other}"


@pytest.mark.parametrize("package", ["scvi", "muon"])
def test_foreign_models_are_imported_inside_the_functions_of_methods(package):
    for path in sources():
        for module, at_import in imports(path):
            if module.split(".")[0] == package:
                assert room_of(path) == "methods", f"{path} imports {package}"
                assert not at_import, f"{path} imports {package} at its top"


def test_no_file_is_longer_than_400_lines():
    too_long = {str(p.relative_to(PACKAGE)) for p in sources() if len(p.read_text(encoding="utf-8").splitlines()) > 400}
    assert not too_long


# ---- how functions look ------------------------------------------------------------------------------------------
# More than two positional arguments, where each is what the function is about.
THREE_SUBJECTS = {"metrics.deviance_explained", "metrics.cluster_deviance", "pl.denoised"}


def public_functions() -> dict[str, object]:
    return {
        f"{room}.{name}": getattr(module, name)
        for room in USER_ROOMS
        for module in [importlib.import_module(f"aeverse.{room}")]
        for name in module.__all__
    }


def sections(doc: str) -> dict[str, str]:
    """Sections of a numpydoc docstring."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(doc), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_parameters(section: str) -> list[str]:
    """Names at the left margin of a Parameters section; ``a, b`` documents two."""
    lines = re.findall(r"^(\S[^\n:]*)", section, flags=re.MULTILINE)
    return [name.strip().lstrip("*") for line in lines for name in line.split(",")]


@pytest.mark.parametrize("name", public_functions())
def test_at_most_two_positional_arguments(name):
    kinds = [p.kind for p in inspect.signature(public_functions()[name]).parameters.values()]
    assert inspect.Parameter.VAR_POSITIONAL not in kinds
    positional = sum(k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds)
    assert positional <= 2 + (name in THREE_SUBJECTS)


@pytest.mark.parametrize("name", public_functions())
def test_docstring_is_numpydoc_and_complete(name):
    function = public_functions()[name]
    assert function.__doc__, "no docstring"
    found = sections(function.__doc__)
    signature = inspect.signature(function)
    described = documented_parameters(found.get("Parameters", ""))
    assert described == list(signature.parameters), "documented parameters are not those of the signature"
    if signature.return_annotation not in (None, "None"):
        assert "Returns" in found
    assert ">>>" in found.get("Examples", ""), "no example"


def test_parameters_common_to_tools_have_the_same_default():
    expected = {"copy": False, "layer": None, "random_state": 0, "device": "auto", "progress": None, "batch_key": None}
    for name, function in public_functions().items():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name in expected:
                assert parameter.default == expected[parameter.name], f"{name}({parameter.name}=)"


def test_editors_see_the_same_names_as_python():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    [names] = [n.value for n in stub.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"]
    assert sorted(ast.literal_eval(names)) == sorted(ae.__all__) == dir(ae)


def test_api_page_lists_every_public_name():
    page = (REPO / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^    ([\w.]+)$", page, flags=re.MULTILINE))
    rooms = [*USER_ROOMS, "models"]
    modules = {room: importlib.import_module(f"aeverse.{room}") for room in rooms}
    public = {f"{room}.{n}" for room, module in modules.items() for n in module.__all__}
    public -= {f"{room}.{n}" for room, module in modules.items() for n in module.__all__ if n.isupper()}  # tables
    assert listed == public | {"nn", "train", "io"}  # those three have a page that lists what they hold


# ---- how light the import is -------------------------------------------------------------------------------------
def in_new_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=240)
    return done.stdout


def test_import_costs_less_than_50_ms():
    code = "import time; t = time.process_time(); import aeverse; print(time.process_time() - t)"
    seconds = [float(in_new_python(code)) for _ in range(10)]  # CPU time: a busy machine does not count
    assert statistics.median(seconds) < 0.05


def test_import_loads_nothing_heavy():
    code = "import sys, aeverse, aeverse.cli; print(*{m.split('.')[0] for m in sys.modules})"
    heavy = {
        "torch",
        "scanpy",
        "scvi",
        "muon",
        "mudata",
        "anndata",
        "numpy",
        "scipy",
        "pandas",
        "sklearn",
        "matplotlib",
    }
    assert not heavy & set(in_new_python(code).split())


def test_count_tools_load_no_foreign_models():
    code = (
        "import sys, aeverse as ae; a = ae.datasets.simulate_counts(60, 30); ae.tl.denoise(a, n_models=1);"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert not {"scvi", "muon", "lightning", "jax", "scanpy"} & set(in_new_python(code).split())


# ---- what stays untouched ----------------------------------------------------------------------------------------
def global_state() -> dict[str, object]:
    import torch

    return {
        "random": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002 (it is what we guard)
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "numpy errors": np.geterr(),
    }


@pytest.mark.parametrize("tool", ["denoise", "embed"])
def test_global_state_is_neither_changed_nor_used(tool):
    import torch

    adata = ae.datasets.simulate_counts(80, 40)
    run = getattr(ae.tl, tool)
    before = global_state()
    one = run(adata, n_models=1, copy=True)
    after = global_state()
    assert {k: after[k] == before[k] for k in before} == dict.fromkeys(before, True)
    random.seed(1)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            other = run(adata, n_models=1, copy=True)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    np.testing.assert_array_equal(one.obsm["X_ae"], other.obsm["X_ae"])


def test_thinning_leaves_global_state():
    before = global_state()
    ae.pp.thin_counts(ae.datasets.simulate_counts(20, 10))
    assert global_state() == before


# ---- the README --------------------------------------------------------------------------------------------------
def test_ci_runs_the_test_command_of_the_readme():
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"<!-- (demo|test) command -->\n```bash\n(.+?)\n```", readme)
    assert [which for which, _ in commands] == ["demo", "test"]
    assert all("\n" not in command and command.startswith("python3 -m venv .venv && ") for _, command in commands)
    script = (REPO / ".ci" / "run").read_text(encoding="utf-8")
    [pattern] = re.findall(r"sed -n '/(.+?)/,", script)
    assert pattern == "<!-- test command -->"
    assert readme.count(pattern) == 1


# ---- the page What we promise ------------------------------------------------------------------------------------
def test_the_tests_that_back_our_promises_exist():
    page = (REPO / "docs" / "promises.md").read_text(encoding="utf-8")
    file, named = "", re.findall(r"`(?:(test_\w+)\.py)?(?:::)?(test_\w+)?`", page)
    tests = [(file := found_file or file, name) for found_file, name in named if found_file or name]
    assert len(tests) > 20
    for file, name in tests:
        text = (REPO / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert not name or f"\ndef {name}(" in text, f"{file}.py has no {name}"
