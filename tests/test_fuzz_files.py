"""A sample of benchmarks/fuzz_files.py: damaged model files are refused, or read as if nothing had happened."""

import runpy
from pathlib import Path


def test_damaged_model_files_give_no_wrong_result():
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "fuzz_files.py"))
    found = script["fuzz"](300)
    assert sum(found.values()) == 300
    assert {result for _, result in found} <= {"refused", "without effect"}
    assert sum(n for (_, result), n in found.items() if result == "refused") > 250


def test_changed_files_that_are_signed_again_are_refused_or_finite():
    script = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "fuzz_files.py"))
    found = script["fuzz"](60, signed=True)
    assert {result for _, result in found} <= {"refused", "without effect", "other values"}
    assert sum(n for (_, result), n in found.items() if result == "refused") > 45
