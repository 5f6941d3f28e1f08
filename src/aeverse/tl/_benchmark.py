"""`tl.benchmark`: methods side by side, judged on samples that they never saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _settings, _slots, methods, metrics, models
from aeverse.methods._features import Features
from aeverse.tl._survival import _choose_penalty, _comparable, _outcome, _penalties, _predict, _require_lifelines

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

SHARE_HIDDEN = 0.1  # of the molecules or entries of a test sample, which a decoder has to tell
FEWEST_JUDGED = 10  # samples for a score of neighbourhoods
MEMORY_EVERY = 0.01  # seconds


def benchmark(
    data: AnnData | MuData,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("ae", "pca"),
    *,
    label_key: str | None = None,
    batch_key: str | None = None,
    time_key: str | None = None,
    event_key: str | None = None,
    n_splits: int = 5,
    n_latent: int | None = None,
    missing: bool = False,
    layer: str | Mapping[str, str | None] | None = None,
    random_state: int = 0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Compare methods on samples that none of them saw: which one serves these data?

    The data are cut into folds (alike in labels and events, where these are given). Each method is fitted to all folds but
    one and encodes the samples of that one; everything that is learnt (scaling, choice of features, stopping, penalties) is
    learnt within the other folds. A method that has no code for new samples (``"snf"``, ``"wnn"``, ``"totalvi"``,
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
        ``"totalvi"``, ``"multivi"``, which take ``n_latent``. Under a name of your own, the option ``"method"`` tells which
        one is meant: ``{"sparse": {"method": "ae", "regularizer": "sparse"}, "pca": {}}``.
    label_key
        Column of ``obs`` with known types: the scores of labels are computed. Those unknown (NaN, ``"NA"``,
        ``"unknown"``, …) are not judged.
    batch_key
        Column of ``obs`` with batches: told to the methods that can take it, and the mixing of batches is scored.
    time_key, event_key
        Columns of ``obs`` with survival: the concordance of a Cox model on the code is computed (see
        `aeverse.tl.survival`).
    n_splits
        Folds.
    n_latent
        Dimensions of every method; None: the default of each. An ensemble of autoencoders has as many for each member.
    missing
        For MuData: also code the test samples without each modality, and from each modality alone; the column
        ``modalities`` tells the rows apart.
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
        What the row is about; ``modalities`` only with `missing`.
    ``variance_explained``
        Share of the variance of the held-out samples' features (of counts 2,000 highly variable ones, log-normalised)
        that a linear map from the code explains (`aeverse.metrics.variance_explained`); of several modalities the mean.
    ``deviance_explained``
        ``"ae"`` on one matrix: of a tenth of the molecules (or entries) of the held-out samples, hidden from the encoder,
        the share of the deviance that the model explains beyond the feature means; NaN for methods that do not decode.
    ``trustworthiness``
        Of neighbours among the held-out codes (`aeverse.metrics.trustworthiness`).
    ``knn``, ``probe``
        Balanced accuracy of labels from the nearest training codes and of a linear model
        (`aeverse.metrics.knn_accuracy`, `aeverse.metrics.linear_probe`).
    ``ari``, ``nmi``, ``silhouette``
        Clusters of the held-out codes (`aeverse.metrics.cluster_agreement`), and the mean silhouette of the labels among
        them, rescaled to 0 to 1.
    ``batch``
        Mixing of the batches among the held-out codes (`aeverse.metrics.batch_score`).
    ``c_index``
        Concordance on the held-out samples.
    ``n_dims``, ``fit_seconds``, ``encode_seconds``, ``memory_mb``, ``saw_test``
        Dimensions of the code; wall times; memory that fitting took at its peak beyond what was in use before; whether the
        method saw the test samples.

    Raises
    ------
    KeyError, TypeError, ValueError
        A column or method does not exist, an option is unknown, or there are too few samples for the folds.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.simulate_counts(150, 60, n_types=3)
    >>> table = ae.tl.benchmark(adata, ["ae", "pca"], label_key="cell_type", n_splits=2, n_latent=4)
    >>> table["method"].tolist()
    ['ae', 'ae', 'pca', 'pca']
    """
    several = hasattr(data, "mod")
    data = _slots.target_mudata(data, copy=False) if several else _slots.target(data, copy=False)
    plan = _plan(methods, several, n_latent)
    if missing and not several:
        raise ValueError("missing=True leaves out modalities of a MuData; an AnnData has none.")
    if (time_key is None) != (event_key is None):
        raise ValueError("time_key and event_key go together.")
    truth = _truth(data, label_key, batch_key, time_key, event_key)
    folds = _folds(data.n_obs, truth, n_splits, random_state)
    parts = _multimodal_parts if several else _matrix_parts
    bar = _settings.progress_bar(len(folds) * len(plan), "benchmark", progress)
    rows = []
    with bar:
        for split, (train, test) in enumerate(folds):
            pair = data[train].copy(), data[test].copy()
            features = _features(*pair, layer)
            for name, (method, options) in plan.items():
                try:
                    coded = parts(
                        pair, data, (train, test), method, options, batch_key, layer, random_state + split, missing
                    )
                    for kind, code in coded.codes.items():
                        row = {"method": name, "split": split} | ({"modalities": kind} if missing else {})
                        row |= _scores(coded.train, code, features, truth.of(train), truth.of(test), random_state)
                        rows.append(row | (coded.told if kind == ALL else {**coded.told, "deviance_explained": np.nan}))
                except Exception as error:
                    error.add_note(f"in method {name!r}, split {split}")
                    raise
                bar.update()
    table = pd.DataFrame(rows)
    order = {name: i for i, name in enumerate(plan)}
    table = table.sort_values("method", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return table[[c for c in COLUMNS if c in table]]


ALL = "all"
COLUMNS = (
    "method", "split", "modalities", "variance_explained", "deviance_explained", "trustworthiness", "knn", "probe", "ari",
    "nmi", "silhouette", "batch", "c_index", "n_dims", "fit_seconds", "encode_seconds", "memory_mb", "saw_test",
)  # fmt: skip


# ---- what to run -------------------------------------------------------------------------------------------------
def _plan(wanted, several: bool, n_latent: int | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (method, options), after checking both."""
    known = ["ae", *(methods.MULTIMODAL if several else methods.MATRIX)]
    config = models.MultimodalConfig if several else models.Config
    named = dict(wanted) if isinstance(wanted, Mapping) else {name: {} for name in _slots.name_list(wanted)}
    if not named:
        raise ValueError(f"methods is empty; choose among {known}.")
    plan = {}
    for name, options in named.items():
        options = ({} if n_latent is None else {"n_latent": n_latent}) | dict(options)
        method = options.pop("method", name)
        if method not in known:
            raise ValueError(f"method {method!r} is not known; for this kind of data there are {known}.")
        allowed = set(config.__dataclass_fields__) if method == "ae" else {"n_latent"}
        if unknown := set(options) - allowed:
            raise TypeError(f"method {name!r} does not know {sorted(unknown)}; it takes {sorted(allowed)}.")
        if method == "ae":
            config(**options)
        plan[name] = method, options
    return plan


@dataclass
class _Truth:
    """What is known of the samples; None for what was not asked for."""

    labels: np.ndarray | None = None
    batches: np.ndarray | None = None
    time: np.ndarray | None = None
    event: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> _Truth:
        return _Truth(*(None if v is None else v[rows] for v in (self.labels, self.batches, self.time, self.event)))


def _truth(data, label_key, batch_key, time_key, event_key) -> _Truth:
    truth = _Truth()
    if label_key is not None:
        if label_key not in data.obs:
            raise KeyError(f"label_key={label_key!r} is not a column of obs; columns are: {list(data.obs.columns)}.")
        known = _slots.known(data.obs[label_key])
        labels = [str(v) if there else None for v, there in zip(known, known.notna(), strict=True)]
        truth.labels = np.array(labels, object)
        if len({*labels} - {None}) < 2:
            raise ValueError(f"obs[{label_key!r}] holds fewer than two known labels.")
    if batch_key is not None:
        truth.batches = np.asarray(_slots.read_categories(data, batch_key)).astype(str)
    if time_key is not None:
        _require_lifelines()
        times, events, _ = _outcome(data.obs, time_key, event_key)
        truth.time, truth.event = times.to_numpy(float), events.to_numpy(float)
    return truth


def _folds(n: int, truth: _Truth, n_splits: int, random_state: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds alike in labels and events; what is rarer than there are folds is dealt out as one stratum."""
    from sklearn.model_selection import KFold, StratifiedKFold

    if not isinstance(n_splits, (int, np.integer)) or not 2 <= n_splits <= n // 2:
        raise ValueError(
            f"n_splits={n_splits!r} must be an integer between 2 and {n // 2}, half the number of samples."
        )
    strata = np.full(n, "", object)
    for values in (truth.labels, truth.event):
        if values is not None:
            strata = np.array([f"{a}|{b}" for a, b in zip(strata, values, strict=True)], object)
    names, sizes = np.unique(strata.astype(str), return_counts=True)
    strata = np.where(np.isin(strata.astype(str), names[sizes < n_splits]), "rare", strata.astype(str))
    if len(set(strata)) == 1 or pd.Series(strata).value_counts().min() < n_splits:
        return list(KFold(n_splits, shuffle=True, random_state=random_state).split(strata))
    return list(StratifiedKFold(n_splits, shuffle=True, random_state=random_state).split(strata, strata))


# ---- running -----------------------------------------------------------------------------------------------------
@dataclass
class _Coded:
    """Codes of the training samples, of the test samples (by what was shown of them), and what the run cost."""

    train: np.ndarray
    codes: dict[str, np.ndarray]
    told: dict[str, Any]


def _matrix_parts(pair, data, rows, method, options, batch_key, layer, seed, missing) -> _Coded:
    """One method on one matrix."""
    train, test = pair
    if method == "ae":
        model = models.Autoencoder(**{"regularizer": "auto", **options}, random_state=seed)
        _, cost = _measured(lambda: model.fit(train, layer=layer, batch_key=batch_key, progress=False))
        encode: Callable[[Any], np.ndarray] = lambda adata: model.encode(adata, layer=layer)  # noqa: E731
        own = encode(train)
        cost["deviance_explained"] = model.score(test, layer=layer, share_heldout=SHARE_HIDDEN, random_state=seed)
    else:
        x, names = _slots.read_matrix(train, layer), train.var_names.astype(str)
        found, cost = _measured(
            lambda: methods.MATRIX[method](
                x,
                kind=models.kind_of(x, names),
                names=names,
                mask=_slots.read_mask(train, "auto"),
                batches=_slots.read_categories(train, batch_key),
                n_latent=options.get("n_latent"),
                random_state=seed,
                progress=False,
            )
        )
        own, encode = found.code, lambda adata: found.encode(_slots.read_matrix(adata, layer))
    return _encoded(own, {ALL: test}, encode, cost)


def _multimodal_parts(pair, data, rows, method, options, batch_key, layer, seed, missing) -> _Coded:
    """One method on several modalities."""
    train, test = pair
    shown = {ALL: test} | (_subsets(test) if missing else {})
    if method == "ae":
        model = models.MultimodalAutoencoder(random_state=seed, **options)
        _, cost = _measured(lambda: model.fit(train, layer=layer, batch_key=batch_key, progress=False))
        return _encoded(model.encode(train), shown, model.encode, cost)

    def read(mdata):
        wanted = {m: name for m, name in (layer or {}).items() if m in mdata.mod}
        return _slots.read_modalities(mdata, layer=wanted)

    def fit(mdata):
        given = read(mdata)
        _slots.require_linked(given)
        return methods.MULTIMODAL[method](
            given,
            models.kinds_of(given, "auto"),
            n_obs=mdata.n_obs,
            batches=_slots.read_categories(mdata, batch_key),
            n_latent=options.get("n_latent"),
            random_state=seed,
            progress=False,
        )

    if method in TRANSDUCTIVE:
        found, cost = _measured(lambda: fit(data))
        code = found.code
        return _Coded(
            code[rows[0]],
            {ALL: code[rows[1]]},
            cost | {"n_dims": code.shape[1], "encode_seconds": np.nan, "saw_test": True},
        )
    found, cost = _measured(lambda: fit(train))
    if found.encode is None:
        raise ValueError(f"{method!r} has no code for new samples.")
    return _encoded(found.code, shown, lambda mdata: found.encode(read(mdata), mdata.n_obs), cost)


TRANSDUCTIVE = ("snf", "wnn", "totalvi", "multivi")  # of methods.MULTIMODAL; a test holds this to be true


def _encoded(own: np.ndarray, shown: Mapping[str, Any], encode, cost: dict[str, Any]) -> _Coded:
    start, codes = time.perf_counter(), {}
    for name, part in shown.items():
        codes[name] = encode(part)
        if name == ALL:
            cost["encode_seconds"] = time.perf_counter() - start
    return _Coded(own, codes, cost | {"n_dims": own.shape[1], "saw_test": False})


def _subsets(mdata) -> dict[str, Any]:
    """The samples without each modality, and from each modality alone; those that have nothing left keep an empty row."""
    found = {}
    names = list(mdata.mod)
    for m in names if len(names) > 1 else []:
        found[f"without {m}"] = _only(mdata, [other for other in names if other != m])
    for m in names if len(names) > 2 else []:
        found[f"only {m}"] = _only(mdata, [m])
    return found


def _only(mdata, kept: Sequence[str]):
    """All samples, with the entries of all other modalities blanked."""
    from anndata import AnnData
    from mudata import MuData

    mods = {m: mdata.mod[m] for m in kept}
    there = set().union(*(a.obs_names for a in mods.values()))
    lost = [name for name in mdata.obs_names if name not in there]
    if lost:  # samples that have nothing left: a row of missing entries keeps their place
        first = mods[kept[0]]
        empty = AnnData(
            np.full((len(lost), first.n_vars), np.nan, np.float32), obs=pd.DataFrame(index=lost), var=first.var[[]]
        )
        x = np.vstack([first.X.toarray() if sp.issparse(first.X) else first.X, empty.X])
        mods[kept[0]] = AnnData(x, obs=pd.DataFrame(index=[*first.obs_names, *lost]), var=first.var[[]])
    joint = MuData(mods)
    return joint[mdata.obs_names].copy()


def _measured(run: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What a function returns, its wall time, and by how many megabytes the process grew at most."""
    stop, peak, before = threading.Event(), [0.0], _resident()

    def watch() -> None:
        while not stop.wait(MEMORY_EVERY):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        found = run()
    finally:
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
    return found, {"fit_seconds": seconds, "memory_mb": max(max(peak[0], _resident()) - before, 0.0)}


def _resident() -> float:
    """Megabytes of memory in use by this process; where the system does not tell, its maximum so far."""
    import os
    import resource

    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


# ---- judging -----------------------------------------------------------------------------------------------------
def _features(train, test, layer) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """By modality the features of training and test samples as PCA reads them, and the rows that they belong to."""
    if not hasattr(train, "mod"):
        x, new, names = _slots.read_matrix(train, layer), _slots.read_matrix(test, layer), train.var_names.astype(str)
        prepare = Features(x, models.kind_of(x, names), names, _slots.read_mask(train, "auto"))
        return {"": (prepare(x), prepare(new), np.arange(len(train)), np.arange(len(test)))}
    given, new = (_slots.read_modalities(d, layer=layer) for d in (train, test))
    kinds, found = models.kinds_of(given, "auto"), {}
    for m, d in given.items():
        if len(d.rows) and len(new[m].rows):
            prepare = Features(d.x, kinds[m], d.names, d.mask)
            found[m] = prepare(d.x), prepare(new[m].x), d.rows, new[m].rows
    return found


def _scores(own, code, features, train: _Truth, test: _Truth, random_state: int) -> dict[str, float]:
    """All scores of the codes of one fold."""
    broken = ~np.isfinite(code).all(1)
    if broken.any():  # samples of which nothing is shown have no code: the mean one
        code = np.where(broken[:, None], own.mean(0), code)
    row: dict[str, Any] = {
        "variance_explained": float(
            np.mean(
                [metrics.variance_explained(own[a], x, test_code=code[b], test_x=y) for x, y, a, b in features.values()]
            )
        ),
        "trustworthiness": _trustworthiness(code, features, random_state),
    }
    if train.labels is not None:
        row |= _label_scores(own, code, train.labels, test.labels, random_state)
    if test.batches is not None and len(set(test.batches)) > 1:
        row["batch"] = metrics.batch_score(code, test.batches)
    if train.time is not None:
        row["c_index"] = _concordance(own, code, train, test, random_state)
    return row


def _trustworthiness(code, features, random_state: int) -> float:
    """Of the samples that have all modalities, each modality weighing the same."""
    rows = np.arange(len(code))
    for *_, there in features.values():
        rows = np.intersect1d(rows, there)
    if len(rows) < FEWEST_JUDGED:
        return np.nan
    blocks = [y[np.isin(there, rows)] for _, y, _, there in features.values()]
    lengths = [max(float(np.sqrt((b**2).sum(1).mean())), 1e-12) for b in blocks]
    x = np.hstack([b / length for b, length in zip(blocks, lengths, strict=True)])
    return metrics.trustworthiness(code[rows], x, random_state=random_state)


def _label_scores(own, code, labels, test_labels, random_state: int) -> dict[str, float]:
    from sklearn.metrics import silhouette_score

    held_out = {"test_code": code, "test_labels": test_labels}
    row = {
        "knn": metrics.knn_accuracy(own, labels, **held_out),
        "probe": metrics.linear_probe(own, labels, **held_out),
        **metrics.cluster_agreement(code, test_labels, random_state=random_state),
    }
    there = np.array([label is not None for label in test_labels])
    if 1 < len(set(test_labels[there])) < there.sum():
        row["silhouette"] = float(silhouette_score(code[there], test_labels[there].astype(str)) + 1) / 2
    return row


def _concordance(own, code, train: _Truth, test: _Truth, random_state: int) -> float:
    """C-index of a Cox model on the code, its penalty chosen within the training samples."""
    from lifelines.utils import concordance_index

    use, new = (np.isfinite(t.time) & np.isfinite(t.event) for t in (train, test))
    x, t, e = own[use].astype(float), train.time[use], train.event[use]
    if not _comparable(test.time[new], test.event[new]):
        return np.nan
    is_code = np.ones(x.shape[1], bool)
    penalty = _choose_penalty(x, t, e, is_code, random_state)
    risk = _predict(x, t, e, code[new].astype(float), _penalties(is_code, penalty))
    return float(concordance_index(test.time[new], -risk, test.event[new]))
