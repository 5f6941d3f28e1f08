"""The torch modules behind aeverse, free of AnnData: import them into your own models."""

from aeverse.nn._autoencoder import AutoencoderNet, Batch, Ensemble, Thinning
from aeverse.nn._corruption import add_noise, mask, thin
from aeverse.nn._count_loss import count_loss, softmax_means
from aeverse.nn._decoder import Decoder
from aeverse.nn._encoder import CountInput, DenseInput, Encoder
from aeverse.nn._fusion import FusionBatch, FusionNet, MemberLinear, MemberMLP
from aeverse.nn._graph import diffusion_coordinates, fuse, local_kernel, nearest, row_normalised, smooth
from aeverse.nn._likelihoods import Bernoulli, Gaussian, LogitGaussian, NegativeBinomial, Poisson
from aeverse.nn._posterior import GammaPosterior
from aeverse.nn._rows import Rows, product

__all__ = [
    "AutoencoderNet",
    "Batch",
    "Bernoulli",
    "CountInput",
    "Decoder",
    "DenseInput",
    "Encoder",
    "Ensemble",
    "FusionBatch",
    "FusionNet",
    "GammaPosterior",
    "Gaussian",
    "LogitGaussian",
    "MemberLinear",
    "MemberMLP",
    "NegativeBinomial",
    "Poisson",
    "Rows",
    "Thinning",
    "add_noise",
    "count_loss",
    "diffusion_coordinates",
    "fuse",
    "local_kernel",
    "mask",
    "nearest",
    "product",
    "row_normalised",
    "smooth",
    "softmax_means",
    "thin",
]
