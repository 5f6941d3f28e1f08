"""Reading a model file, whatever estimator it holds."""

from __future__ import annotations

from pathlib import Path

from aeverse import io
from aeverse._arguments import checked
from aeverse.models._autoencoder import Autoencoder
from aeverse.models._multimodal import MultimodalAutoencoder

ESTIMATORS = {estimator.__name__: estimator for estimator in (Autoencoder, MultimodalAutoencoder)}


@checked
def load(path: str | Path) -> Autoencoder | MultimodalAutoencoder:
    """Read a model that the `save` of an estimator wrote. Runs no code from the file.

    Parameters
    ----------
    path
        File.

    Returns
    -------
    The fitted estimator, of the class that wrote the file, on the CPU.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is truncated, of a newer format, or not a model.

    Examples
    --------
    See `Autoencoder.save`.
    """
    header, arrays, kind = io.load_arrays(path)
    if kind not in ESTIMATORS:
        raise ValueError(f"{str(path)!r} holds a {kind}, not a model; models are: {list(ESTIMATORS)}.")
    try:
        return ESTIMATORS[kind].from_tree(io.unpack(header, arrays))
    except (KeyError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a complete {kind} ({error}).") from error
