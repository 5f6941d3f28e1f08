"""`tl.subtypes`: groups of patients that come back when the cohort is resampled, as many as there is evidence for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from aeverse import _slots
from aeverse.tl._evidence import linear_code

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

SHARE = 0.8  # of the patients, in each resample [Monti2003]
REFERENCES = 39  # structureless cohorts: with them p = 1/40 is the smallest possible
STABILITY_REFERENCES, REFERENCE_RESAMPLES = 10, 20  # their stability is an average, which needs fewer
SIGNIFICANT = 0.05
STABLE, VERY_STABLE = 0.6, 0.85  # mean Jaccard indices: not to be trusted below, highly stable above [Hennig2007]
MIN_SIZE = 5  # patients; a choice needs two groups of that size: an outlier is no subtype
MAX_PATIENTS = 10_000  # the consensus matrix is dense
RESTARTS = 10  # of k-means on the whole cohort
CURVE = ("n_subtypes", "stability", "reference", "reference_sd", "compactness", "p_value", "second_size")
MAX_ITERATIONS = 50
SHARE_OF_VARIANCE = 0.99
MAX_SUBTYPES = 100  # labels are int8


def subtypes(
    data: AnnData | MuData,
    *,
    n_subtypes: int | None = None,
    use_rep: str = "X_ae",
    evidence_rep: str | None = "auto",
    max_subtypes: int = 8,
    n_resamples: int = 100,
    model: AnnData | MuData | Mapping[str, Any] | None = None,
    key_added: str = "subtype",
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Find subtypes of patients in a code, by consensus over resampled patients, and say when there are none.

    The code is clustered by k-means in many resamples of 80 % of the patients. Each of these clusterings then votes on
    every patient, and the subtype is the majority's (bagged clustering, [Dudoit2003]_); the consensus matrix
    [Monti2003]_ says how often two patients fell together.

    The number of subtypes is judged against structureless cohorts, drawn from one normal distribution with the code's
    own covariance (as in [John2020]_, so that a code which is merely longer in one direction is not cut in two). A
    number is a candidate if its clusters are more compact than in those cohorts (Monte-Carlo p of at most 0.05, the
    maximum over all numbers taken into account), if two of them hold at least 5 patients, and if their stability, the
    mean Jaccard index between a cluster and its best match in the resamples [Hennig2007]_, is at least 0.6 and above
    that in the structureless cohorts. Taken is the largest candidate that is highly stable (0.85 and more [Hennig2007]_),
    or if there is none the most stable one. Without a candidate there is one subtype, and a warning.

    Parameters
    ----------
    data
        Cohort with a code; patients are the observations.
    n_subtypes
        Number of subtypes; None chooses.
    use_rep
        Key of the code in ``data.obsm``, (patients, dimensions). Distances are Euclidean, so the scale of its columns
        counts.
    evidence_rep
        Where to judge whether there are subtypes at all. A code that was learnt together with the patients'
        neighbourhoods, as that of `aeverse.tl.multimodal_embed`, draws them together and holds groups even where the
        data have none. So ``"auto"`` judges a code that aeverse made by the significant principal components of the
        data that it was made of (read again from `data`), and any other code, or one that is itself linear, by the code.
        Else the key of a linear code in ``data.obsm``; None: always `use_rep`. The number of subtypes is chosen by the
        stability of `use_rep`, among those up to the largest for which there is evidence.
    max_subtypes
        Largest number that is tried.
    n_resamples
        Resamples of the patients.
    model
        Assign the patients of `data` to subtypes that were found before instead of finding new ones: the object in
        which they were found (or its ``uns["ae"][key_added]`` alone, which holds no patient's data). The clusterings of
        its resamples vote by their nearest centroid; for the patients in whom the subtypes were found the result is the
        same as it was. The code must come from the same fitted model.
    key_added
        Name of the results.
    random_state
        Seed.
    copy
        Write to a copy and return it.

    Returns
    -------
    `None`, or the copy. Written are

    ``obs[key_added]``
        Subtype, categorical: ``"1"`` is the largest.
    ``obs[key_added + "_confidence"]``
        Share of the resamples that voted for the patient's subtype.
    ``obsp[key_added + "_consensus"]``
        Consensus matrix, (patients, patients), float32: the share of the resamples with both patients in which they
        fell together. Not written where `model` is given.
    ``uns["ae"][key_added]``
        ``curve``, a row per number of subtypes: ``stability``, its mean in structureless cohorts (``reference``,
        ``reference_sd``), ``compactness`` beyond theirs in standard deviations, its ``p_value``, the size of the
        second largest cluster. ``clusters``, a row per subtype: ``size``, ``stability`` (below 0.6: not to be trusted,
        [Hennig2007]_), ``confidence``. ``centroids``, (resamples, subtypes, dimensions), for new patients.

    Raises
    ------
    KeyError, TypeError, ValueError
        There is no such code, it has missing values, there are fewer different patients than subtypes, or a result
        would overwrite what aeverse did not write. `data` is then as it was.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(90, 50, n_types=3)
    >>> ae.tl.embed(adata, n_latent=4)
    >>> ae.tl.subtypes(adata, max_subtypes=5)
    >>> adata.obs["subtype"].nunique()
    3
    """
    data = _slots.cohort(data, copy)
    written = [("obs", key_added), ("obs", f"{key_added}_confidence")]
    if model is None:
        written.append(("obsp", f"{key_added}_consensus"))
    _slots.check_keys(data, written, key_added)
    code = _read_code(data, use_rep)
    linear = None if model is not None else _read_evidence(data, use_rep, evidence_rep, random_state)
    params = {"use_rep": use_rep, "random_state": random_state, "assigned": model is not None}
    obsp = {}
    if model is None:
        found = _find(code, linear, n_subtypes, max_subtypes, n_resamples, random_state)
        obsp = {f"{key_added}_consensus": found.consensus}
        record = {
            "curve": found.curve,
            "evidence": found.evidence,
            "clusters": found.clusters,
            "centroids": found.centroids,
        }
        votes = _votes(code, found.centroids)
        params |= {
            "evidence_rep": evidence_rep,
            "n_subtypes": n_subtypes,
            "max_subtypes": max_subtypes,
            "n_resamples": n_resamples,
        }
    else:
        earlier = model if isinstance(model, Mapping) else _slots.read_record(model, key_added)
        centroids = _read_centroids(earlier, code.shape[1])
        record = {name: earlier[name] for name in ("curve", "clusters") if name in earlier} | {"centroids": centroids}
        votes = _votes(code, centroids)
    names = [str(i + 1) for i in range(votes.shape[1])]
    label = votes.argmax(1)
    _slots.write(
        data,
        _slots.Results(
            name=key_added,
            record={"params": params, "versions": _slots.versions(), **record},
            obs={
                key_added: pd.Categorical.from_codes(label, names),
                f"{key_added}_confidence": votes[np.arange(len(votes)), label],
            },
            obsp=obsp,
        ),
    )
    return data if copy else None


