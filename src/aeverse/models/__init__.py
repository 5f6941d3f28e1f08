"""Estimators: fit, encode, decode, save, load."""

from aeverse.models._autoencoder import Autoencoder, Config, load

__all__ = ["Autoencoder", "Config", "load"]
