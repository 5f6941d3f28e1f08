"""`tl.subtypes`: groups of patients that come back when the cohort is resampled, as many as there is evidence for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.tl._linear_code import linear_code
from aeverse.tl._number_of_subtypes import MIN_SIZE, choose_number, principal_axes, stability_curve
from aeverse.tl._resampled_kmeans import (
    best_of,
    by_size,
    cluster_resamples,
    consensus,
    count_votes,
    jaccard,
    one_hot,
    resamples,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

MAX_PATIENTS = 10_000  # the consensus matrix is dense
MAX_SUBTYPES = 100  # labels are int8


@checked
def subtypes(
    data: AnnData | MuData,
    *,
    n_subtypes: int | None = None,
    use_rep: str = "X_ae",
    evidence_rep: str | None = "auto",
    max_subtypes: int = 8,
    n_resamples: int = 100,
    reference: AnnData | MuData | Mapping[str, Any] | None = None,
    key_added: str = "subtype",
    random_state: int = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Find subtypes of patients in an embedding, by consensus over resampled patients, and say when there are none.

    The embedding is clustered by k-means in many resamples of 80 % of the patients. Each of these clusterings then votes on
    every patient, and the subtype is the majority's (bagged clustering, [Dudoit2003]_); the consensus matrix
    [Monti2003]_ holds how often two patients fell together.

    The number of subtypes is judged against structureless cohorts, drawn from one normal distribution with the embedding's
    own covariance (as in [John2020]_, so that an embedding which is merely longer in one direction is not cut in two). A
    number is a candidate if its clusters are more compact than in those cohorts (Monte-Carlo p of at most 0.05, the
    maximum over all numbers taken into account), if two of them hold at least 5 patients, and if their stability, the
    mean Jaccard index between a cluster and its best match in the resamples [Hennig2007]_, is at least 0.6 and above
    that in the structureless cohorts. The largest candidate that is highly stable (0.85 and more [Hennig2007]_) is taken,
    or if there is none the most stable one. Without a candidate there is one subtype, and a warning.

    Parameters
    ----------
    data
        Cohort with an embedding; patients are the observations.
    n_subtypes
        Number of subtypes; None chooses.
    use_rep
        Key of the embedding in ``data.obsm``, (patients, dimensions). Distances are Euclidean, so the scale of its columns
        counts.
    evidence_rep
        Where to judge whether there are subtypes at all. An embedding that was learned together with the patients'
        neighborhoods, as that of `aeverse.tl.multimodal_embed`, draws them together and holds groups even where the
        data have none. So ``"auto"`` judges an embedding that aeverse made by the significant principal components of the
        data that it was made of (read again from `data`), and any other embedding, or one that is itself linear,
        as it is.
        Else the key of a linear embedding in ``data.obsm``; None: always `use_rep`. The number of subtypes is chosen by the
        stability of `use_rep`, among those up to the largest for which there is evidence.
    max_subtypes
        Largest number that is tried.
    n_resamples
        Resamples of the patients.
    reference
        Assign the patients of `data` to subtypes that were found before instead of finding new ones: the object in
        which they were found (or its ``uns["ae"][key_added]`` alone, which holds no patient's data). The clusterings of
        its resamples vote by their nearest centroid; for the patients in whom the subtypes were found the result is the
        same as it was. The embedding must come from the same fitted model.
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
        fell together. Not written where `reference` is given.
    ``uns["ae"][key_added]``
        ``curve``, a row per number of subtypes: ``stability``, its mean in structureless cohorts (``reference``,
        ``reference_sd``), ``compactness`` beyond theirs in standard deviations, its ``p_value``, the size of the
        second largest cluster. ``clusters``, a row per subtype: ``size``, ``stability`` (below 0.6: not to be trusted,
        [Hennig2007]_), ``confidence``. ``centroids``, (resamples, subtypes, dimensions), for new patients.

    Raises
    ------
    KeyError, TypeError, ValueError
        There is no such embedding, it has missing values, there are fewer different patients than subtypes, or a result
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
    params = _slots.parameters(locals())
    data = _slots.writable_any(data, copy)
    written = [("obs", key_added), ("obs", f"{key_added}_confidence")]
    if reference is None:
        written.append(("obsp", f"{key_added}_consensus"))
    _slots.check_keys(data, written, key_added)
    code = _read_code(data, use_rep)
    obsp = {}
    if reference is None:
        linear = _read_evidence(data, use_rep, evidence_rep, random_state)
        groups = _find(code, linear, n_subtypes, max_subtypes, n_resamples, random_state)
        obsp = {f"{key_added}_consensus": groups.consensus}
        record: dict[str, Any] = {
            "curve": groups.curve,
            "evidence": groups.evidence,
            "clusters": groups.clusters,
            "centroids": groups.centroids,
        }
    else:
        earlier = reference if isinstance(reference, Mapping) else _slots.read_record(reference, key_added)
        record = {name: earlier[name] for name in ("curve", "clusters") if name in earlier}
        record["centroids"] = _read_centroids(earlier, code.shape[1])
        _check_same_model(earlier, data, use_rep)
    if (model := _slots.embedding_model(data, use_rep)) is not None:
        record["embedding_model"] = model
    votes = count_votes(code, record["centroids"])
    names = [str(i + 1) for i in range(votes.shape[1])]
    label = votes.argmax(1)
    _slots.write(
        data,
        _slots.Results(
            name=key_added,
            record={
                "params": {**params, "assigned": reference is not None},
                "versions": _slots.versions(),
                **record,
            },
            obs={
                key_added: pd.Categorical.from_codes(label, names),
                f"{key_added}_confidence": votes[np.arange(len(votes)), label],
            },
            obsp=obsp,
        ),
    )
    return data if copy else None


def _read_code(data, use_rep: str) -> np.ndarray:
    code = _slots.read_code(data, use_rep)
    if len(code) > MAX_PATIENTS:
        raise ValueError(
            f"{len(code)} observations: subtypes is for cohorts of up to {MAX_PATIENTS} patients, since its consensus "
            f"matrix is dense; for cells, sc.pp.neighbors(data, use_rep={use_rep!r}) and sc.tl.leiden."
        )
    return code


def _read_evidence(data, use_rep: str, evidence_rep: str | None, random_state: int) -> np.ndarray | None:
    """The linear embedding to judge by, or None where `use_rep` is its own judge."""
    if evidence_rep is None:
        return None
    return linear_code(data, use_rep, random_state) if evidence_rep == "auto" else _read_code(data, evidence_rep)


def _read_centroids(record: Mapping[str, Any], n_dims: int) -> np.ndarray:
    if "centroids" not in record:
        raise ValueError(f"reference= is no result of aeverse.tl.subtypes: it holds {sorted(record)}, not 'centroids'.")
    try:
        centroids = np.asarray(record["centroids"], np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "reference= holds centroids that are no numbers; pass a result of aeverse.tl.subtypes."
        ) from error
    if centroids.ndim != 3 or 0 in centroids.shape or np.isnan(centroids).any() or np.isinf(centroids).all():
        raise ValueError(
            f"reference= holds centroids of shape {centroids.shape} with {int(np.isnan(centroids).sum())} NaN; they must be "
            "numbers, (resamples, subtypes, dimensions), as aeverse.tl.subtypes wrote them."
        )
    if centroids.shape[-1] != n_dims:
        raise ValueError(
            f"the subtypes were found in an embedding of {centroids.shape[-1]} dimensions, this one has {n_dims}: make both "
            "with the same fitted model."
        )
    return centroids


def _check_same_model(earlier: Mapping[str, Any], data, use_rep: str) -> None:
    """Refuse an embedding of another model, where both are known: its dimensions mean something else."""
    then, now = earlier.get("embedding_model"), _slots.embedding_model(data, use_rep)
    if then is not None and now is not None and str(then) != now:
        raise ValueError(
            f"obsm[{use_rep!r}] was made with another model than the embedding in which the subtypes were found, as its "
            "record in uns['ae'] shows; embed these patients with that model: aeverse.tl.map_query(data, model). An embedding "
            f"that you made yourself belongs under another key, which use_rep= names: obsm[{use_rep!r}] is that of the record."
        )


@dataclass
class _Found:
    centroids: np.ndarray  # (resamples, subtypes, dimensions), columns of all resamples in the same order
    consensus: np.ndarray  # (patients, patients)
    curve: pd.DataFrame
    evidence: pd.DataFrame | None  # the curve of the linear embedding
    clusters: pd.DataFrame


def _find(
    code: np.ndarray,
    linear: np.ndarray | None,
    n_subtypes: int | None,
    max_subtypes: int,
    n_resamples: int,
    random_state: int,
) -> _Found:
    distinct = len(np.unique(code, axis=0))
    most = min(distinct, MAX_SUBTYPES)
    if n_subtypes is not None and n_subtypes > most:
        raise ValueError(
            f"n_subtypes={n_subtypes}: must be between 1 and {most} (there are {distinct} different embeddings)."
        )
    if max_subtypes > MAX_SUBTYPES:
        raise ValueError(f"max_subtypes={max_subtypes}: must be at most {MAX_SUBTYPES}.")
    rng = np.random.default_rng(random_state)
    points = principal_axes(code)
    largest = min(max_subtypes, len(code) // MIN_SIZE, distinct)
    curve = stability_curve(points, list(range(2, largest + 1)), n_resamples, rng)
    evidence = None
    if linear is not None:
        evidence = stability_curve(principal_axes(linear), list(range(2, largest + 1)), n_resamples, rng)
    k = choose_number(curve, evidence, len(code)) if n_subtypes is None else n_subtypes
    sampled = resamples(len(code), n_resamples, rng)
    whole = best_of(points, k, rng)
    labels = cluster_resamples(points, k, sampled, whole, rng)
    onehot = one_hot(labels, k)  # (resamples, k, patients)
    members = onehot & sampled[:, None]
    sizes = members.sum(2)
    centroids = (members.reshape(-1, len(code)) @ code).reshape(*sizes.shape, -1) / np.maximum(sizes, 1)[:, :, None]
    centroids[sizes == 0] = np.inf  # a cluster that a resample did not find gets no vote from it
    stability = jaccard(members, one_hot(whole[None], k)[0], sampled).mean(0)
    order = by_size(code, centroids)
    centroids, stability = centroids[:, order], stability[order]
    votes = count_votes(code, centroids)
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
    return _Found(centroids, consensus(members, sampled), curve, evidence, clusters)