# ---- reading ---------------------------------------------------------------------------------------------------
def _read_code(data, use_rep: str) -> np.ndarray:
    code = _slots.read_code(data, use_rep)
    if len(code) > MAX_PATIENTS:
        raise ValueError(
            f"{len(code)} observations: subtypes is for cohorts of up to {MAX_PATIENTS} patients, since its consensus "
            f"matrix is dense; for cells, sc.pp.neighbors(data, use_rep={use_rep!r}) and sc.tl.leiden."
        )
    return code


def _read_evidence(data, use_rep: str, evidence_rep: str | None, random_state: int) -> np.ndarray | None:
    """The linear code to judge by, or None where `use_rep` is its own judge."""
    if evidence_rep is None:
        return None
    return linear_code(data, use_rep, random_state) if evidence_rep == "auto" else _read_code(data, evidence_rep)


def _read_centroids(record: Mapping[str, Any], n_dims: int) -> np.ndarray:
    if "centroids" not in record:
        raise ValueError(f"model= is no result of aeverse.tl.subtypes: it holds {sorted(record)}, not 'centroids'.")
    centroids = np.asarray(record["centroids"], np.float64)
    if centroids.shape[-1] != n_dims:
        raise ValueError(
            f"the subtypes were found in a code of {centroids.shape[-1]} dimensions, this one has {n_dims}: make both "
            "with the same fitted model."
        )
    return centroids


