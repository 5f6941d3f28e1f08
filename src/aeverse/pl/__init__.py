"""Plots: they read results, change nothing, and return Axes."""

from aeverse.pl._attributions import attributions
from aeverse.pl._benchmark import benchmark
from aeverse.pl._denoised import denoised
from aeverse.pl._dropouts import dropouts
from aeverse.pl._history import history
from aeverse.pl._kaplan_meier import kaplan_meier
from aeverse.pl._latent import latent
from aeverse.pl._modality_weights import modality_weights
from aeverse.pl._subtypes import subtypes

__all__ = [
    "history",
    "denoised",
    "dropouts",
    "latent",
    "modality_weights",
    "attributions",
    "benchmark",
    "kaplan_meier",
    "subtypes",
]
