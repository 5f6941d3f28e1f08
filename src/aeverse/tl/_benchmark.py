"""`tl.benchmark`: methods side by side, judged on samples that they never saw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aeverse import _runtime, _slots, methods, models
from aeverse._arguments import checked
from aeverse.tl._benchmark_clusters import cluster_scores, split_in_halves
from aeverse.tl._benchmark_fits import ALL, Result, Run, fit_matrix, fit_modalities
from aeverse.tl._benchmark_scores import Judge, Known, features_of
from aeverse.tl._outcome import outcome, require_lifelines

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

COLUMNS = (
    "method", "split", "modalities", "variance_explained", "deviance_explained", "trustworthiness",
    "cluster_deviance", "n_clusters", "knn", "probe", "ari", "nmi", "silhouette", "batch", "c_index", "n_dims",
    "fit_seconds", "encode_seconds", "memory_mb", "saw_test",
)  # fmt: skip


@checked
def benchmark(
    data: AnnData | MuData,
    methods: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = ("ae", "pca"),
    *,
    label_key: str | None = None,
    batch_key: str | None = None,
    time_key: str | None = None,
    event_key: str | None = None,
    n_splits: int = 5,
    n_latent: int | None = None,
    drop_modalities: bool = False,
    layer: str | Mapping[str, str | None] | None = None,
    random_state: int = 0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Compare methods on samples that none of them saw: which one serves these data?

    The data are cut into folds (alike in labels and events, where these are given). Each method is fitted to all folds but
    one and encodes the samples of that one; everything that is learned (scaling, choice of features, stopping, penalties) is
    learned within the other folds. A method that has no embedding for new samples (``"snf"``, ``"wnn"``, ``"totalvi"``,
    ``"multivi"``) is fitted to all samples instead, without labels, and says so in the column ``saw_test``: its figures are
    not comparable in full.

    Parameters
    ----------
    data
        AnnData or MuData; `data` is not changed.
    methods
        Names, or a dict from a name of your own to options. ``"ae"`` takes the options of `aeverse.models.Config`, with
        ``regularizer="auto"`` where none is given (for MuData of `aeverse.models.MultimodalConfig`); beside it there are, for AnnData, ``"pca"``, ``"kernel_pca"``,
        ``"scvi"``, and for MuData ``"concat_pca"``, ``"kernel_pca"``, ``"mfa"``, ``"mofa"``, ``"snf"``, ``"wnn"``,
        ``"totalvi"``, ``"multivi"``, which take ``n_latent``. Under a name of your own, the option ``"method"`` names the
        method: ``{"sparse": {"method": "ae", "regularizer": "sparse"}, "pca": {}}``.
    label_key
        Column of ``obs`` with known types: the scores of labels are computed. Those unknown (NaN, ``"NA"``,
        ``"unknown"``, …) are not judged.
    batch_key
        Column of ``obs`` with batches: given to the methods that can take it, and the mixing of batches is scored.
    time_key, event_key
        Columns of ``obs`` with survival: the concordance of a Cox model on the embedding is computed (see
        `aeverse.tl.survival`).
    n_splits
        Folds.
    n_latent
        Dimensions of every method; None: the default of each. An ensemble of autoencoders has as many for each member.
    drop_modalities
        For MuData: also embed the test samples without each modality, and from each modality alone; the column
        ``modalities`` distinguishes the rows.
    layer
        Layer to read; for MuData modality -> layer.
    random_state
        Seed of the folds and, with the number of the fold added, of the methods.
    progress
        Show a progress bar; None: on a terminal or in a notebook.

    Returns
    -------
    DataFrame, a row for each method and fold: ``table.groupby("method").mean(numeric_only=True)`` gives the means,
    `aeverse.pl.benchmark` a picture. Columns, those without labels, batches or survival where there are none:

    ``method``, ``split``, ``modalities``
        What the row is about; ``modalities`` only with `drop_modalities`.
    ``variance_explained``
        Share of the variance of the held-out samples' features (for counts, of 2,000 highly variable ones, log-normalized)
        that a linear map from the embedding explains (`aeverse.metrics.variance_explained`); for
        several modalities, the mean.
    ``deviance_explained``
        ``"ae"`` on one matrix: of a tenth of the molecules (or entries) of the held-out samples, hidden from the encoder,
        the share of the deviance that the model explains beyond the feature means; NaN for methods that do not decode.
    ``trustworthiness``
        Of neighbors among the held-out embeddings (`aeverse.metrics.trustworthiness`).
    ``cluster_deviance``, ``n_clusters``
        Of counts in an AnnData, NaN otherwise; one value for each method. The molecules of all cells are split in two
        halves. Fitted to the first half, once more and without folds, the method gives an embedding, and scanpy's default
        call finds clusters in it (`aeverse.metrics.default_clusters`). The scores are the share of the deviance of the second
        half that these clusters explain (`aeverse.metrics.cluster_deviance`), and their number. No labels are needed.
    ``knn``, ``probe``
        Balanced accuracy of labels from the nearest training embeddings and of a linear model
        (`aeverse.metrics.knn_accuracy`, `aeverse.metrics.linear_probe`).
    ``ari``, ``nmi``, ``silhouette``
        Clusters of the held-out embeddings (`aeverse.metrics.cluster_agreement`), and the mean silhouette of the labels among
        them, rescaled to 0 to 1.
    ``batch``
        Mixing of the batches among the held-out embeddings (`aeverse.metrics.batch_score`).
    ``c_index``
        Concordance on the held-out samples.
    ``n_dims``, ``fit_seconds``, ``encode_seconds``, ``memory_mb``, ``saw_test``
        Dimensions of the embedding; wall times; memory that fitting took at its peak beyond what was in use before; whether the
        method saw the test samples.

    Raises
    ------
    KeyError, TypeError, ValueError
        A column or method does not exist, an option is unknown, or there are too few samples for the folds.

    Notes
    -----
    Ctrl-C and worker processes: as in `aeverse.tl.denoise`.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(150, 60, n_types=3)
    >>> table = ae.tl.benchmark(adata, ["ae", "pca"], label_key="cell_type", n_splits=2, n_latent=4)
    >>> table["method"].tolist()
    ['ae', 'ae', 'pca', 'pca']
    """
    several = hasattr(data, "mod")
    data = _slots.writable_mudata(data, copy=False) if several else _slots.writable_adata(data, copy=False)
    plan = _plan(methods, several, n_latent)
    if drop_modalities and not several:
        raise ValueError("drop_modalities=True leaves out modalities of a MuData; an AnnData has none.")
    if (time_key is None) != (event_key is None):
        raise ValueError("time_key and event_key go together.")
    known_columns = read_known(data, label_key, batch_key, time_key, event_key)
    folds = draw_folds(data.n_obs, known_columns, n_splits, random_state)
    halves = split_in_halves(data, layer, random_state)
    bar = _runtime.progress_bar((len(folds) + (halves is not None)) * len(plan), "benchmark", progress)
    rows, of_clusters = [], {}
    with bar:
        for name, (method, options) in plan.items():
            with _named(f"in method {name!r}, on half of the molecules"):
                of_clusters[name] = cluster_scores(Run(method, options, layer, batch_key, random_state), halves)
            bar.update(halves is not None)
        for split, fold in enumerate(folds):
            train, test = (data[samples].copy() for samples in fold)
            judge = Judge(
                features_of(train, test, layer), known_columns.of(fold[0]), known_columns.of(fold[1]), random_state
            )
            for name, (method, options) in plan.items():
                run = Run(method, options, layer, batch_key, (random_state + split) % 2**32)
                with _named(f"in method {name!r}, split {split}"):
                    if several:
                        result = fit_modalities(run, train, test, data, fold, drop=drop_modalities)
                    else:
                        result = fit_matrix(run, train, test)
                    rows += [row | of_clusters[name] for row in _rows(name, split, result, judge, drop_modalities)]
                bar.update()
    table = pd.DataFrame(rows)
    order = {name: i for i, name in enumerate(plan)}
    table = table.sort_values("method", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return table[[c for c in COLUMNS if c in table]]


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Note on an error where it happened."""
    try:
        yield
    except Exception as error:
        error.add_note(place)
        raise


def _rows(name: str, split: int, result: Result, judge: Judge, drop_modalities: bool) -> list[dict[str, Any]]:
    """SparseRows of the table for one method in one fold, one for each set of modalities shown."""
    rows = []
    for modalities, code in result.codes.items():
        row = {"method": name, "split": split} | ({"modalities": modalities} if drop_modalities else {})
        row |= judge.scores(result.train, code) | result.costs
        rows.append(row if modalities == ALL else {**row, "deviance_explained": np.nan})
    return rows


def _plan(selection, several: bool, n_latent: int | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (method, options), after checking both."""
    names = ["ae", *(methods.MULTIMODAL if several else methods.MATRIX)]
    config: type[models.MultimodalConfig] | type[models.Config] = models.MultimodalConfig if several else models.Config
    named = dict(selection) if isinstance(selection, Mapping) else {name: {} for name in _slots.name_list(selection)}
    if not named:
        raise ValueError(f"methods is empty; choose among {names}.")
    plan: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, options in named.items():
        chosen: dict[str, Any] = ({} if n_latent is None else {"n_latent": n_latent}) | dict(options)
        method = chosen.pop("method", name)
        if method not in names:
            raise ValueError(f"methods: found {method!r}; for this kind of data there are {names}.")
        allowed = set(config.__dataclass_fields__) if method == "ae" else {"n_latent"}
        if unknown := set(chosen) - allowed:
            raise TypeError(f"method {name!r} does not know {sorted(unknown)}; it takes {sorted(allowed)}.")
        config(**chosen)  # which checks n_latent for the others, too
        plan[name] = method, chosen
    return plan


def read_known(data, label_key, batch_key, time_key, event_key) -> Known:
    columns = Known()
    if label_key is not None:
        labels = _slots.read_labels(data, label_key)
        columns.labels = np.asarray(labels, object)
        columns.labels[labels.isna()] = None
    if batch_key is not None:
        columns.batches = np.asarray(_slots.read_categories(data, batch_key)).astype(str)
    if time_key is not None:
        require_lifelines()
        times, events, _ = outcome(data.obs, time_key, event_key)
        columns.outcome = np.column_stack([times.to_numpy(float), events.to_numpy(float)])
    return columns


def draw_folds(n: int, known_columns: Known, n_splits: int, random_state: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds alike in labels and events; what is rarer than there are folds is dealt out as one stratum."""
    from sklearn.model_selection import KFold, StratifiedKFold

    if n_splits > n // 2:
        raise ValueError(f"n_splits={n_splits!r} must be at most {n // 2}, half the number of samples.")
    strata = np.full(n, "", object)
    events = None if known_columns.outcome is None else known_columns.outcome[:, 1]
    for values in (known_columns.labels, events):
        if values is not None:
            strata = np.array([f"{a}|{b}" for a, b in zip(strata, values, strict=True)], object)
    names, sizes = np.unique(strata.astype(str), return_counts=True)
    strata = np.where(np.isin(strata.astype(str), names[sizes < n_splits]), "rare", strata.astype(str))
    if len(set(strata)) == 1 or pd.Series(strata).value_counts().min() < n_splits:
        return list(KFold(n_splits, shuffle=True, random_state=random_state).split(strata))
    return list(StratifiedKFold(n_splits, shuffle=True, random_state=random_state).split(strata, strata))
