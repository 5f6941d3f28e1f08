"""The linear embedding in which `tl.subtypes` asks whether there are subtypes at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aeverse import _slots, models
from aeverse.models._shared._covariates import Covariates
from aeverse.models._shared._views import View

LINEAR = ("pca", "concat_pca", "mfa", "mofa")  # embeddings that are linear themselves
MAX_COMPONENTS = 30  # of each modality
FEWEST_TO_PREDICT = 20  # patients with both, below which a modality says nothing about another
RIDGE = 1.0  # of scores of unit variance


def linear_code(data, use_rep: str, random_state: int) -> np.ndarray | None:
    """Significant principal components of what an embedding was made of, (patients, components), or None.

    None where the embedding was not made by aeverse or is linear itself. A modality weighs as much as it has significant
    components. Where a patient lacks a modality its components are drawn from the normal distribution that they have
    given the other modalities: under the null hypothesis, one normal distribution, this is exact, whereas the mean in
    their place would set the patients without it apart.
    """
    record = _maker(data, use_rep)
    if record is None or record["params"].get("method", "ae") in LINEAR:
        return None
    rng = np.random.default_rng(random_state)
    params = record["params"]
    parts = _modalities(data, record, params)
    kinds = record.get("kinds") or models.kinds_of(parts, "auto")
    known, table = Covariates.read(data, params.get("batch_key"), params.get("covariates"))
    matrix = known.matrix(table)
    blocks, weights = {}, {}
    for m, d in parts.items():
        view = View(kinds[m], max_components=MAX_COMPONENTS)
        scores = view.fit(d.x, d.names, None if d.mask is None else np.flatnonzero(d.mask))
        if matrix is not None:
            scores = _without(scores, matrix[d.rows])
        blocks[m] = np.full((data.n_obs, scores.shape[1]), np.nan)
        blocks[m][d.rows] = scores
        weights[m] = max(view.n_significant, 0.5) / scores.shape[1]
    filled = {m: _drawn(m, blocks, rng) for m in blocks}
    return np.hstack([z * weights[m] ** 0.5 for m, z in filled.items()])


def _maker(data, use_rep: str) -> Mapping[str, Any] | None:
    """Record of the call that wrote an embedding."""
    for record in data.uns.get("ae", {}).values():
        if f"obsm/{use_rep}" in {str(key) for key in record.get("writes", ())} and "params" in record:
            return record
    return None


def _modalities(data, record: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, _slots.Modality]:
    """What the embedding was made of, an AnnData being its only modality."""
    layer, mask_var = params.get("layer"), params.get("mask_var")
    if hasattr(data, "mod"):
        names = [m for m in record.get("kinds", data.mod) if m in data.mod]
        masks = _slots.masks_of(data, mask_var)
        layers, masks = ({m: options[m] for m in names if m in options} for options in (layer or {}, masks))
        return _slots.read_modalities(data, names, layers, masks)
    return {"X": _slots.as_modality(data, layer, mask_var)}


def _without(scores: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Scores less what a linear regression on covariates explains: with batches alone, the mean of the batch."""
    design = np.column_stack([np.ones(len(scores)), covariates]).astype(np.float64)
    return scores - (design @ np.linalg.lstsq(design, scores, rcond=None)[0]).astype(scores.dtype)


def _drawn(name: str, blocks: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One modality's scores, the missing ones drawn given each patient's other modalities."""
    z = blocks[name].copy()
    has = {m: np.isfinite(b).all(1) for m, b in blocks.items()}
    remaining = [m for m in blocks if m != name]
    pattern = np.stack([has[m] for m in remaining], 1) if remaining else np.zeros((len(z), 0), bool)
    lacking = ~has[name]
    for pattern_row in np.unique(pattern[lacking], axis=0):
        members = lacking & (pattern == pattern_row).all(1)
        available = [m for m, is_present in zip(remaining, pattern_row, strict=True) if is_present]
        donors = has[name] & np.all([has[m] for m in available], 0) if available else has[name]
        if not available or donors.sum() < FEWEST_TO_PREDICT:
            donors, x, new = has[name], np.ones((len(z), 1)), np.ones((len(z), 1))
        else:
            x = np.hstack([blocks[m] for m in available] + [np.ones((len(z), 1))])
            new = x
        beta = np.linalg.solve(x[donors].T @ x[donors] + RIDGE * np.eye(x.shape[1]), x[donors].T @ z[donors])
        residual = z[donors] - x[donors] @ beta
        # Residuals of whole patients, so that the components keep their covariance whatever its rank.
        mix = rng.standard_normal((int(members.sum()), len(residual))) / np.sqrt(len(residual))
        z[members] = new[members] @ beta + mix @ (residual - residual.mean(0))
    return z
