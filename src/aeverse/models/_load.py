"""Reading a model file, whatever estimator it holds."""

from __future__ import annotations

from pathlib import Path

from aeverse import io
from aeverse._arguments import checked
from aeverse._schema import Entries, Text, check
from aeverse.models._autoencoder import Autoencoder
from aeverse.models._hub import SCHEME, downloaded
from aeverse.models._multimodal import MultimodalAutoencoder

ESTIMATORS = {estimator.__name__: estimator for estimator in (Autoencoder, MultimodalAutoencoder)}


@checked
def load(path: str | Path) -> Autoencoder | MultimodalAutoencoder:
    """Read a model that the `save` of an estimator wrote. Runs no code from the file.

    Parameters
    ----------
    path
        File; or ``"hf://owner/name"`` for a model that `push_to_hub` shared on the Hugging Face hub, of which
        ``"hf://owner/name@revision"`` names a version. It is downloaded once.

    Returns
    -------
    The fitted estimator, of the class that wrote the file, on the CPU.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ImportError
        For the hub, huggingface_hub is not installed: ``pip install "aeverse[hub]"``.
    ValueError
        The file is truncated, of a newer format, or not a model.

    See Also
    --------
    push_to_hub : Share a model.

    Examples
    --------
    See `aeverse.models.Autoencoder.save`.
    """
    if isinstance(path, str) and path.startswith(SCHEME):
        path = downloaded(path)
    header, arrays, kind = io.load_arrays(path)
    if kind not in ESTIMATORS:
        raise ValueError(f"{str(path)!r} holds a {kind}, not a model; models are: {list(ESTIMATORS)}.")
    try:
        tree = io.unpack(header, arrays)
        versions = tree.pop("versions")
        check(versions, Entries(Text()), place="versions")
        model = ESTIMATORS[kind].from_tree(tree)
    except (KeyError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a complete {kind} ({error}).") from error
    model.saved_with = versions
    return model