# ---- finding ---------------------------------------------------------------------------------------------------
@dataclass
class _Found:
    centroids: np.ndarray  # (resamples, subtypes, dimensions), columns of all resamples in the same order
    consensus: np.ndarray  # (patients, patients)
    curve: pd.DataFrame
    evidence: pd.DataFrame | None  # the curve of the linear code
    clusters: pd.DataFrame


def _find(
    code: np.ndarray,
    linear: np.ndarray | None,
    n_subtypes: int | None,
    max_subtypes: int,
    n_resamples: int,
    random_state: int,
) -> _Found:
    if n_resamples < 10:
        raise ValueError(f"n_resamples={n_resamples}: at least 10 are needed to tell what is stable.")
    distinct = len(np.unique(code, axis=0))
    most = min(distinct, MAX_SUBTYPES)
    if n_subtypes is not None and not 1 <= n_subtypes <= most:
        raise ValueError(
            f"n_subtypes={n_subtypes}: must be between 1 and {most} (there are {distinct} different codes)."
        )
    if not 2 <= max_subtypes <= MAX_SUBTYPES:
        raise ValueError(f"max_subtypes={max_subtypes}: must be between 2 and {MAX_SUBTYPES}.")
    rng = np.random.default_rng(random_state)
    points = _principal_axes(code)
    largest = min(max_subtypes, len(code) // MIN_SIZE, distinct)
    curve = _curve(points, list(range(2, largest + 1)), n_resamples, rng)
    evidence = None
    if linear is not None:
        evidence = _curve(_principal_axes(linear), list(range(2, largest + 1)), n_resamples, rng)
    k = _choose(curve, evidence, len(code)) if n_subtypes is None else n_subtypes
    sampled = _resamples(len(code), n_resamples, rng)
    whole = _best_of(points, k, rng)
    labels = _cluster(points, k, sampled, whole, rng)
    onehot = _onehot(labels, k)  # (resamples, k, patients)
    members = onehot & sampled[:, None]
    sizes = members.sum(2)
    centroids = (members.reshape(-1, len(code)) @ code).reshape(*sizes.shape, -1) / np.maximum(sizes, 1)[:, :, None]
    centroids[sizes == 0] = np.inf  # a cluster that a resample did not find gets no vote from it
    stability = _jaccard(members, _onehot(whole[None], k)[0], sampled).mean(0)
    order = _by_size(code, centroids)
    centroids, stability = centroids[:, order], stability[order]
    votes = _votes(code, centroids)
    label = votes.argmax(1)
    clusters = pd.DataFrame(
        {
            "size": np.bincount(label, minlength=k),
            "stability": stability,
            "confidence": [votes[label == i, i].mean() if (label == i).any() else np.nan for i in range(k)],
        },
        index=pd.Index([str(i + 1) for i in range(k)], name="subtype"),
    )
    small = clusters["size"] < MIN_SIZE
    if k > 1 and small.any():
        _slots.warn(
            f"{int(small.sum())} of {k} subtypes have fewer than {MIN_SIZE} patients; nothing can be said of those."
        )
    return _Found(centroids, _consensus(members, sampled), curve, evidence, clusters)


def _choose(curve: pd.DataFrame, evidence: pd.DataFrame | None, n: int) -> int:
    """The largest of the highly stable numbers for which there is evidence, or the most stable one, or 1."""
    if curve.empty:
        _slots.warn(f"{n} patients with these codes are too few to tell subtypes apart: one subtype.")
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


def _curve(points: np.ndarray, numbers: list[int], n_resamples: int, rng: np.random.Generator) -> pd.DataFrame:
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
        drawn = rng.standard_normal(points.shape, np.float32) * scale
        for j, k in enumerate(numbers):
            spreads[i, j], labels = _measure(drawn, k, rng)
            if i < STABILITY_REFERENCES:
                stabilities[i, j] = _stability(drawn, labels, k, REFERENCE_RESAMPLES, rng)
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
    labels = _best_of(points, k, rng)
    reference = _onehot(labels[None], k)[0]
    means = reference @ points / np.maximum(reference.sum(1), 1)[:, None]
    within = ((points - means[labels]) ** 2).sum(dtype=np.float64)
    return float(np.log(max(within, 1e-300))), labels


def _stability(points: np.ndarray, whole: np.ndarray, k: int, n_resamples: int, rng: np.random.Generator) -> float:
    """How well clusters of all patients come back in resamples: mean Jaccard index."""
    sampled = _resamples(len(points), n_resamples, rng)
    members = _onehot(_cluster(points, k, sampled, whole, rng), k) & sampled[:, None]
    return float(_jaccard(members, _onehot(whole[None], k)[0], sampled).mean())


def _principal_axes(code: np.ndarray) -> np.ndarray:
    """The code turned to those principal axes that hold 99 % of its variance: distances stay (but for a factor),
    covariance is diagonal, and short dimensions cost nothing.
    """
    u, s, _ = np.linalg.svd(code - code.mean(0), full_matrices=False)
    largest = s.max(initial=0)
    if not largest > 0:
        return np.zeros((len(code), 1), np.float32)
    s = s / largest * np.sqrt(len(code))  # float32 has no room for large codes
    before = (s**2).cumsum() - s**2
    keep = (before < SHARE_OF_VARIANCE * (s**2).sum()) & (s > 1e-7 * s[0])
    return (u * s)[:, keep].astype(np.float32)


# ---- clustering ------------------------------------------------------------------------------------------------
def _resamples(n: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, patients): who is in."""
    ranks = rng.random((n_resamples, n)).argsort(1)
    return ranks < max(round(SHARE * n), min(n, 2))


def _best_of(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Labels of all patients, the best of several k-means."""
    labels, within = _kmeans(points, k, np.ones((RESTARTS, len(points)), bool), rng)
    return labels[within.argmin()]


def _cluster(
    points: np.ndarray, k: int, sampled: np.ndarray, whole: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Cluster every resample, (resamples, patients), with numbers that agree with those of the whole cohort."""
    first, second = (_kmeans(points, k, sampled, rng) for _ in range(2))
    labels = np.where((first[1] <= second[1])[:, None], first[0], second[0])
    overlap = _onehot(labels, k).reshape(-1, len(points)).astype(np.float32) @ _onehot(whole[None], k)[0].T
    for r, table in enumerate(overlap.reshape(len(labels), k, k)):
        mine, theirs = linear_sum_assignment(-table)
        labels[r] = theirs[np.argsort(mine)][labels[r]]
    return labels


def _kmeans(points: np.ndarray, k: int, sampled: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """k-means of all resamples at once: labels of all patients, (resamples, n), and the sums of squares of those
    sampled.

    The resamples share one matrix product an iteration, which is what makes thousands of clusterings affordable.
    """
    squares = (points**2).sum(1)
    centroids = _seeds(points, squares, k, sampled, rng)
    labels = np.full(sampled.shape, -1, np.int8)
    within = np.zeros(len(sampled))
    running = np.arange(len(sampled))
    for _ in range(MAX_ITERATIONS):
        nearest, distance = _nearest(points, centroids[running])
        moved = (nearest != labels[running]).any(1)
        labels[running] = nearest
        within[running] = ((distance + squares) * sampled[running]).sum(1, dtype=np.float64)
        running = running[moved]
        if not len(running):
            break
        members = (_onehot(labels[running], k) & sampled[running, None]).astype(points.dtype)
        sizes = members.sum(2)[:, :, None]
        means = (members.reshape(-1, len(points)) @ points).reshape(len(running), k, -1) / np.maximum(sizes, 1)
        centroids[running] = np.where(sizes > 0, means, centroids[running])
    return labels, within


def _nearest(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of every patient in every resample, and the squared distance less the patient's own square."""
    n_resamples, k, n_dims = centroids.shape
    products = (centroids.reshape(-1, n_dims) @ points.T).reshape(n_resamples, k, -1)
    distances = (centroids**2).sum(2)[:, :, None] - 2 * products
    smallest, nearest = distances[:, 0].copy(), np.zeros((n_resamples, len(points)), np.int8)
    for j in range(1, k):  # several times faster than argmin over an axis in the middle
        nearest[distances[:, j] < smallest] = j
        np.minimum(smallest, distances[:, j], out=smallest)
    return nearest, smallest


def _seeds(points, squares, k: int, sampled: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """k-means++ seeds for every resample, (resamples, k, dimensions)."""
    nearest = sampled.astype(np.float64)
    seeds = np.empty((len(sampled), k, points.shape[1]), points.dtype)
    for j in range(k):
        weights = nearest * sampled
        weights = np.where(weights.sum(1, keepdims=True) > 0, weights, sampled)
        cumulative = weights.cumsum(1)
        drawn = (1 - rng.random((len(sampled), 1))) * cumulative[:, -1:]  # in (0, total]: weight zero is never drawn
        seeds[:, j] = points[np.minimum((cumulative < drawn).sum(1), len(points) - 1)]
        distance = squares - 2 * seeds[:, j] @ points.T + (seeds[:, j] ** 2).sum(1)[:, None]
        nearest = np.maximum(distance if j == 0 else np.minimum(nearest, distance), 0)
    return seeds


def _onehot(labels: np.ndarray, k: int) -> np.ndarray:
    """(resamples, patients) of labels -> (resamples, k, patients) of booleans."""
    return labels[:, None] == np.arange(k)[:, None]


def _jaccard(members: np.ndarray, reference: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """(resamples, k): Jaccard index of each cluster, among the patients sampled, with its best match in the
    resample.
    """
    n_resamples, k, n = members.shape
    both = (members.reshape(-1, n).astype(np.float32) @ reference.T.astype(np.float32)).reshape(n_resamples, k, k)
    expected = sampled.astype(np.float32) @ reference.T.astype(np.float32)
    union = members.sum(2)[:, :, None] + expected[:, None] - both
    return (both / np.maximum(union, 1)).max(1)


def _by_size(code: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Order of the clusters by how many patients vote for them, the largest first."""
    order = np.arange(centroids.shape[1])
    for _ in range(len(order)):  # a tie of votes goes to the lower number, so that a new order can change sizes
        sizes = np.bincount(_votes(code, centroids[:, order]).argmax(1), minlength=len(order))
        if (np.diff(sizes) <= 0).all():
            break
        order = order[np.argsort(-sizes, kind="stable")]
    return order


def _consensus(members: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """How often two patients fell together, of the resamples with both; 0 where there was none."""
    flat = members.reshape(-1, members.shape[2]).astype(np.float32)
    met = sampled.astype(np.float32)
    return (flat.T @ flat) / np.maximum(met.T @ met, 1)


def _votes(code: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(patients, subtypes): share of the resamples whose nearest centroid is that subtype's.

    A tie of the votes goes to the lower number, the larger subtype.
    """
    votes = np.zeros((len(code), centroids.shape[1]))
    for centres in centroids:
        distances = ((code[:, None] - centres) ** 2).sum(2)
        votes[np.arange(len(code)), distances.argmin(1)] += 1
    return votes / len(centroids)
