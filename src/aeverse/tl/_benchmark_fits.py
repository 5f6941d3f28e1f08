"""The runs of `tl.benchmark`: one method fitted to the training samples, the codes of the others, and what it cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from aeverse import _slots, methods, metrics, models

ALL = "all"
SHARE_HIDDEN = 0.1  # of the molecules or entries of a test sample, which a decoder has to tell
MEMORY_EVERY = 0.01  # seconds


@dataclass
class Result:
    """Codes of the training samples, of the test samples (by what was shown of them), and what the run cost."""

    train: np.ndarray
    codes: dict[str, np.ndarray]
    told: dict[str, Any]


def fit_matrix(pair, data, rows, method, options, batch_key, layer, seed, missing) -> Result:
    """One method on one matrix."""
    train, test = pair
    if method == "ae":
        model = models.Autoencoder(**{"regularizer": "auto", **options}, random_state=seed)
        _, cost = _measured(lambda: model.fit(train, layer=layer, batch_key=batch_key, progress=False))
        encode: Callable[[Any], np.ndarray] = lambda adata: model.encode(adata, layer=layer)  # noqa: E731
        own = encode(train)
        cost["deviance_explained"] = _deviance_explained(model, test, layer, seed)
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


def fit_modalities(pair, data, rows, method, options, batch_key, layer, seed, missing) -> Result:
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
        return Result(
            code[rows[0]],
            {ALL: code[rows[1]]},
            cost | {"n_dims": code.shape[1], "encode_seconds": np.nan, "saw_test": True},
        )
    found, cost = _measured(lambda: fit(train))
    if found.encode is None:
        raise ValueError(f"{method!r} has no code for new samples.")
    return _encoded(found.code, shown, lambda mdata: found.encode(read(mdata), mdata.n_obs), cost)


TRANSDUCTIVE = ("snf", "wnn", "totalvi", "multivi")  # of methods.MULTIMODAL; a test holds this to be true


def _encoded(own: np.ndarray, shown: Mapping[str, Any], encode, cost: dict[str, Any]) -> Result:
    start, codes = time.perf_counter(), {}
    for name, part in shown.items():
        codes[name] = encode(part)
        if name == ALL:
            cost["encode_seconds"] = time.perf_counter() - start
    return Result(own, codes, cost | {"n_dims": own.shape[1], "saw_test": False})


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


def _deviance_explained(model: models.Autoencoder, test, layer: str | None, seed: int) -> float:
    """Of a part of the test data that the encoder is not shown, what the model explains beyond the training means."""
    from aeverse.models._autoencoder import COUNTS

    rng, test = np.random.default_rng(seed), test.copy()
    if model.settings.likelihood in COUNTS:
        from aeverse.train import split_molecules

        shown, hidden = split_molecules(_slots.read_counts(test, layer), 1 - SHARE_HIDDEN, rng)
        test.X = shown
        return float(metrics.deviance_explained(model.denoise(test), shown, hidden))
    x = _slots.read_matrix(test, layer)
    x = np.array(x.toarray() if sp.issparse(x) else x, np.float32)
    hidden = np.isfinite(x) & (rng.random(x.shape) < SHARE_HIDDEN)
    test.X = np.where(hidden, np.nan, x)
    mean = model.decode(model.encode(test))
    return _explained(x, mean, model, hidden)


def _explained(x: np.ndarray, mean: np.ndarray, model: models.Autoencoder, hidden: np.ndarray) -> float:
    """Deviance (of the model's likelihood) of hidden entries explained beyond the means that the decoder started from."""
    import torch

    from aeverse.models._values import _null_mean

    likelihood = model.net.members[0].likelihood
    with torch.no_grad():
        observed = torch.as_tensor(np.where(hidden, x, np.nan))
        lost = likelihood.deviance(observed, torch.as_tensor(mean)).sum()
        null = likelihood.deviance(observed, _null_mean(model).cpu().expand_as(observed)).sum()
    return float(1 - lost / null) if null > 0 else 0.0
