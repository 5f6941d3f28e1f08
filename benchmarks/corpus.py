"""What every public function answers to odd input: a result or a clear refusal, and nothing else is touched.

    python benchmarks/corpus.py [FUNCTION ...]

Without FUNCTION the table is also kept in benchmarks/results/corpus.md.

The cases are generated from the signatures (each parameter x values of its own and of other types) and picked by hand. An
answer is *clear* where our code raises an error that names the argument or the key, *obscure* where it comes out of a
library or names nothing. Printed: a table of the answers of each function, and every answer that falls short.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import os
import random
import re
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import mudata as md
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

import aeverse as ae

MODULES = ("tl", "pl", "pp", "get", "metrics", "models", "io", "datasets")
SECONDS = 10  # of the processor, most that one answer may take
N_CELLS, N_GENES = 30, 20
ERRORS = (ValueError, TypeError, KeyError, OSError, ImportError)  # what a clear refusal may be
RESULTS = Path(__file__).parent / "results" / "corpus.md"
PACKAGE = str(Path(ae.__file__).parent)
NAN, INF, HUGE = float("nan"), float("inf"), 10**30


# ---- cases -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """One call: `arguments` builds its input anew; `words` are what a message may name."""

    function: str
    name: str
    arguments: Callable[[], dict[str, Any]]
    expected: str  # "result", "clear", or "any": one of the two
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.function}({self.name})"


@dataclass(frozen=True)
class Answer:
    """What came of a case: "result", "clear" or "obscure", and what fell short, if anything."""

    kind: str
    message: str = ""
    fault: str = ""


def public() -> dict[str, Callable]:
    """Every public function and method of a model, by name."""
    found = {}
    for module in MODULES:
        for name in importlib.import_module(f"aeverse.{module}").__all__:
            value = getattr(getattr(ae, module), name)
            if inspect.isfunction(value):
                found[f"{module}.{name}"] = value
            elif inspect.isclass(value) and not name.endswith("Config") and name not in EXTENDED:
                found[f"{module}.{name}"] = value
                for method in METHODS[name]:
                    found[f"{module}.{name}.{method}"] = getattr(value, method)
    return found


EXTENDED = ("Kind", "MatrixSummary")  # what developers build on; their arguments are checked where a matrix is read
METHODS = {
    "Autoencoder": [
        "fit",
        "encode",
        "decode",
        "denoise",
        "dropouts",
        "sample",
        "score",
        "loadings",
        "save",
        "active_share",
        "to",
    ],
    "MultimodalAutoencoder": ["fit", "encode", "predict", "weights", "save", "to"],
}
# Of no use to users, as they take what other functions made; and what needs a network.
INTERNAL = {"models.kind_of", "models.kinds_of", "models.push_to_hub"}

# ---- values for a parameter, by its annotation -------------------------------------------------------------------
VALUES: dict[str, Any] = {
    "None": None,
    "5": 5,
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "nan": NAN,
    "inf": INF,
    "10**30": HUGE,
    "'nope'": "nope",
    "''": "",
    "b'x'": b"x",
    "['nope']": ["nope"],
    "[None]": [None],
    "[]": [],
    "{}": {},
    "{'nope': 1}": {"nope": 1},
    "{5: 5}": {5: 5},
    "array of NaN": np.full((2, 2), NAN),
    "empty array": np.zeros((0, 0)),
    "object()": object(),
}
OTHERS = ("None", "5", "nan", "'nope'", "['nope']", "{}", "object()")  # tried for every type
# A type in an annotation -> what is of this type, and the values to try for it.
NUMBERS = ("-1", "0", "inf", "10**30", "1.5")
TYPES: dict[str, tuple[tuple[type, ...], tuple[str, ...]]] = {
    "None": ((type(None),), ()),
    "bool": ((bool,), ()),
    "int": ((int,), NUMBERS),
    "float": ((int, float), NUMBERS),
    "str": ((str,), ("''", "b'x'")),
    "Literal": ((str,), ("''",)),
    "Path": ((str,), ("b'x'",)),
    "Table": ((str,), ("array of NaN",)),
    "Sequence": ((list,), ("[]", "[None]")),
    "Mapping": ((dict,), ("{'nope': 1}", "{5: 5}", "[]")),
    "Colormap": ((), ("''",)),
    "tuple": ((tuple,), ()),
    "np.ndarray": ((np.ndarray, list), ("[]", "array of NaN", "empty array")),
    "sp.spmatrix": ((np.ndarray, list), ()),
}
ENDLESS = {("n_models", "10**30")}  # a call that asks for so much gets it
OPEN = {
    "key_added",
    "save_model",
    "checkpoint",
    "save",
    "kind",
    "path",
    "title",
}  # parameters for which any name will do


def types_in(annotation: str) -> list[str]:
    """Names of the types in an annotation, without their brackets."""
    flat, depth = "", 0
    for letter in annotation:
        depth += (letter == "[") - (letter == "]")
        flat += letter if depth == 0 and letter != "]" else ""
    names = [part.strip() for part in flat.split("|")]
    return ["Literal" if name.startswith("choices.") else name for name in names]


def expected_of(parameter: inspect.Parameter, value: Any) -> str:
    """ "clear" for what is of another type, no number, below zero, infinite, or no name of anything; else "any"."""
    names = types_in(str(parameter.annotation))
    if {"Any", "Palette"} & set(names):
        return "any"
    allowed = tuple(kind for name in names for kind in TYPES.get(name, ((), ()))[0])
    if not isinstance(value, allowed):
        return "clear"
    if isinstance(value, (int, float)):
        return "any" if 0 <= value < INF else "clear"
    return "clear" if isinstance(value, str) and parameter.name not in OPEN else "any"


def generated(function: str, signature: inspect.Signature, valid: Mapping[str, Any]) -> Iterator[Case]:
    """Each parameter x values of its own types and of others, the other parameters as in a call that is right."""
    yield Case(function, "right", functools.partial(_with, valid, {}), "result")
    for name, parameter in signature.parameters.items():
        names = types_in(str(parameter.annotation))
        if name in ("self", "progress", "copy", "show", "return_fig"):
            continue
        own = [shown for kind in names for shown in TYPES.get(kind, ((), ()))[1]]
        own = [shown for shown in own if (name, shown) not in ENDLESS]
        for shown in dict.fromkeys((*OTHERS, *own)):
            value = VALUES[shown]
            expected = EXPECTED.get((function, name, shown)) or expected_of(parameter, value)
            given = (value or "''",) if isinstance(value, str) else ()
            odd = functools.partial(_with, valid, {name: value})
            yield Case(function, f"{name}={shown}", odd, expected, (name, *WORDS.get(name, ()), *given))


def _with(valid: Mapping[str, Any], odd: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value() if isinstance(value, Made) else value for name, value in {**valid, **odd}.items()}


# ---- data and models, made once ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Made:
    """An argument that is built anew for each call."""

    build: Callable[[], Any]

    def __call__(self) -> Any:
        return self.build()


@functools.cache
def world() -> dict[str, Any]:
    """Tiny data with every result in them, fitted models, and files; nothing in here is changed."""
    quick = {"n_latent": 4, "n_models": 1, "progress": False}
    plain = ae.datasets.simulate_counts(N_CELLS, N_GENES, n_types=3, share_absent=0.0)
    rng = np.random.default_rng(0)
    plain.layers["counts"] = plain.X.copy()
    plain.obs["batch"] = pd.Categorical(["a", "b"] * (N_CELLS // 2), categories=["a", "b", "unused"])
    plain.obs["group"] = pd.Categorical(["x", "y", "z"] * (N_CELLS // 3))
    plain.obs["age"] = rng.normal(60, 9, N_CELLS)
    plain.obs["time"] = rng.exponential(10, N_CELLS) + 0.1
    plain.obs["event"] = rng.integers(0, 2, N_CELLS)
    plain.var["highly_variable"] = True
    full = plain.copy()
    ae.tl.denoise(full, uncertainty=True, **quick)
    ae.tl.dropouts(full, progress=False, threshold=0)
    counts_model = ae.get.model(full, key="denoised")
    ae.tl.subtypes(full, n_subtypes=2, n_resamples=10, evidence_rep=None)
    ae.tl.survival(full, time_key="time", event_key="event", groupby="group", covariates=["age"], n_splits=2)
    ae.tl.associations(full, groupby="group", columns=["age"])
    ae.tl.attribute(full, counts_model, groupby="group", n_top=5)
    values = ad.AnnData(rng.normal(size=(N_CELLS, 8)).astype("float32"))
    values.obs_names = plain.obs_names
    values.var_names = [f"v{i}" for i in range(8)]
    cohort = md.MuData({"rna": plain.copy(), "prot": values})
    cohort.obs = plain.obs.copy()
    drawing = ae.models.Autoencoder(regularizer="variational", n_latent=4, n_models=1).fit(plain, progress=False)
    joint = ae.models.MultimodalAutoencoder(n_latent=4, n_models=1, n_steps=4).fit(cohort, progress=False)
    embedded = cohort.copy()
    ae.tl.multimodal_embed(embedded, model=joint, progress=False)
    ae.tl.predict_modality(embedded, "prot", model=joint, progress=False)
    mapped = plain.copy()
    ae.tl.map_query(mapped, counts_model, transfer=["group"])
    linear = plain.copy()
    ae.tl.embed(linear, **quick)
    table = pd.DataFrame({"method": ["ae", "pca"], "split": [0, 0], "seconds": [1.0, 2.0]})
    cite = md.MuData({"rna": plain.copy(), "prot": _protein(plain)})
    folder = Path(tempfile.mkdtemp(prefix="corpus-"))
    counts_model.save(folder / "counts.ae")
    joint.save(folder / "joint.ae")
    (folder / "text.ae").write_text("no model")
    plain.write_h5ad(folder / "plain.h5ad")
    return locals()


def _protein(plain: ad.AnnData) -> ad.AnnData:
    """Protein counts, each high in some of the cells."""
    rng = np.random.default_rng(1)
    level = np.where(rng.random((plain.n_obs, 6)) < 0.5, 80.0, 4.0)
    return ad.AnnData(
        rng.poisson(level).astype("float32"),
        obs=pd.DataFrame(index=plain.obs_names),
        var=pd.DataFrame(index=[f"p{i}" for i in range(6)]),
    )


def made(name: str, change: Callable[[Any], Any] | None = None) -> Made:
    """A copy of something of the world, changed or not; `change` may return another object."""

    def build() -> Any:
        value = world()[name]
        value = value.copy() if hasattr(value, "copy") else value
        if change is None:
            return value
        other = change(value)
        return value if other is None else other

    return Made(build)


def path(name: str) -> Made:
    """A path in the folder of files."""
    return Made(lambda: str(world()["folder"] / name))


def array(*shape: int, kind: str = "normal") -> Made:
    """Numbers, counts or labels, the same each time."""
    rng = np.random.default_rng(sum(shape))
    if kind == "labels":
        return Made(lambda: np.array(["a", "b", "c"] * shape[0])[: shape[0]])
    values = rng.poisson(3.0, shape).astype(float) if kind == "counts" else rng.normal(size=shape)
    return Made(lambda: values.copy())


QUIET = {"progress": False}
MODEL, JOINT = Made(lambda: world()["counts_model"]), Made(lambda: world()["joint"])
COUNTS, LABELS, CODE = array(30, 20, kind="counts"), array(30, kind="labels"), array(30, 3)
VALID: dict[str, dict[str, Any]] = {
    "tl.denoise": {"adata": made("plain"), "n_latent": 4, "n_models": 1, **QUIET},
    "tl.dropouts": {"adata": made("full"), **QUIET},
    "tl.embed": {"adata": made("plain"), "n_latent": 4, "n_models": 1, **QUIET},
    "tl.multimodal_embed": {"mdata": made("cohort"), "method": "concat_pca", "n_latent": 4, **QUIET},
    "tl.predict_modality": {"mdata": made("cohort"), "target": "prot", "model": JOINT, **QUIET},
    "tl.map_query": {"data": made("plain"), "model": MODEL},
    "tl.protein_foreground": {"mdata": made("cite"), "modality": "prot"},
    "tl.attribute": {"data": made("plain"), "model": MODEL, "n_top": 5},
    "tl.benchmark": {"data": made("plain"), "methods": ["pca"], "n_splits": 2, "n_latent": 3, **QUIET},
    "tl.subtypes": {"data": made("full"), "n_subtypes": 2, "n_resamples": 10, "evidence_rep": None},
    "tl.survival": {"data": made("full"), "time_key": "time", "event_key": "event", "groupby": "group", "n_splits": 2},
    "tl.markers": {"adata": made("plain"), "groupby": "group", "n_splits": 2},
    "tl.associations": {"data": made("plain"), "groupby": "group", "columns": ["age"]},
    "pl.history": {"adata": made("full"), "key": "denoised", "show": False},
    "pl.denoised": {"adata": made("full"), "x": "gene 0", "show": False},
    "pl.dropouts": {"adata": made("full"), "genes": ["gene 0"], "groupby": "group", "show": False},
    "pl.latent": {"adata": made("full"), "show": False},
    "pl.dotplot": {"adata": made("full"), "var_names": ["gene 0"], "groupby": "group", "show": False},
    "pl.deviance_explained": {"adata": made("full"), "show": False},
    "pl.loadings": {"adata": made("linear"), "show": False},
    "pl.predicted": {"mdata": made("embedded"), "target": "prot", "show": False},
    "pl.mapping": {"data": made("mapped"), "label": "group", "show": False},
    "pl.associations": {"data": made("full"), "show": False},
    "pl.modality_weights": {"mdata": made("embedded"), "show": False},
    "pl.attributions": {"data": made("full"), "show": False},
    "pl.benchmark": {"table": made("table"), "show": False},
    "pl.forest": {"data": made("full"), "show": False},
    "pl.kaplan_meier": {"data": made("full"), "show": False},
    "pl.subtypes": {"data": made("full"), "show": False},
    "pp.check_counts": {"adata": made("plain")},
    "pp.thin_counts": {"adata": made("plain")},
    "get.denoised": {"adata": made("full"), "genes": ["gene 0"]},
    "get.model": {"adata": made("full"), "key": "denoised"},
    "metrics.deviance_explained": {"denoised": COUNTS, "train": COUNTS, "test": COUNTS},
    "metrics.variance_explained": {"code": CODE, "x": COUNTS, "test_code": CODE, "test_x": COUNTS},
    "metrics.knn_accuracy": {"code": CODE, "labels": LABELS, "test_code": CODE, "test_labels": LABELS},
    "metrics.linear_probe": {"code": CODE, "labels": LABELS, "test_code": CODE, "test_labels": LABELS},
    "metrics.cluster_agreement": {"code": CODE, "labels": LABELS},
    "metrics.default_clusters": {"code": CODE},
    "metrics.cluster_deviance": {"clusters": LABELS, "train": COUNTS, "test": COUNTS},
    "metrics.biology_score": {"code": CODE, "labels": LABELS},
    "metrics.batch_score": {"code": CODE, "batches": LABELS},
    "metrics.trustworthiness": {"code": CODE, "x": COUNTS, "n_neighbors": 5},
    "models.Autoencoder": {},
    "models.Autoencoder.fit": {"adata": made("plain"), **QUIET},
    "models.Autoencoder.encode": {"adata": made("plain")},
    "models.Autoencoder.decode": {"code": array(5, 4)},
    "models.Autoencoder.denoise": {"adata": made("plain")},
    "models.Autoencoder.dropouts": {"adata": made("plain")},
    "models.Autoencoder.sample": {"n": 3},
    "models.Autoencoder.score": {"adata": made("plain")},
    "models.Autoencoder.loadings": {},
    "models.Autoencoder.save": {"path": path("saved.ae")},
    "models.Autoencoder.active_share": {"code": array(5, 4)},
    "models.Autoencoder.to": {"device": "cpu"},
    "models.MultimodalAutoencoder": {},
    "models.MultimodalAutoencoder.fit": {"mdata": made("cohort"), **QUIET},
    "models.MultimodalAutoencoder.encode": {"mdata": made("cohort")},
    "models.MultimodalAutoencoder.predict": {"mdata": made("cohort"), "target": "prot"},
    "models.MultimodalAutoencoder.weights": {"mdata": made("cohort")},
    "models.MultimodalAutoencoder.save": {"path": path("saved.ae")},
    "models.MultimodalAutoencoder.to": {"device": "cpu"},
    "models.load": {"path": path("counts.ae")},
    "io.load_arrays": {"path": path("counts.ae")},
    "io.save_arrays": {"path": path("saved.ae"), "kind": "x", "config": {}, "arrays": {"a": np.zeros(3)}},
    "io.pack": {"tree": {"a": np.zeros(3)}},
    "io.unpack": {"header": {"a": {"$array": "a"}}, "arrays": {"a": np.zeros(3)}},
    "datasets.cohort_from_tables": {"modalities": Made(lambda: {"rna": pd.DataFrame(np.ones((3, 4)))})},
    "datasets.pbmc68k_counts": {},
    "datasets.simulate_counts": {"n_obs": 10, "n_vars": 5},
    "datasets.simulate_citeseq": {"n_obs": 10},
    "datasets.simulate_cohort": {"n_obs": 10},
}
# Where a value of the pool is right, or what else a message may call a parameter.
EXPECTED: dict[tuple[str, str, str], str] = {
    **{("pl.latent", "layer", name): "any" for name in ("'nope'", "''")},  # no gene is drawn there
    **{("tl.predict_modality", "batch_key", name): "any" for name in ("'nope'", "''")},  # unused with model=: it warns
    **{("tl.predict_modality", "covariates", name): "any" for name in ("'nope'", "''")},  # likewise
}
WORDS: dict[str, tuple[str, ...]] = {
    "layer": ("layers",),
    "arrays": ("a",),  # the name of the one that is missing
    "x": ("samples", "genes"),
    "var_names": ("genes",),
    "key": ("uns",),
    "adata": ("AnnData",),
    "mdata": ("MuData",),
    "data": ("AnnData", "MuData"),
}


# ---- what a call must leave alone --------------------------------------------------------------------------------
def digest(value: Any, into=None) -> str:
    """Hash of everything in an object, in order, to the byte."""
    into = into or hashlib.sha256()
    if isinstance(value, ad.AnnData):
        into.update(f"{value.is_view}{value.shape}".encode())
        for slot in ("obs", "var", "uns", "layers", "obsm", "varm", "obsp", "varp"):
            part = getattr(value, slot)
            digest(part if isinstance(part, pd.DataFrame) else dict(part), into)
        digest(value.X, into)
        digest(None if value.raw is None else value.raw.X, into)
    elif isinstance(value, md.MuData):
        digest([value.obs, value.var, dict(value.uns), dict(value.obsm), dict(value.obsp), dict(value.mod)], into)
    elif isinstance(value, pd.DataFrame):
        digest([str(value.dtypes.to_dict()), value.index.to_numpy(object), value.to_numpy(object)], into)
    elif sp.issparse(value):
        digest([value.format, value.shape, value.tocsr().data, value.tocsr().indices, value.tocsr().indptr], into)
    elif isinstance(value, np.ndarray):
        into.update(f"{value.dtype}{value.shape}".encode())
        into.update(repr(value.tolist()).encode() if value.dtype == object else np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            into.update(repr(key).encode())
            digest(entry, into)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            digest(entry, into)
    else:
        into.update(repr(value).encode())
    return into.hexdigest()


def global_state() -> dict[str, Any]:
    """Everything global that a call must not change."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 (it is what we guard)
    return {
        "numpy.random": (kind, keys.tobytes(), *rest),
        "random": random.getstate(),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "np.geterr": np.geterr(),
        "print options": np.get_printoptions(),
        "warnings.filters": list(warnings.filters),
        "rcParams": dict(mpl.rcParams),
        "environment": dict(os.environ),
        "working folder": os.getcwd(),
        "threads": threading.active_count(),
        "pandas options": pd.get_option("mode.chained_assignment"),
    }


