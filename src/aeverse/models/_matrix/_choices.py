"""Names that settings can take, for type checkers and editors. Those of likelihoods are the keys of `nn.LIKELIHOODS`."""

from __future__ import annotations

from typing import Literal, get_args

Likelihood = Literal["nb", "poisson", "gaussian", "bernoulli", "fractions"]
Corruption = Literal["thinning", "masking", "gaussian"]
Regularizer = Literal["sparse", "contractive", "denoising", "variational", "graph"]
Decoder = Literal["linear", "mlp"]

CORRUPTIONS: tuple[str, ...] = get_args(Corruption)
REGULARIZERS: tuple[str, ...] = get_args(Regularizer)
DECODERS: tuple[str, ...] = get_args(Decoder)
