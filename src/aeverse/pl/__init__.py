"""Plots: they read results, change nothing, and return Axes."""

from aeverse.pl._denoised import denoised
from aeverse.pl._history import history
from aeverse.pl._latent import latent

__all__ = ["history", "denoised", "latent"]
