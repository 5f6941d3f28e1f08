"""aeverse: autoencoders for single-cell and multi-omics data.

The sub-packages load when they are first used, so that ``import aeverse`` costs next to nothing.
"""

import importlib

_LAZY = ("datasets", "get", "io", "methods", "metrics", "models", "nn", "pl", "pp", "tl", "train")

__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("aeverse")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
