"""Principal component analysis."""

from __future__ import annotations

import numpy as np

from aeverse.methods._features import Features
from aeverse.methods._fitted import Fitted

N_COMPONENTS = 32


def pca(x, *, kind, names, mask, batches, n_latent, random_state, progress) -> Fitted:
    """`n_latent` (32) principal components."""
    from sklearn.decomposition import PCA

    features = Features(x, kind, names, mask)
    y = features(x)
    n_components = min(n_latent or N_COMPONENTS, *y.shape)
    fitted = PCA(n_components, random_state=random_state).fit(y)

    def encode(new) -> np.ndarray:
        return fitted.transform(features(new)).astype(np.float32)

    return Fitted(encode(x), {"n_components": n_components}, encode)
