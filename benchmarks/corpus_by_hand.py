"""The cases of corpus.py that no signature tells: odd data, each with the answer that is expected."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import scipy.sparse as sp
from corpus import JOINT, MODEL, VALID, Case, Made, _with, made, path, world

OK, NO, EITHER = "result", "clear", "any"


# ---- changes of an AnnData with counts: what it is called, the change, whether counts are still to be had ----------
def on_x(change: Callable[[np.ndarray], Any]) -> Callable[[ad.AnnData], None]:
    """A change of X, dense."""

    def apply(adata: ad.AnnData) -> None:
        adata.X = change(adata.X.toarray())

    return apply


def with_entry(value: float) -> Callable[[ad.AnnData], None]:
    """One entry replaced."""

    def change(x: np.ndarray) -> np.ndarray:
        x[3, 2] = value
        return x

    return on_x(change)


def backed(adata: ad.AnnData) -> ad.AnnData:
    """The same, from a file."""
    return ad.read_h5ad(world()["folder"] / "plain.h5ad", backed="r")


def named(attribute: str, names: Callable[[list[str]], list[str]]) -> Callable[[ad.AnnData], None]:
    """Other names of cells or genes."""

    def apply(adata: ad.AnnData) -> None:
        setattr(adata, attribute, names(list(getattr(adata, attribute))))

    return apply


def without_x(adata: ad.AnnData) -> ad.AnnData:
    """No X, and a layer."""
    return ad.AnnData(obs=adata.obs, var=adata.var, layers={"counts": adata.X})


def with_column(where: str, key: str, values: Callable[[int], Any]) -> Callable[[ad.AnnData], None]:
    """A column of obs or var."""

    def apply(adata: ad.AnnData) -> None:
        table = getattr(adata, where)
        table[key] = values(len(table))

    return apply


def with_slot(slot: str, key: str, value: Callable[[ad.AnnData], Any]) -> Callable[[ad.AnnData], None]:
    """An entry of a slot."""

    def apply(adata: ad.AnnData) -> None:
        getattr(adata, slot)[key] = value(adata)

    return apply


def doubled(adata: ad.AnnData) -> None:
    """Each entry stored in two halves."""
    x = adata.X.tocoo()
    x.data = x.data / 2
    both = sp.coo_matrix((np.r_[x.data, x.data], (np.r_[x.row, x.row], np.r_[x.col, x.col])), x.shape)
    order = np.lexsort((both.col, both.row))
    indptr = np.r_[0, np.cumsum(np.bincount(both.row, minlength=x.shape[0]))]
    adata.X = sp.csr_matrix((both.data[order], both.col[order], indptr), x.shape)


def read_only(adata: ad.AnnData) -> None:
    """Arrays that must not be written to."""
    for part in (adata.X.data, adata.X.indices, adata.X.indptr):
        part.flags.writeable = False


COUNTS_THERE = {
    "a view of cells": lambda a: a[::2],
    "a view of genes": lambda a: a[:, 3:],
    "a view of a view": lambda a: a[5:][:, 2:],
    "a view by truth values": lambda a: a[np.arange(a.n_obs) % 3 > 0],
    "int8": on_x(lambda x: x.clip(0, 100).astype("int8")),
    "uint16": on_x(lambda x: x.astype("uint16")),
    "int64": on_x(lambda x: x.astype("int64")),
    "float64": on_x(lambda x: x.astype("float64")),
    "float16": on_x(lambda x: x.clip(0, 100).astype("float16")),
    "truth values": on_x(lambda x: x > 0),
    "columns first": on_x(np.asfortranarray),
    "CSC": lambda a: setattr(a, "X", a.X.tocsc()),
    "csr_array": lambda a: setattr(a, "X", sp.csr_array(a.X)),
    "64-bit indices": lambda a: setattr(a.X, "indices", a.X.indices.astype("int64")),
    "read-only": read_only,
    "two cells": lambda a: a[:2].copy(),
    "an empty cell": on_x(lambda x: np.r_[np.zeros((1, x.shape[1])), x[1:]]),
    "an empty gene": on_x(lambda x: np.c_[np.zeros((x.shape[0], 1)), x[:, 1:]]),
    "a constant gene": on_x(lambda x: np.c_[np.ones((x.shape[0], 1)), x[:, 1:]]),
    "zeros that are stored": lambda a: a.X.data.__setitem__(slice(0, 5), 0),
    "names with slashes": named("var_names", lambda n: [f"a/{i}" for i in n]),
    "names with dollars": named("var_names", lambda n: [f"$x_{i}$" for i in n]),
    "names of other scripts": named("var_names", lambda n: [f"基因 {i}" for i in n]),
    "cells of equal names": named("obs_names", lambda n: ["cell"] * len(n)),
    "raw": lambda a: setattr(a, "raw", a.copy()),
    "other things in uns": with_slot("uns", "neighbors", lambda a: {"params": {}}),
    "a column of None": with_column("obs", "empty", lambda n: [None] * n),
    "masked array without mask": on_x(np.ma.masked_array),
}
NO_COUNTS = {
    "NaN": with_entry(np.nan),
    "infinite": with_entry(np.inf),
    "negative": with_entry(-1),
    "a fraction": with_entry(0.5),
    "beyond exact counts": with_entry(2.0**25),
    "complex": on_x(lambda x: x.astype(complex)),
    "objects": on_x(lambda x: x.astype(object)),
    "texts": on_x(lambda x: x.astype(str)),
    "logarithms": on_x(np.log1p),
    "scaled": on_x(lambda x: (x - x.mean(0)) / (x.std(0) + 1)),
    "no X": without_x,
    "no X, no layer": lambda a: ad.AnnData(obs=a.obs, var=a.var),
}
# Nothing to learn from: a clear answer either way, but no training that fails inside.
TOO_LITTLE = {
    "no cell": lambda a: a[:0].copy(),
    "no gene": lambda a: a[:, :0].copy(),
    "one cell": lambda a: a[:1].copy(),
    "one gene": lambda a: a[:, :1].copy(),
    "one gene, one cell": lambda a: a[:1, :1].copy(),
    "zeros only": on_x(np.zeros_like),
    "genes of equal names": named("var_names", lambda n: ["gene"] * len(n)),
    "names with NUL": named("var_names", lambda n: [f"a\0{i}" for i in n]),
    "halves that add up": doubled,
    "from a file": backed,
    "a view of a file": lambda a: backed(a)[::2],
    "masked array": on_x(lambda x: np.ma.masked_array(x, x > 3)),
    "no highly variable gene": with_column("var", "highly_variable", lambda n: np.zeros(n, bool)),
    "highly_variable is no truth value": with_column("var", "highly_variable", lambda n: ["yes"] * n),
    "uns['ae'] of others": lambda a: a.uns.__setitem__("ae", 5),
    "uns['ae'] of texts": lambda a: a.uns.__setitem__("ae", {"denoised": "x"}),
    "obsm['X_ae'] of others": with_slot("obsm", "X_ae", lambda a: np.zeros((a.n_obs, 2))),
    "layers['denoised'] of others": with_slot("layers", "denoised", lambda a: a.X.copy()),
    "layers['thinned'] of others": with_slot("layers", "thinned", lambda a: a.X.copy()),
}
READERS = ("tl.denoise", "tl.embed", "pp.check_counts", "pp.thin_counts", "models.Autoencoder.fit")
ONLY_COUNTS = ("tl.denoise", "pp.check_counts", "pp.thin_counts")
PLACES = (
    "AnnData",
    "observations",
    "adata",
    "X",
    "layers",
    "obs",
    "var",
    "obsm",
    "varm",
    "uns",
    "cells",
    "genes",
    "samples",
    "features",
    "mask_var",
    "gene",
)


def odd_counts() -> Iterator[Case]:
    """Each reader of a matrix x each odd matrix."""
    for function in READERS:
        for changes, expected in ((COUNTS_THERE, OK), (NO_COUNTS, NO), (TOO_LITTLE, EITHER)):
            for name, change in changes.items():
                wanted = EITHER if expected == NO and function not in ONLY_COUNTS else expected
                yield case(function, name, {"adata": made("plain", change)}, wanted, PLACES)


def case(
    function: str, name: str, odd: dict[str, Any], expected: str, words: tuple[str, ...] = (), *, alone: bool = False
) -> Case:
    """A case with some arguments changed; `alone`: with no others."""
    words = words or tuple(odd)
    return Case(function, name, functools.partial(_with, {} if alone else VALID[function], odd), expected, words)


# ---- batches -----------------------------------------------------------------------------------------------------
BATCHES: dict[str, tuple[Callable[[int], Any], str]] = {
    "levels that are unused": (lambda n: pd.Categorical(["a"] * n, categories=["a", "b"]), OK),
    "whole numbers": (lambda n: np.arange(n) % 3, OK),
    "truth values": (lambda n: np.arange(n) % 2 == 0, OK),
    "one batch": (lambda n: ["a"] * n, OK),
    "a batch of one cell": (lambda n: ["a"] + ["b"] * (n - 1), OK),
    "each cell a batch": (lambda n: [str(i) for i in range(n)], OK),
    "names with slashes": (lambda n: ["a/b", "$x$"] * (n // 2), OK),
    "a NaN": (lambda n: ["a", np.nan] * (n // 2), NO),
    "NaN only": (lambda n: [np.nan] * n, NO),
    "None": (lambda n: ["a", None] * (n // 2), NO),
    "a category that is missing": (lambda n: pd.Categorical(["a", None] * (n // 2)), NO),
}


def batches() -> Iterator[Case]:
    """Batches of every kind."""
    for name, (values, expected) in BATCHES.items():
        for function in ("tl.denoise", "tl.embed", "models.Autoencoder.fit"):
            odd = {"adata": made("plain", with_column("obs", "b", values)), "batch_key": "b"}
            yield case(function, f"batches: {name}", odd, expected, ("b",))


# ---- values that are no counts -----------------------------------------------------------------------------------
def normal(change: Callable[[np.ndarray], Any]) -> Made:
    """An AnnData of 30 x 8 normal values, changed."""

    def build() -> ad.AnnData:
        return ad.AnnData(change(np.random.default_rng(0).normal(size=(30, 8))))

    return Made(build)


def put(x: np.ndarray, where: Any, value: float) -> np.ndarray:
    """An array with some entries replaced."""
    x[where] = value
    return x


VALUES: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "as they are": (lambda x: x, OK),
    "a NaN": (lambda x: put(x, (3, 2), np.nan), OK),
    "a column of NaN": (lambda x: put(x, (slice(None), 2), np.nan), EITHER),
    "a row of NaN": (lambda x: put(x, 3, np.nan), EITHER),
    "NaN only": (lambda x: x * np.nan, NO),
    "infinite": (lambda x: put(x, (3, 2), np.inf), NO),
    "beyond float32": (lambda x: put(x, (3, 2), 1e300), NO),
    "large": (lambda x: x * 1e20, EITHER),
    "tiny": (lambda x: x * 1e-30, EITHER),
    "constant": (lambda x: np.ones_like(x), EITHER),
    "a constant column": (lambda x: put(x, (slice(None), 2), 1.0), OK),
    "fractions": (lambda x: 1 / (1 + np.exp(-x)), OK),
    "0 and 1": (lambda x: (x > 0).astype(float), OK),
    "one sample": (lambda x: x[:1], NO),
    "two samples": (lambda x: x[:2], EITHER),
    "one feature": (lambda x: x[:, :1], EITHER),
    "no sample": (lambda x: x[:0], NO),
    "no feature": (lambda x: x[:, :0], NO),
    "sparse": (sp.csr_matrix, OK),
    "texts": (lambda x: x.astype(str), NO),
}
WAYS: dict[str, dict[str, Any]] = {
    "gaussian": {"likelihood": "gaussian"},
    "auto": {},
    "pca": {"method": "pca", "n_models": None},
    "kernel_pca": {"method": "kernel_pca", "n_models": None},
}


def values() -> Iterator[Case]:
    """Values that are no counts, embedded in several ways."""
    for way, options in WAYS.items():
        for name, (change, expected) in VALUES.items():
            wanted = EITHER if way.endswith("pca") and (expected == OK or name == "one sample") else expected
            odd = {"adata": normal(change), **options, "n_latent": 2}
            yield case("tl.embed", f"{way}: {name}", odd, wanted, PLACES)


# ---- several modalities ------------------------------------------------------------------------------------------
def mods(change: Callable[[dict[str, ad.AnnData]], Any]) -> Made:
    """A MuData of two modalities that are changed before it is built."""

    def build() -> md.MuData:
        parts = {name: part.copy() for name, part in world()["cohort"].mod.items()}
        return md.MuData(change(parts) or parts)

    return Made(build)


def after(change: Callable[[md.MuData], Any]) -> Made:
    """A MuData that is changed after it was built."""
    return made("cohort", change)


def renamed(part: ad.AnnData, names: list[str]) -> ad.AnnData:
    """Cells of other names."""
    part.obs_names = names
    return part


def set_x(part: ad.AnnData, where: Any, value: float) -> ad.AnnData:
    """Entries replaced."""
    x = part.X.toarray() if sp.issparse(part.X) else part.X
    part.X = put(x, where, value)
    return part


COHORTS: dict[str, tuple[Made, str]] = {
    "as it is": (mods(lambda m: None), OK),
    "one modality": (mods(lambda m: {"rna": m["rna"]}), EITHER),
    "names with slashes": (mods(lambda m: {"a/b": m["rna"], "$c$": m["prot"]}), EITHER),
    "no cell in common": (mods(lambda m: {"a": m["rna"], "b": renamed(m["prot"], [f"x{i}" for i in range(30)])}), NO),
    "a row of NaN": (mods(lambda m: {"a": m["rna"], "b": set_x(m["prot"], 3, np.nan)}), OK),
    "a modality of NaN": (mods(lambda m: {"a": m["rna"], "b": set_x(m["prot"], slice(None), np.nan)}), NO),
    "infinite": (mods(lambda m: {"a": m["rna"], "b": set_x(m["prot"], (3, 2), np.inf)}), NO),
    "beyond float32": (
        mods(lambda m: {"a": m["rna"], "b": set_x(ad.AnnData(m["prot"].X.astype(float), obs=m["prot"].obs), 3, 1e300)}),
        NO,
    ),
    "no cell": (mods(lambda m: {name: part[:0].copy() for name, part in m.items()}), NO),
    "two cells": (mods(lambda m: {name: part[:2].copy() for name, part in m.items()}), EITHER),
    "a modality without features": (mods(lambda m: {"a": m["rna"], "b": m["prot"][:, :0].copy()}), NO),
    "a modality without cells": (mods(lambda m: {"a": m["rna"], "b": m["prot"][:0].copy()}), NO),
    "some cells in one modality only": (mods(lambda m: {"a": m["rna"], "b": m["prot"][:20].copy()}), OK),
    "cells of equal names": (mods(lambda m: {"a": renamed(m["rna"], ["c"] * 30), "b": m["prot"]}), NO),
    "no modality": (after(lambda m: [m.mod.pop(name) for name in list(m.mod)] and m), NO),
    "out of date": (after(lambda m: m.mod.__setitem__("rna", m.mod["rna"][:9].copy()) or m), EITHER),
    "texts": (mods(lambda m: {"a": m["rna"], "b": ad.AnnData(m["prot"].X.astype(str), obs=m["prot"].obs)}), NO),
    "uns['ae'] of others": (after(lambda m: m.uns.__setitem__("ae", 5)), EITHER),
    "obsm['X_ae'] of others": (after(lambda m: m.obsm.__setitem__("X_ae", np.zeros((30, 2)))), EITHER),
}


def several() -> Iterator[Case]:
    """Several modalities, learned or given to a model."""
    words = ("modality", "modalities", "mdata", "MuData", "obs_names", "obsm", "uns", "cells", "samples", "prot", "rna")
    for name, (mdata, expected) in COHORTS.items():
        yield case("tl.multimodal_embed", name, {"mdata": mdata}, expected, words)
        yield case("models.MultimodalAutoencoder.fit", name, {"mdata": mdata}, EITHER, words)
        yield case("models.MultimodalAutoencoder.encode", name, {"mdata": mdata}, EITHER, words)
        yield case("tl.predict_modality", name, {"mdata": mdata}, EITHER, (*words, "target"))


# ---- new samples -------------------------------------------------------------------------------------------------
QUERIES: dict[str, tuple[Callable[[ad.AnnData], Any], str]] = {
    "no cell": (lambda a: a[:0].copy(), EITHER),
    "one cell": (lambda a: a[:1].copy(), OK),
    "no gene": (lambda a: a[:, :0].copy(), NO),
    "one gene": (lambda a: a[:, :1].copy(), EITHER),
    "genes in another order": (lambda a: a[:, ::-1].copy(), OK),
    "other genes": (named("var_names", lambda n: [f"x{i}" for i in n]), NO),
    "genes of equal names": (named("var_names", lambda n: [n[0]] * len(n)), NO),
    "NaN": (with_entry(np.nan), NO),
    "negative": (with_entry(-1), NO),
    "a fraction": (with_entry(0.5), NO),
    "texts": (on_x(lambda x: x.astype(str)), NO),
    "no X": (without_x, NO),
    "a view": (lambda a: a[::2], OK),
    "from a file": (backed, EITHER),
    "zeros only": (on_x(np.zeros_like), EITHER),
    "several modalities": (lambda a: world()["cohort"].copy(), NO),
}


def queries() -> Iterator[Case]:
    """New samples for a model."""
    subjects = {
        "tl.map_query": "data",
        "tl.attribute": "data",
        "tl.dropouts": "adata",
        "models.Autoencoder.encode": "adata",
        "models.Autoencoder.denoise": "adata",
        "models.Autoencoder.dropouts": "adata",
        "models.Autoencoder.score": "adata",
    }
    for function, subject in subjects.items():
        for name, (change, expected) in QUERIES.items():
            odd = {subject: made("plain", change)} | ({"model": MODEL} if function == "tl.dropouts" else {})
            wanted = EITHER if function in ("tl.attribute", "models.Autoencoder.score") else expected
            yield case(function, name, odd, wanted, (*PLACES, "AnnData", "model"))


# ---- patients ----------------------------------------------------------------------------------------------------
OUTCOMES: dict[str, tuple[str, Callable[[int], Any], str]] = {
    "a negative time": ("time", lambda n: [-1.0] + [2.0] * (n - 1), EITHER),
    "negative times": ("time", lambda n: -np.ones(n), NO),
    "a time that is missing": (
        "time",
        lambda n: [np.nan] + [2.0, 3.0] * ((n - 1) // 2) + [1.0] * ((n - 1) % 2),
        EITHER,
    ),
    "times that are missing": ("time", lambda n: [np.nan] * n, NO),
    "an infinite time": ("time", lambda n: [np.inf] + [2.0] * (n - 1), EITHER),
    "times as texts": ("time", lambda n: ["long"] * n, NO),
    "equal times": ("time", lambda n: np.ones(n), EITHER),
    "no event": ("event", lambda n: np.zeros(n), NO),
    "events only": ("event", lambda n: np.ones(n), EITHER),
    "events of 0, 1, 2": ("event", lambda n: np.arange(n) % 3, NO),
    "events as words": ("event", lambda n: ["dead"] * n, OK),
    "events as other texts": ("event", lambda n: ["perhaps"] * n, NO),
    "events that are missing": ("event", lambda n: [np.nan] * n, NO),
    "one group": ("group", lambda n: ["a"] * n, EITHER),
    "each patient a group": ("group", lambda n: [str(i) for i in range(n)], EITHER),
    "groups that are missing": ("group", lambda n: [None] * n, NO),
    "a group called None": ("group", lambda n: ["None", "b"] * (n // 2), EITHER),
    "groups with dollars": ("group", lambda n: ["$a", "b/c"] * (n // 2), OK),
    "levels that are unused": ("group", lambda n: pd.Categorical(["a", "b"] * (n // 2), categories=list("abc")), OK),
}
COVARIATES: dict[str, tuple[Callable[[int], Any], str]] = {
    "constant": (lambda n: np.ones(n), EITHER),
    "NaN only": (lambda n: [np.nan] * n, NO),
    "infinite": (lambda n: [np.inf] + [1.0, 2.0] * ((n - 1) // 2) + [3.0] * ((n - 1) % 2), NO),
    "texts": (lambda n: ["a", "b"] * (n // 2), EITHER),
    "each another text": (lambda n: [str(i) for i in range(n)], EITHER),
    "objects": (lambda n: [object()] * n, EITHER),
    "dates": (lambda n: pd.date_range("2020", periods=n), EITHER),
    "categories": (lambda n: pd.Categorical(["a", "b"] * (n // 2), categories=list("abc")), OK),
}
CODES: dict[str, tuple[Callable[[ad.AnnData], Any], str]] = {
    "NaN": (lambda a: put(np.zeros((a.n_obs, 2)), (3, 1), np.nan), NO),
    "constant": (lambda a: np.zeros((a.n_obs, 2)), EITHER),
    "no dimension": (lambda a: np.zeros((a.n_obs, 0)), NO),
    "texts": (lambda a: np.full((a.n_obs, 2), "x"), NO),
    "complex": (lambda a: np.zeros((a.n_obs, 2), complex), EITHER),
    "a table": (
        lambda a: pd.DataFrame(np.random.default_rng(0).normal(size=(a.n_obs, 2)), a.obs_names, ["u", "v"]),
        OK,
    ),
    "sparse": (lambda a: sp.csr_matrix(np.random.default_rng(0).normal(size=(a.n_obs, 2))), OK),
    "one dimension": (lambda a: np.random.default_rng(0).normal(size=(a.n_obs, 1)), OK),
}


def patients() -> Iterator[Case]:
    """Outcomes, covariates, groups and embeddings of patients."""
    words = (
        "obs",
        "time",
        "event",
        "group",
        "times",
        "events",
        "groups",
        "covariate",
        "covariates",
        "c",
        "obsm",
        "codes",
        "n_subtypes",
    )
    for name, (column, values_of, expected) in OUTCOMES.items():
        odd = {"data": made("full", with_column("obs", column, values_of))}
        yield case("tl.survival", name, odd, expected, words)
        if column == "group":
            yield case("tl.associations", name, odd, EITHER, words)
    for name, (values_of, expected) in COVARIATES.items():
        odd = {"data": made("full", with_column("obs", "c", values_of))}
        yield case("tl.survival", f"covariate: {name}", {**odd, "covariates": ["c"]}, expected, words)
        yield case("tl.associations", f"column: {name}", {**odd, "columns": ["c"]}, EITHER, words)
    for name, (code, expected) in CODES.items():
        odd = {"data": made("full", with_slot("obsm", "code", code)), "use_rep": "code"}
        yield case("tl.subtypes", f"code: {name}", odd, expected, words)
        yield case("tl.survival", f"code: {name}", odd, EITHER, words)
    for n in (0, 1, 2, 3):
        odd = {"data": made("full", lambda a, n=n: a[:n].copy())}
        for function in ("tl.subtypes", "tl.survival", "tl.associations", "tl.benchmark"):
            yield case(function, f"{n} patients", odd, EITHER, (*words, "patients", "samples", "cells", "observations"))


# ---- pictures ----------------------------------------------------------------------------------------------------
def pictures() -> Iterator[Case]:
    """Names that matplotlib reads as formulas, axes that do not fit, files that cannot be written."""
    for name in ("$", "$x", "$x_1$", "a/b", "基因", "a\nb", "_x", "^"):
        gene = made("full", named("var_names", lambda n, name=name: [name, *n[1:]]))
        column = made("full", with_column("obs", name, lambda n: ["$", "b"] * (n // 2)))
        yield case("pl.latent", f"gene {name!r}", {"adata": gene, "color": name}, OK)
        yield case("pl.latent", f"column {name!r}", {"adata": column, "color": name}, OK)
        yield case("pl.denoised", f"gene {name!r}", {"adata": gene, "x": name}, EITHER, ("genes", "names", "denoised"))
        yield case("pl.dropouts", f"group {name!r}", {"adata": column, "groupby": name}, OK)
    for function in (name for name in VALID if name.startswith("pl.")):
        for name, place in {"no folder": "none/a.png", "no suffix": "a", "no such format": "a.nope"}.items():
            yield case(function, f"save: {name}", {"save": path(place)}, EITHER, ("save", "nope", "folder", "none"))
        yield case(
            function,
            "empty object",
            {next(iter(VALID[function])): Made(ad.AnnData)},
            NO,
            (*PLACES, "MuData", "table", "DataFrame"),
        )
    for name, values_of in {
        "NaN only": lambda n: [np.nan] * n,
        "None only": lambda n: [None] * n,
        "infinite": lambda n: [np.inf] * n,
        "dates": lambda n: pd.date_range("2020", periods=n),
        "categories that are unused": lambda n: pd.Categorical(["a"] * n, categories=["a", "b"]),
        "truth values": lambda n: [True, False] * (n // 2),
    }.items():
        odd = {"adata": made("full", with_column("obs", "c", values_of)), "color": "c"}
        yield case("pl.latent", f"color: {name}", odd, EITHER, ("color", "c"))


# ---- scores ------------------------------------------------------------------------------------------------------
ARRAYS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "a list": (lambda x: x.tolist(), OK),
    "sparse": (sp.csr_matrix, EITHER),
    "whole numbers": (lambda x: np.rint(x).astype(int), OK),
    "a NaN": (lambda x: put(x, (3, 1), np.nan), EITHER),  # of x: an entry that is missing
    "infinite": (lambda x: put(x, (3, 1), np.inf), NO),
    "one dimension": (lambda x: x[:, 0], NO),
    "three dimensions": (lambda x: x[None], NO),
    "fewer rows": (lambda x: x[:5], NO),
    "no row": (lambda x: x[:0], NO),
    "no column": (lambda x: x[:, :0], NO),
    "texts": (lambda x: x.astype(str).astype(object) + "x", NO),
    "complex": (lambda x: x + 1j, EITHER),
    "constant": (np.zeros_like, EITHER),
}
LABELINGS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "a list": (lambda x: x.tolist(), OK),
    "a Series": (pd.Series, OK),
    "a Categorical": (pd.Categorical, OK),
    "whole numbers": (lambda x: np.arange(len(x)) % 3, OK),
    "one label": (lambda x: np.full(len(x), "a"), EITHER),
    "each another": (lambda x: np.arange(len(x)), EITHER),
    "unknown only": (lambda x: np.full(len(x), "unknown"), EITHER),
    "NaN only": (lambda x: np.full(len(x), np.nan), EITHER),
    "two dimensions": (lambda x: np.c_[x, x], NO),
    "fewer": (lambda x: x[:5], NO),
    "none": (lambda x: x[:0], NO),
}


def scores() -> Iterator[Case]:
    """Arrays and labels for every score."""
    for function, valid in VALID.items():
        if not function.startswith("metrics."):
            continue
        for parameter in valid:
            label = parameter.endswith(("labels", "batches", "clusters"))
            if parameter == "n_neighbors":
                continue
            for name, (change, expected) in (LABELINGS if label else ARRAYS).items():
                base = valid[parameter]
                odd = {parameter: Made(lambda base=base, change=change: change(base()))}
                counts = expected == OK and parameter in ("denoised", "train", "test", "clusters")
                words = (
                    parameter,
                    "code",
                    "labels",
                    "samples",
                    "shape",
                    "x",
                    "train",
                    "test",
                    "clusters",
                    "batches",
                    "cells",
                    "label",
                    "batch",
                )
                alone = name == "fewer rows" and len(valid) == 1  # nothing there that it must fit
                yield case(function, f"{parameter}: {name}", odd, EITHER if counts or alone else expected, words)


# ---- files and tables --------------------------------------------------------------------------------------------
def file_of(name: str, content: bytes) -> Made:
    """The path of a file with some content."""

    def build() -> str:
        place = world()["folder"] / name
        place.write_bytes(content)
        return str(place)

    return Made(build)


def table(**changes: Any) -> pd.DataFrame:
    """Three genes in four samples."""
    return pd.DataFrame(np.arange(12.0).reshape(3, 4), index=list("abc"), columns=list("wxyz")).assign(**changes)


TABLES: dict[str, tuple[Callable[[], Any], str]] = {
    "samples of equal names": (lambda: {"rna": table().set_axis(list("wwyz"), axis=1)}, EITHER),
    "genes of equal names": (lambda: {"rna": table().set_axis(list("aab"))}, EITHER),
    "a modality with a slash": (lambda: {"a/b": table()}, NO),
    "an empty name": (lambda: {"": table()}, NO),
    "infinite": (lambda: {"rna": table(w=np.inf)}, NO),
    "NaN only": (lambda: {"rna": table() * np.nan}, EITHER),
    "a name that is NaN": (lambda: {"rna": table().set_axis(["a", np.nan, "b"])}, EITHER),
    "texts": (lambda: {"rna": table(w="x")}, NO),
    "no sample": (lambda: {"rna": table()[[]]}, NO),
    "no gene": (lambda: {"rna": table()[:0]}, NO),
    "an empty table": (lambda: {"rna": pd.DataFrame()}, NO),
    "an array": (lambda: {"rna": np.zeros((3, 4))}, NO),
    "no such file": (lambda: {"rna": "nowhere.tsv"}, NO),
    "a number": (lambda: {"rna": 5}, NO),
    "two tables": (lambda: {"rna": table(), "cna": table()}, OK),
    "no sample in common": (lambda: {"rna": table(), "cna": table().set_axis(list("efgh"), axis=1)}, EITHER),
}


def files() -> Iterator[Case]:
    """Files that hold no model, and tables of cohorts."""
    contents = {
        "empty": b"",
        "text": b"no model",
        "zeros": bytes(100),
        "long header": b"\xff" * 8 + b"x",
        "json": b"{}",
    }
    for function in ("models.load", "io.load_arrays"):
        for name, content in contents.items():
            yield case(function, name, {"path": file_of(f"{name}.ae", content)}, NO, (f"{name}.ae",))
        for name, place in {"folder": ".", "nowhere": "nowhere.ae", "h5ad": "plain.h5ad", "NUL": "a\0b"}.items():
            yield case(function, name, {"path": path(place)}, NO, ("path", "model", "file", "No"))
    for function in ("models.Autoencoder.save", "models.MultimodalAutoencoder.save", "io.save_arrays"):
        for name, place in {"folder": ".", "no folder": "none/a.ae", "NUL": "a\0b", "too long": "x" * 300}.items():
            yield case(function, name, {"path": path(place)}, NO, ("folder", "path", "name"))
        yield case(function, "name of 255 letters", {"path": path("x" * 255)}, OK)
    for function in ("tl.map_query", "tl.attribute"):
        for name, wrong in {
            "of several modalities": JOINT,
            "nowhere": path("nowhere.ae"),
            "text": path("text.ae"),
        }.items():
            yield case(function, f"model: {name}", {"model": wrong}, NO, ("model", "modalities", "MuData", "AnnData"))
    for name, (tables, expected) in TABLES.items():
        yield case(
            "datasets.cohort_from_tables",
            name,
            {"modalities": Made(tables)},
            expected,
            (*tables(), "modalities", "modality", "nowhere.tsv", "sample", "samples"),
        )


def by_hand() -> list[Case]:
    """All of them."""
    groups = (odd_counts, batches, values, several, queries, patients, pictures, scores, files)
    return [found for group in groups for found in group()]
