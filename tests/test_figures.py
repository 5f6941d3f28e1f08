"""The README and the page of differences show what the committed tables say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not part of this copy")


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def test_figures_of_the_readme_are_those_of_the_tables(benchmarks):
    import figures

    assert figures.text() in (ROOT / "README.md").read_text(), "run: python benchmarks/figures.py"


def test_differences_are_those_of_the_tables(benchmarks):
    import differences

    page = (BENCHMARKS / "results" / "differences.md").read_text()
    assert differences.text() == page, "run: python benchmarks/differences.py"


def test_differences_are_paired_by_seed(benchmarks):
    import differences

    noise = np.array([0.0, 0.3, -0.3])
    rows = [
        {"data": data, "method": method, "seed": seed, "ari": level + noise[seed]}
        for data in ("a", "b", "c")
        for method, level in (("aeverse", 0.5), ("aeverse_one", 0.9), ("pca", 0.4 if data != "c" else 0.6))
        for seed in range(3)
    ]
    rows += [{"data": "a", "method": "scvi", "seed": 0, "ari": 0.9}]  # on one set only, and once
    row, behind = differences.compare("embed", pd.DataFrame(rows), "ari")
    assert row["best peer"] == "pca"
    assert row["ahead"] == "2 of 3"
    assert row["difference"] == pytest.approx(0.1 / 3)
    a, c = behind
    assert (a["data"], a["peer"], c["data"], c["peer"]) == ("a", "scvi", "c", "pca")
    assert a["difference"] == pytest.approx(-0.4)
    low, high = (float(word) for word in c["95 %"].split(" to "))
    assert low == high == pytest.approx(-0.1)  # what the seeds share cancels
