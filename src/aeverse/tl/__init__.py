"""Tools: one call each, from a data object to results in it."""

from aeverse.tl._associations import associations
from aeverse.tl._attribute import attribute
from aeverse.tl._benchmark import benchmark
from aeverse.tl._denoise import denoise
from aeverse.tl._dropouts import dropouts
from aeverse.tl._embed import embed
from aeverse.tl._map_query import map_query
from aeverse.tl._markers import markers
from aeverse.tl._multimodal_embed import multimodal_embed
from aeverse.tl._predict_modality import predict_modality
from aeverse.tl._protein_foreground import protein_foreground
from aeverse.tl._subtypes import subtypes
from aeverse.tl._survival import survival

__all__ = [
    "denoise",
    "dropouts",
    "embed",
    "multimodal_embed",
    "predict_modality",
    "map_query",
    "markers",
    "protein_foreground",
    "attribute",
    "benchmark",
    "subtypes",
    "survival",
    "associations",
]
