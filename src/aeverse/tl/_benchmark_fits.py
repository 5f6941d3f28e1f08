"""The runs of `tl.benchmark`: one method fitted to the training samples, the embeddings of the others, and what it cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots, methods, models

ALL = "all"
SHARE_HIDDEN = 0.1  # of the molecules or entries of a test sample, which a decoder has to tell
MEMORY_EVERY = 0.01  # seconds


@dataclass
class Result:
    """Embeddings of the training samples, of the test samples (by what was shown of them), and what the run cost."""

    train: np.ndarray
    codes: dict[str, np.ndarray]
    costs: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One method in one fold: what it is called with."""

    method: str
    options: Mapping[str, Any]
    layer: Any
    batch_key: str | None
    seed: int

    def fit(self, method: methods.Method, data: Mapping[str, _slots.Modality], kinds, adata) -> methods.Fitted:
        """One of `aeverse.methods` on the modalities of `adata`, with the batches if it can take them."""
        return method(
            data,
            kinds,
            n_obs=adata.n_obs,
            batches=_slots.read_categories(adata, self.batch_key),
            n_latent=self.options.get("n_latent"),
            random_state=self.seed,
            progress=False,
        )


def fit_matrix(run: Run, train, test) -> Result:
    """One method on one matrix."""
    if run.method == "ae":
        model, costs = _measured(lambda: _autoencoder(run, train))
        costs["deviance_explained"] = model.score(
            test, layer=run.layer, share_heldout=SHARE_HIDDEN, random_state=run.seed
        )
        return _encoded(
            model.encode(train, layer=run.layer), {ALL: test}, lambda adata: model.encode(adata, layer=run.layer), costs
        )
    fitted, costs = _measured(lambda: _other(run, train))
    return _encoded(fitted.code, {ALL: test}, lambda adata: fitted.encode(_matrix(run, adata), adata.n_obs), costs)


def embed_matrix(run: Run, adata) -> np.ndarray:
    """The embedding of the samples that one method is fitted to."""
    if run.method == "ae":
        return _autoencoder(run, adata).encode(adata, layer=run.layer)
    return _other(run, adata).code


def _autoencoder(run: Run, adata) -> models.Autoencoder:
    model = models.Autoencoder(**{"regularizer": "auto", **run.options}, random_state=run.seed)
    return model.fit(adata, layer=run.layer, batch_key=run.batch_key, progress=False)


def _other(run: Run, adata) -> methods.Fitted:
    """One of `aeverse.methods` fitted to one matrix."""
    data = _matrix(run, adata)
    return run.fit(methods.MATRIX[run.method], data, {"X": models.kind_of(data["X"].x, data["X"].names)}, adata)


def _matrix(run: Run, adata) -> dict[str, _slots.Modality]:
    return {"X": _slots.as_modality(adata, run.layer, "auto")}


def fit_modalities(run: Run, train, test, whole, rows: tuple[np.ndarray, np.ndarray], *, drop: bool) -> Result:
    """One method on several modalities; one without an embedding for new samples is fitted to the whole."""
    subsets = {ALL: test} | (_subsets(test) if drop else {})
    if run.method == "ae":
        model = models.MultimodalAutoencoder(random_state=run.seed, **run.options)
        _, costs = _measured(lambda: model.fit(train, layer=run.layer, batch_key=run.batch_key, progress=False))
        return _encoded(model.encode(train), subsets, model.encode, costs)

    def read(mdata) -> dict[str, _slots.Modality]:
        return _slots.read_modalities(mdata, layer={m: n for m, n in (run.layer or {}).items() if m in mdata.mod})

    def fit(mdata) -> methods.Fitted:
        data = read(mdata)
        _slots.require_linked(data)
        return run.fit(method, data, models.kinds_of(data, "auto"), mdata)

    method = methods.MULTIMODAL[run.method]
    if method.embeds_new:
        fitted, costs = _measured(lambda: fit(train))
        return _encoded(fitted.code, subsets, lambda mdata: fitted.encode(read(mdata), mdata.n_obs), costs)
    fitted, costs = _measured(lambda: fit(whole))
    costs |= {"n_dims": fitted.code.shape[1], "encode_seconds": np.nan, "saw_test": True}
    return Result(fitted.code[rows[0]], {ALL: fitted.code[rows[1]]}, costs)


def _encoded(code: np.ndarray, subsets: Mapping[str, Any], encode, costs: dict[str, Any]) -> Result:
    start, codes = time.perf_counter(), {}
    for name, part in subsets.items():
        codes[name] = encode(part)
        if name == ALL:
            costs["encode_seconds"] = time.perf_counter() - start
    return Result(code, codes, costs | {"n_dims": code.shape[1], "saw_test": False})


def _subsets(mdata) -> dict[str, Any]:
    """The samples without each modality, and from each modality alone; those that have nothing left keep an empty row."""
    subsets = {}
    names = list(mdata.mod)
    for m in names if len(names) > 1 else []:
        subsets[f"without {m}"] = _only(mdata, [other for other in names if other != m])
    for m in names if len(names) > 2 else []:
        subsets[f"only {m}"] = _only(mdata, [m])
    return subsets


def _only(mdata, modalities: Sequence[str]):
    """All samples, with the entries of all other modalities blanked."""
    from anndata import AnnData
    from mudata import MuData

    mods = {m: mdata.mod[m] for m in modalities}
    covered = set().union(*(a.obs_names for a in mods.values()))
    uncovered = [name for name in mdata.obs_names if name not in covered]
    if uncovered:  # samples that have nothing left: a row of missing entries keeps their place
        first = mods[modalities[0]]
        empty = AnnData(
            np.full((len(uncovered), first.n_vars), np.nan, np.float32),
            obs=pd.DataFrame(index=uncovered),
            var=first.var[[]],
        )
        x = np.vstack([first.X.toarray() if sp.issparse(first.X) else first.X, empty.X])
        mods[modalities[0]] = AnnData(x, obs=pd.DataFrame(index=[*first.obs_names, *uncovered]), var=first.var[[]])
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
        result = run()
    finally:
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
    return result, {"fit_seconds": seconds, "memory_mb": max(max(peak[0], _resident()) - before, 0.0)}


def _resident() -> float:
    """Megabytes of memory in use by this process; where the system does not tell, its maximum so far."""
    import os
    import resource

    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
