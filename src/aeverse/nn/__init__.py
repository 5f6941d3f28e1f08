"""The torch modules behind aeverse, free of AnnData: import them into your own models."""

from aeverse.nn._alignment import Alignment
from aeverse.nn._autoencoder import AutoencoderNet, Ensemble
from aeverse.nn._batch import Batch
from aeverse.nn._calibration import Calibration
from aeverse.nn._correction import Correction
from aeverse.nn._corruption import Corruption, Masking, Noise, Thinning, add_noise, mask, thin
from aeverse.nn._count_loss import count_loss, softmax_means
from aeverse.nn._decoder import Decoder
from aeverse.nn._encoder import (
    BinaryInput,
    Code,
    CountInput,
    DenseInput,
    Encoder,
    InputLayer,
    LogitInput,
    Projection,
    ValueInput,
)
from aeverse.nn._expression import Expression
from aeverse.nn._fusion import EnsembleLinear, EnsembleMLP, FusionBatch, FusionNet
from aeverse.nn._graph import diffusion_coordinates, fuse, local_kernel, nearest, row_normalized, smooth
from aeverse.nn._likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Gaussian,
    Likelihood,
    LogitGaussian,
    NegativeBinomial,
    Poisson,
    ValueLikelihood,
)
from aeverse.nn._mixture import foreground_probability
from aeverse.nn._moments import moments
from aeverse.nn._penalties import Contraction, Divergence, GraphTarget, Penalty, Sparsity, TargetActivity
from aeverse.nn._posterior import GammaPosterior
from aeverse.nn._random import generator_on
from aeverse.nn._rows import SparseRows, product
from aeverse.nn._special import fraction_logit
from aeverse.nn._units import Units

__all__ = [
    "Alignment",
    "AutoencoderNet",
    "Batch",
    "Bernoulli",
    "BinaryInput",
    "Calibration",
    "Code",
    "Contraction",
    "Correction",
    "Corruption",
    "CountInput",
    "Decoder",
    "DenseInput",
    "Divergence",
    "Encoder",
    "Ensemble",
    "Expression",
    "FusionBatch",
    "FusionNet",
    "GammaPosterior",
    "Gaussian",
    "GraphTarget",
    "InputLayer",
    "LIKELIHOODS",
    "Likelihood",
    "LogitGaussian",
    "LogitInput",
    "Masking",
    "EnsembleLinear",
    "EnsembleMLP",
    "NegativeBinomial",
    "Noise",
    "Penalty",
    "Poisson",
    "Projection",
    "SparseRows",
    "Sparsity",
    "TargetActivity",
    "Thinning",
    "Units",
    "ValueInput",
    "ValueLikelihood",
    "add_noise",
    "count_loss",
    "diffusion_coordinates",
    "foreground_probability",
    "fraction_logit",
    "fuse",
    "generator_on",
    "local_kernel",
    "mask",
    "moments",
    "nearest",
    "product",
    "row_normalized",
    "smooth",
    "softmax_means",
    "thin",
]
