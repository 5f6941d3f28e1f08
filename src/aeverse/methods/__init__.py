"""Other people's models behind the functions of `aeverse.tl`, on copies, with their own recommended settings.

Every `Method` takes modalities as `_slots.read_modalities` gives them (one matrix is one modality), and their kinds of data,
and returns a `Fitted`, whose ``encode`` (data, n_obs), where there is one, takes the same modalities of new samples.
"""

from aeverse.methods._concat_pca import concat_pca
from aeverse.methods._fitted import Fitted
from aeverse.methods._kernel_pca import kernel_pca
from aeverse.methods._method import Method
from aeverse.methods._mfa import mfa
from aeverse.methods._mofa import mofa
from aeverse.methods._multivi import multivi
from aeverse.methods._pca import pca
from aeverse.methods._prepare import Features
from aeverse.methods._scvi import scvi
from aeverse.methods._snf import snf
from aeverse.methods._totalvi import totalvi
from aeverse.methods._wnn import wnn

MATRIX = {
    "pca": Method(pca, "Pearson1901"),
    "kernel_pca": Method(kernel_pca, "Schoelkopf1998"),
    "scvi": Method(scvi, "Lopez2018"),
}
MULTIMODAL = {
    "concat_pca": Method(concat_pca, "Pearson1901"),
    "kernel_pca": Method(kernel_pca, "Schoelkopf1998"),
    "mfa": Method(mfa, "Escofier1994"),
    "snf": Method(snf, "Wang2014", embeds_new=False),
    "wnn": Method(wnn, "Hao2021", embeds_new=False),
    "mofa": Method(mofa, "Argelaguet2020", needs="mofapy2"),
    "totalvi": Method(totalvi, "Gayoso2021", embeds_new=False),
    "multivi": Method(multivi, "Ashuach2023", embeds_new=False),
}

__all__ = ["MATRIX", "MULTIMODAL", "Features", "Fitted", "Method"]
