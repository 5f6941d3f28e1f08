"""Plots: they read results, change nothing, and return Axes."""

from aeverse.pl._associations import associations
from aeverse.pl._attributions import attributions
from aeverse.pl._benchmark import benchmark
from aeverse.pl._denoised import denoised
from aeverse.pl._deviance_explained import deviance_explained
from aeverse.pl._dotplot import dotplot
from aeverse.pl._dropouts import dropouts
from aeverse.pl._forest import forest
from aeverse.pl._history import history
from aeverse.pl._kaplan_meier import kaplan_meier
from aeverse.pl._latent import latent
from aeverse.pl._loadings import loadings
from aeverse.pl._mapping import mapping
from aeverse.pl._modality_weights import modality_weights
from aeverse.pl._predicted import predicted
from aeverse.pl._subtypes import subtypes

__all__ = [
    "history",
    "deviance_explained",
    "denoised",
    "dotplot",
    "dropouts",
    "latent",
    "loadings",
    "modality_weights",
    "predicted",
    "mapping",
    "attributions",
    "benchmark",
    "kaplan_meier",
    "forest",
    "subtypes",
    "associations",
]
