"""Print the versions that the tests run on."""

import platform
from importlib.metadata import version

PACKAGES = "aeverse anndata scanpy mudata muon scvi-tools numpy scipy pandas scikit-learn matplotlib torch safetensors"

if __name__ == "__main__":
    print("Python", platform.python_version(), *(f"{p} {version(p)}" for p in PACKAGES.split()), sep=", ")
