"""Every example in a public docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

ROOMS = ("pp", "tl", "pl", "get", "datasets", "metrics", "models", "methods", "io", "nn", "train", "cli")


class Finder(doctest.DocTestFinder):
    """Finds the examples of functions with decorators, too."""

    def _from_module(self, module, thing):
        return super()._from_module(module, inspect.unwrap(thing))


FINDER = Finder(exclude_empty=True)


def examples() -> list[doctest.DocTest]:
    found = []
    for room in ROOMS:
        module = importlib.import_module(f"aeverse.{room}")
        for name in ["main"] if room == "cli" else getattr(module, "__all__", ()):
            thing = getattr(module, name)
            tests = FINDER.find(thing, f"{room}.{name}", globs={}) if callable(thing) else []
            found += [test for test in tests if test.examples]
    return found


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_example(test, tmp_path, monkeypatch, few_steps):
    import matplotlib.pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pytest"])
    said: list[str] = []
    with matplotlib.rc_context():
        matplotlib.use("Agg")
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        failed, attempted = runner.run(test, out=said.append)
        matplotlib.pyplot.close("all")
    assert attempted > 0
    assert failed == 0, "".join(said)


def test_there_are_examples():
    assert len(examples()) >= 20
