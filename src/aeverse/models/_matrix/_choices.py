"""Names that settings can take."""

from __future__ import annotations

from typing import Literal, get_args

CountLikelihood = Literal["nb", "poisson"]
Likelihood = Literal["nb", "poisson", "gaussian", "bernoulli", "fractions"]
Corruption = Literal["thinning", "masking", "gaussian"]
Regularizer = Literal["sparse", "contractive", "denoising", "variational", "graph"]
Decoder = Literal["linear", "mlp"]

COUNT_LIKELIHOODS: tuple[str, ...] = get_args(CountLikelihood)
LIKELIHOODS: tuple[str, ...] = get_args(Likelihood)
CORRUPTIONS: tuple[str, ...] = get_args(Corruption)
REGULARIZERS: tuple[str, ...] = get_args(Regularizer)
DECODERS: tuple[str, ...] = get_args(Decoder)
