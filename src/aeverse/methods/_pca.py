"""Principal component analysis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aeverse import _slots
from aeverse.methods._fitted import Fitted
from aeverse.methods._prepare import Features

N_COMPONENTS = 32


def pca(data: Mapping[str, _slots.Modality], kinds: Mapping[str, str], *, n_latent, random_state) -> Fitted:
    """`n_latent` (32) principal components of one matrix."""
    from sklearn.decomposition import PCA

    [(name, d)] = data.items()
    features = Features(d, kinds[name])
    y = features(d)
    n_components = min(n_latent or N_COMPONENTS, *y.shape)
    fitted = PCA(n_components, random_state=random_state).fit(y)

    def encode(data: Mapping[str, _slots.Modality], n_obs: int) -> np.ndarray:
        return fitted.transform(features(data[name])).astype(np.float32)

    return Fitted(encode(data, len(y)), {"n_components": n_components}, encode)
