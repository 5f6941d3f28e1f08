"""Other people's models behind the functions of `aeverse.tl`, on copies, with their own recommended settings.

Every entry of `MULTIMODAL` takes the modalities as `_slots.read_modalities` gives them and their kinds of data, and
returns a `Fitted`, whose ``encode`` (data, n_obs), where there is one, takes the same modalities of new samples.
"""

from aeverse.methods._concat_pca import concat_pca
from aeverse.methods._fitted import Fitted
from aeverse.methods._mofa import mofa
from aeverse.methods._multivi import multivi
from aeverse.methods._totalvi import totalvi
from aeverse.methods._wnn import wnn

MULTIMODAL = {"concat_pca": concat_pca, "wnn": wnn, "mofa": mofa, "totalvi": totalvi, "multivi": multivi}

__all__ = ["MULTIMODAL", "Fitted", "concat_pca", "mofa", "multivi", "totalvi", "wnn"]