class TooLong(BaseException):
    """Raised in a call that takes too long."""


def _too_long(*_) -> None:
    raise TooLong


# ---- judging -----------------------------------------------------------------------------------------------------
def answer(case: Case) -> Answer:
    """Run a case."""
    arguments = case.arguments()
    function = _callable(case.function)
    objects = [v for v in arguments.values() if isinstance(v, (ad.AnnData, md.MuData, pd.DataFrame, np.ndarray))]
    content, state = [digest(o) for o in objects], global_state()
    found = _called(case, function, arguments)
    changed = [name for name, value in global_state().items() if value != state[name]]
    if case.function.startswith("datasets.") or any(isinstance(o, md.MuData) for o in objects):
        changed = [name for name in changed if name != "random"]  # mudata itself draws from it
    plt.close("all")
    Path("nope").unlink(missing_ok=True)  # a file that a case was right to write
    fault = found.fault
    if not fault and changed:
        fault = f"changed {', '.join(changed)}"
    if not fault and found.kind != "result" and [digest(o) for o in objects] != content:
        fault = "refused, and the object is another"
    if not fault and case.expected not in ("any", found.kind):
        fault = f"expected {case.expected}, found {found.kind}"
    return Answer(found.kind, found.message, fault)


def _called(case: Case, function: Callable, arguments: Mapping[str, Any]) -> Answer:
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
        return Answer("result")
    except TooLong:
        return Answer("obscure", fault=f"no answer after {SECONDS} s")
    except Exception as error:  # noqa: BLE001 (what we judge)
        return _judged(case, error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _judged(case: Case, error: Exception) -> Answer:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    message = f"{type(error).__name__}: {' '.join(text.split())[:160]}"
    where = f"{Path(last.filename).name}:{last.lineno}"
    if not isinstance(error, ERRORS):
        return Answer("obscure", message, f"{type(error).__name__} is no answer ({where})")
    if not last.filename.startswith(PACKAGE):
        return Answer("obscure", message, f"raised outside our code ({where})")
    if case.words and not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in case.words):
        return Answer("obscure", message, f"names none of {list(case.words)} ({where})")
    return Answer("clear", message)


