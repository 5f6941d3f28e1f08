"""How many subtypes there is evidence for: stability and compactness beside those of structureless cohorts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse.tl._resampled_kmeans import best_of, cluster_resamples, jaccard, one_hot, resamples

REFERENCES = 39  # structureless cohorts: with them p = 1/40 is the smallest possible
STABILITY_REFERENCES, REFERENCE_RESAMPLES = 10, 20  # their stability is an average, which needs fewer
SIGNIFICANT = 0.05
STABLE, VERY_STABLE = 0.6, 0.85  # mean Jaccard indices: not to be trusted below, highly stable above [Hennig2007]
MIN_SIZE = 5  # patients; a choice needs two groups of that size: an outlier is no subtype
CURVE = ("n_subtypes", "stability", "reference", "reference_sd", "compactness", "p_value", "second_size")
SHARE_OF_VARIANCE = 0.99


def choose_number(curve: pd.DataFrame, evidence: pd.DataFrame | None, n: int) -> int:
    """The largest of the highly stable numbers for which there is evidence, or the most stable one, or 1."""
    if curve.empty:
        _slots.warn(f"{n} patients with these embeddings are too few to distinguish subtypes: one subtype.")
        return 1
    judged = curve if evidence is None else evidence
    if not (_evident(judged) & _stable(judged)).any():
        why = (
            f"no number from 2 to {judged['n_subtypes'].max()} gives clusters that come back when patients are resampled"
            if _evident(judged).any()
            else f"clusters are no more compact than in structureless data with the same covariance (smallest p = "
            f"{judged['p_value'].min():.2f})"
        )
        _slots.warn(f"no stable subtypes: {why}; one subtype. Pass n_subtypes= to cut the cohort anyway.")
        return 1
    supported = judged.loc[_evident(judged) & _stable(judged), "n_subtypes"].max()
    candidates = curve[_evident(curve) & _stable(curve) & (curve["n_subtypes"] <= supported)]
    if candidates.empty:
        _slots.warn(
            f"no stable subtypes: the data hold evidence for up to {supported}, use_rep for none of these numbers; one "
            "subtype."
        )
        return 1
    very_stable = candidates.loc[candidates["stability"] >= VERY_STABLE, "n_subtypes"]
    best = int(
        very_stable.max() if len(very_stable) else candidates.loc[candidates["stability"].idxmax(), "n_subtypes"]
    )
    largest = int(curve["n_subtypes"].max())
    if best == largest and largest < n // MIN_SIZE:
        _slots.warn(f"the largest number of subtypes that was tried, {largest}, is still stable; raise max_subtypes.")
    return best


def _evident(curve: pd.DataFrame) -> pd.Series:
    """Numbers with more compact clusters than structureless data have, not only because of outliers."""
    return (curve["p_value"] <= SIGNIFICANT) & (curve["second_size"] >= MIN_SIZE)


def _stable(curve: pd.DataFrame) -> pd.Series:
    """Numbers whose clusters come back when patients are resampled, and more so than in structureless data."""
    return (curve["stability"] >= STABLE) & (curve["stability"] > curve["reference"])


def stability_curve(points: np.ndarray, numbers: list[int], n_resamples: int, rng: np.random.Generator) -> pd.DataFrame:
    """Stability and compactness for each number of subtypes, beside those of structureless cohorts."""
    if not numbers:
        return pd.DataFrame({name: np.array([], float) for name in CURVE})
    scale = points.std(0, ddof=1)
    measured = [_measure(points, k, rng) for k in numbers]
    stability = np.array(
        [_stability(points, labels, k, n_resamples, rng) for k, (_, labels) in zip(numbers, measured, strict=True)]
    )
    spread = np.array([value for value, _ in measured])
    second = [
        int(np.sort(np.bincount(labels, minlength=k))[-2]) for k, (_, labels) in zip(numbers, measured, strict=True)
    ]
    spreads, stabilities = np.empty((REFERENCES, len(numbers))), np.empty((STABILITY_REFERENCES, len(numbers)))
    for i in range(REFERENCES):
        reference = rng.standard_normal(points.shape, np.float32) * scale
        for j, k in enumerate(numbers):
            spreads[i, j], labels = _measure(reference, k, rng)
            if i < STABILITY_REFERENCES:
                stabilities[i, j] = _stability(reference, labels, k, REFERENCE_RESAMPLES, rng)
    # Log spread in standard deviations of the references; their largest over all numbers pays for having tried them.
    mean, sd = spreads.mean(0), spreads.std(0, ddof=1) + 1e-12
    compactness = (mean - spread) / sd
    best_of_reference = ((mean - spreads) / sd).max(1)
    return pd.DataFrame(
        {
            "n_subtypes": np.array(numbers, int),
            "stability": stability,
            "reference": stabilities.mean(0),
            "reference_sd": stabilities.std(0, ddof=1),
            "compactness": compactness,
            "p_value": (1 + (best_of_reference[:, None] >= compactness).sum(0)) / (1 + REFERENCES),
            "second_size": second,
        },
        index=[str(k) for k in numbers],
    )


def _measure(points: np.ndarray, k: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Log within-cluster sum of squares and labels, for k clusters of all patients."""
    labels = best_of(points, k, rng)
    reference = one_hot(labels[None], k)[0]
    means = reference @ points / np.maximum(reference.sum(1), 1)[:, None]
    within = ((points - means[labels]) ** 2).sum(dtype=np.float64)
    return float(np.log(max(within, 1e-300))), labels


def _stability(points: np.ndarray, whole: np.ndarray, k: int, n_resamples: int, rng: np.random.Generator) -> float:
    """How well clusters of all patients come back in resamples: mean Jaccard index."""
    sampled = resamples(len(points), n_resamples, rng)
    members = one_hot(cluster_resamples(points, k, sampled, whole, rng), k) & sampled[:, None]
    return float(jaccard(members, one_hot(whole[None], k)[0], sampled).mean())


def principal_axes(code: np.ndarray) -> np.ndarray:
    """The embedding turned to those principal axes that hold 99 % of its variance: distances stay (but for a factor),
    covariance is diagonal, and short dimensions cost nothing.
    """
    u, s, _ = np.linalg.svd(code - code.mean(0), full_matrices=False)
    largest = s.max(initial=0)
    if not largest > 0:
        return np.zeros((len(code), 1), np.float32)
    s = s / largest * np.sqrt(len(code))  # float32 has no room for large embeddings
    before = (s**2).cumsum() - s**2
    keep = (before < SHARE_OF_VARIANCE * (s**2).sum()) & (s > 1e-7 * s[0])
    return (u * s)[:, keep].astype(np.float32)
