"""Plots: they read results, change nothing, and return Axes."""

from aeverse.pl._denoised import denoised
from aeverse.pl._dropouts import dropouts
from aeverse.pl._history import history
from aeverse.pl._kaplan_meier import kaplan_meier
from aeverse.pl._latent import latent
from aeverse.pl._subtypes import subtypes

__all__ = ["history", "denoised", "dropouts", "latent", "kaplan_meier", "subtypes"]
