"""The README shows what the committed tables say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "figures.py"


@pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not part of this copy")
def test_figures_of_the_readme_are_those_of_the_tables():
    spec = importlib.util.spec_from_file_location("figures", SCRIPT)
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    assert figures.text() in (ROOT / "README.md").read_text(), "run: python benchmarks/figures.py"
