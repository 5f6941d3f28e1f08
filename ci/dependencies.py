"""What scvi-tools and muon add to an installation: packages and their size on disk, in the environment that runs this.

Usage: python ci/dependencies.py
"""

import importlib.metadata
import os
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOREIGN = ("scvi-tools", "muon")
INSTALLED = {canonicalize_name(d.metadata["Name"]): d for d in importlib.metadata.distributions()}


def needed(requirements: list[Requirement]) -> set[str]:
    """Names of all installed packages that some requirements lead to."""
    found: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(r.name), extra) for r in requirements for extra in ("", *r.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found or name not in INSTALLED:
            continue
        found.add((name, extra))
        for other in map(Requirement, INSTALLED[name].requires or []):
            if other.marker is None or other.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(other.name), e) for e in ("", *other.extras)]
    return {name for name, _ in found}


def megabytes(names: set[str]) -> float:
    """Size of the files of some packages."""
    files = [Path(file.locate()) for name in names for file in INSTALLED[name].files or []]
    return sum(os.path.getsize(file) for file in files if file.exists()) / 2**20


if __name__ == "__main__":
    own = [Requirement(r) for r in INSTALLED["aeverse"].requires or []]
    own = [r for r in own if r.marker is None or r.marker.evaluate({"extra": ""})]
    everything, without = needed(own), needed([r for r in own if r.name not in FOREIGN])
    for what, names in (("all", everything), ("without scvi-tools and muon", without), ("added", everything - without)):
        print(f"{what}: {len(names)} packages, {megabytes(names):.0f} MiB")
    print("added:", ", ".join(sorted(everything - without)))
