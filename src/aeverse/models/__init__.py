"""Estimators: fit, encode, decode, save, load."""

from aeverse.models._autoencoder import Autoencoder, Config
from aeverse.models._fronts import kind_of
from aeverse.models._load import load
from aeverse.models._multimodal import MultimodalAutoencoder, MultimodalConfig, check_linked, kinds_of

__all__ = [
    "Autoencoder",
    "Config",
    "MultimodalAutoencoder",
    "MultimodalConfig",
    "check_linked",
    "kind_of",
    "kinds_of",
    "load",
]
