"""All benchmarks whose cases the harness runs, one script after another.

    python benchmarks/run.py --quick    # a few small cases of each, written to temporary folders: ten minutes on two cores
    python benchmarks/run.py            # everything that has changed since it was run: days

All options are passed on to the scripts.
"""

from __future__ import annotations

import subprocess
import sys
import time

from harness import ROOT

SCRIPTS = (
    "denoise", "proteins", "dropouts", "controls", "downstream", "markers", "embed", "embed_values", "batches", "multimodal",
    "mapping", "labels", "transfer", "cohorts", "covariates", "robustness",
)  # fmt: skip


def main() -> int:
    """Run them; the status is that of the first that failed."""
    status = 0
    for script in SCRIPTS:
        start = time.perf_counter()
        done = subprocess.run([sys.executable, ROOT / "benchmarks" / f"{script}.py", *sys.argv[1:]], check=False)
        print(f"== {script}: {time.perf_counter() - start:.0f} s", flush=True)
        status = status or done.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
