from . import datasets, get, io, methods, metrics, models, nn, pl, pp, tl, train

__version__: str
__all__ = [
    "datasets",
    "get",
    "io",
    "methods",
    "metrics",
    "models",
    "nn",
    "pl",
    "pp",
    "tl",
    "train",
    "__version__",
]
