"""Estimators: fit, encode, decode, save, load."""

from aeverse.models._autoencoder import Autoencoder
from aeverse.models._hub import push_to_hub
from aeverse.models._joint._data import kinds_of
from aeverse.models._load import load
from aeverse.models._matrix._settings import Config
from aeverse.models._multimodal import MultimodalAutoencoder, MultimodalConfig
from aeverse.models._shared._kinds import KINDS, Kind, MatrixSummary, kind_of

__all__ = [
    "Autoencoder",
    "Config",
    "KINDS",
    "Kind",
    "MatrixSummary",
    "MultimodalAutoencoder",
    "MultimodalConfig",
    "kind_of",
    "kinds_of",
    "load",
    "push_to_hub",
]