def _callable(name: str) -> Callable:
    module, *rest = name.split(".")
    value = getattr(ae, module)
    if len(rest) == 2:
        fitted = {"Autoencoder": "counts_model", "MultimodalAutoencoder": "joint"}[rest[0]]
        value = world()["drawing" if rest[1] == "sample" else fitted]
        if rest[1] == "fit":
            value = type(value)(n_latent=4, n_models=1)
        return getattr(value, rest[1])
    return getattr(value, rest[0])


def cases() -> list[Case]:
    """All cases."""
    from corpus_by_hand import by_hand

    found = []
    for name, function in public().items():
        if name not in INTERNAL:
            found += list(generated(name, inspect.signature(function), VALID[name]))
    return [*found, *by_hand()]


@functools.cache
def by_function() -> dict[str, list[Case]]:
    """All cases, by function."""
    found: dict[str, list[Case]] = {}
    for case in cases():
        found.setdefault(case.function, []).append(case)
    return found


@contextlib.contextmanager
def small_budget() -> Iterator[None]:
    """Train for some steps only: what is learned does not matter here."""
    from aeverse.models._joint import _sample_fusion
    from aeverse.models._matrix import _settings

    with (
        mock.patch.multiple(_settings, N_STEPS=2, LEAST_EPOCHS=1),
        mock.patch.object(_sample_fusion, "N_STEPS", 2),
    ):
        yield


