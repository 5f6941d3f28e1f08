"""Other people's models behind the functions of `aeverse.tl`, on copies, with their own recommended settings.

Every entry of `MULTIMODAL` takes the modalities as `_slots.read_modalities` gives them and their kinds of data, and
returns a `Fitted`, whose ``encode`` (data, n_obs), where there is one, takes the same modalities of new samples. Every
entry of `MATRIX` takes one matrix (CSR or dense) with its kind of data; its ``encode`` takes a matrix with the same columns.
"""

from aeverse.methods._concat_pca import concat_pca
from aeverse.methods._fitted import Fitted
from aeverse.methods._kernel_pca import kernel_pca
from aeverse.methods._mfa import mfa
from aeverse.methods._mofa import mofa
from aeverse.methods._multimodal_kernel_pca import multimodal_kernel_pca
from aeverse.methods._multivi import multivi
from aeverse.methods._pca import pca
from aeverse.methods._scvi import scvi
from aeverse.methods._snf import snf
from aeverse.methods._totalvi import totalvi
from aeverse.methods._wnn import wnn

MULTIMODAL = {
    "concat_pca": concat_pca,
    "kernel_pca": multimodal_kernel_pca,
    "mfa": mfa,
    "snf": snf,
    "wnn": wnn,
    "mofa": mofa,
    "totalvi": totalvi,
    "multivi": multivi,
}
MATRIX = {"pca": pca, "kernel_pca": kernel_pca, "scvi": scvi}

__all__ = ["MATRIX", "MULTIMODAL", "Fitted"]
