"""Models on the Hugging Face hub: the file that `save` writes, and a page about it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from aeverse._arguments import checked
from aeverse.models._autoencoder import Autoencoder
from aeverse.models._card import model_card
from aeverse.models._multimodal import MultimodalAutoencoder

SCHEME = "hf://"
MODEL_FILE, CARD_FILE = "model.ae", "README.md"
REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@checked
def push_to_hub(
    model: Autoencoder | MultimodalAutoencoder,
    repo_id: str,
    *,
    license: str,
    description: str = "",
    private: bool = False,
) -> str:
    """Share a fitted model on the Hugging Face hub, with a page (README.md) that is written from the model.

    The page reports the shape of the data, features, likelihood, held-out figures and versions, and says what the file
    holds. Two files are written, ``model.ae`` and ``README.md``; those of an earlier call are replaced. Log in before,
    with ``hf auth login``.

    Parameters
    ----------
    model
        Fitted model. Its file also holds embeddings of training samples and the categorical columns of their ``obs`` (a
        `MultimodalAutoencoder`'s also their names): look whether they may be shared.
    repo_id
        ``"owner/name"``; made if there is none.
    license
        Under which the model is shared, by the hub's short name, such as ``"bsd-3-clause"`` or ``"cc-by-4.0"``.
    description
        For the page: tissue, technology, publication; Markdown.
    private
        Make a new repository private.

    Returns
    -------
    What `load` takes: ``"hf://owner/name"``.

    Raises
    ------
    ImportError
        huggingface_hub is not installed: ``pip install "aeverse[hub]"``.
    ValueError
        `repo_id` is not ``"owner/name"``.
    RuntimeError
        The model is not fitted.

    See Also
    --------
    aeverse.models.load : Read it back.

    Examples
    --------
    >>> import aeverse as ae
    >>> model = ae.models.Autoencoder(n_models=1, max_epochs=2).fit(ae.datasets.pbmc68k_counts())
    >>> ae.models.push_to_hub(model, "owner/blood", license="bsd-3-clause")  # doctest: +SKIP
    'hf://owner/blood'
    """
    hub = _hub()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise ValueError(f"repo_id={repo_id!r} must be 'owner/name'.")
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / MODEL_FILE)
        card = model_card(model, repo_id, license=license, description=description)
        (Path(folder) / CARD_FILE).write_text(card, "utf-8")
        api = hub.HfApi(library_name="aeverse")
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Model of aeverse")
    return SCHEME + repo_id


def downloaded(address: str) -> Path:
    """The model file of ``"hf://owner/name"`` or ``"hf://owner/name@revision"``, from the hub or its cache."""
    hub = _hub()
    parts = REPO.fullmatch(address.removeprefix(SCHEME))
    if parts is None:
        raise ValueError(f"{address!r} must be 'hf://owner/name' or 'hf://owner/name@revision'.")
    path = hub.hf_hub_download(parts["repo"], MODEL_FILE, revision=parts["revision"], library_name="aeverse")
    return Path(path)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            'models on the hub need huggingface_hub, which is an extra: pip install "aeverse[hub]".'
        ) from error
    return huggingface_hub