def warm_up() -> None:
    """Import and compile what calls that are right need, so that the cases are compared with a process that runs."""
    os.chdir(world()["folder"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, arguments in VALID.items():
            _callable(name)(**_with(arguments, {}))
    torch.set_num_threads(1)  # scanpy changes it
    plt.close("all")


def main() -> None:
    """Print a table; exit with 1 where an answer falls short."""
    short, total, table = [], Counter(), ["| function | cases | result | clear | obscure |\n|---|---:|---:|---:|---:|"]
    for function, of_function in by_function().items():
        if sys.argv[1:] and function not in sys.argv[1:]:
            continue
        found = Counter()
        for case in of_function:
            result = answer(case)
            found[result.kind] += 1
            if result.fault:
                short.append(f"{case}: {result.fault} | {result.message}")
        found["cases"] = len(of_function)
        total += found
        table.append(row(function, found))
    table.append(row("all", total))
    print(*table, *short, sep="\n")
    if not sys.argv[1:]:
        listed = "".join(f"- {line}\n" for line in short)
        RESULTS.write_text(
            f"`python benchmarks/corpus.py`, see there. Answers that fall short: {len(short)}.\n\n"
            + "\n".join(table)
            + f"\n{listed}",
            "utf-8",
        )
    sys.exit(bool(short))


def row(name: str, found: Mapping[str, Any]) -> str:
    """A row of the table."""
    numbers = (found[key] for key in ("cases", "result", "clear", "obscure"))
    return f"| {name} | {' | '.join(map(str, numbers))} |"


if __name__ == "__main__":
    import corpus  # under this name the cases that were picked by hand know it

    mpl.use("Agg")
    with corpus.small_budget():
        corpus.warm_up()
        corpus.main()
