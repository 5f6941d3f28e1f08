"""The harness of the benchmarks runs a case anew where what it runs has changed, and only there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

HARNESS = Path(__file__).resolve().parents[1] / "benchmarks" / "harness.py"
SCRIPT = '''
from pathlib import Path

import harness

FACTOR = 2


def twice(seed):
    """Words."""
    return FACTOR * seed


def score(data, method, seed):
    with (Path(__file__).parent / "log").open("a") as log:
        log.write(f"{data} {method} {seed}\\n")
    with harness.timed():
        value = METHODS[method](seed)
    return [{"part": part, "value": value + part} for part in (0, 1)]


METHODS = {"aeverse": twice, "same": lambda seed: seed}
CASES = [harness.Cases("toy", ["b", "a"], METHODS, score, (1, 2), quick=(["a"], ["same"]))]


def write(tables, folder):
    return [f"{len(tables['toy'])} rows"]


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
'''


@pytest.mark.skipif(not HARNESS.exists(), reason="the benchmarks are not part of this copy")
def test_a_case_runs_again_only_where_its_code_has_changed(tmp_path):
    folder = tmp_path / "repository" / "benchmarks"
    (folder / "results").mkdir(parents=True)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    shutil.copy(HARNESS, folder)

    def cases_run(script: str, *options: str) -> list[str]:
        (folder / "toy.py").write_text(script)
        (folder / "log").write_text("")
        command = [sys.executable, str(folder / "toy.py"), *options]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(tmp_path)})
        return (folder / "log").read_text().splitlines()

    assert cases_run(SCRIPT, "--quick") == ["a same 1"]
    assert not (folder / "results" / "toy.csv").exists()
    assert len(cases_run(SCRIPT)) == 8
    table = pd.read_csv(folder / "results" / "toy.csv")
    assert table["data"].tolist() == ["b"] * 8 + ["a"] * 8  # as declared
    ours = table[(table["data"] == "a") & (table["method"] == "aeverse")]
    assert ours["value"].tolist() == [2, 3, 4, 5]
    assert table[["seconds", "cpu_seconds", "memory_mb", "key", "versions"]].notna().all(axis=None)
    assert "16 rows" in (folder / "results" / "toy.md").read_text()

    assert cases_run(SCRIPT.replace("Words.", "Other words.").replace("\n    with", "\n    # why\n    with")) == []
    assert cases_run(SCRIPT.replace("FACTOR = 2", "FACTOR = 3"), "--data", "a") == ["a aeverse 1", "a aeverse 2"]
    changed = pd.read_csv(folder / "results" / "toy.csv")
    assert len(changed) == 16
    assert changed.loc[(changed["data"] == "a") & (changed["method"] == "aeverse"), "value"].tolist() == [3, 4, 6, 7]
