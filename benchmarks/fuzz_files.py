"""Model files with random damage: each must be refused, or read as if nothing had happened, quickly and in little memory.

``python benchmarks/fuzz_files.py [N]`` damages files of several kinds of models N times (10,000), and N / 5 times changes
what such a file holds (a setting, an array) and signs it again, so that the checksum is right and only the schema can tell.
Such a file may give other values, which nobody can know to be wrong, but they must be finite. Tables of both are printed and
written to ``benchmarks/results/fuzz_files.md``.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import anndata as ad
import mudata as md
import numpy as np

import aeverse as ae

SECONDS, BYTES = 1.0, 200e6  # most that reading one may take
DAMAGES = ("flipped bit", "random byte", "cut", "hole", "inserted", "swapped", "header", "appended")
WRONG = ("other values", "not finite", "crash", "slow", "large")
ODD = (None, True, -1, 0, 1, 3, 10**12, 1e300, float("nan"), float("inf"), "", "odd", [], {}, [None], {"odd": 1})
RESULTS = Path(__file__).parent / "results" / "fuzz_files.md"


def models() -> dict[str, tuple]:
    """Kind -> (fitted model, data)."""
    values = ad.AnnData(np.random.default_rng(0).normal(size=(60, 12)).astype("float32"))
    counts = ae.datasets.simulate_counts(60, 30)
    mdata = md.MuData({"a": values[:, :6].copy(), "b": values[:, 6:].copy()})
    small = {"n_latent": 4, "max_epochs": 2, "n_models": 1}
    found = {}
    for name, data, options in (
        ("counts", counts, {"likelihood": "nb"}),
        ("counts, graph", counts, {"likelihood": "nb", "regularizer": "graph"}),
        ("values", values, {"likelihood": "gaussian"}),
        ("values, variational", values, {"likelihood": "gaussian", "regularizer": "variational"}),
    ):
        found[name] = (ae.models.Autoencoder(**small, **options).fit(data, progress=False), data)
    cohort, cells = with_batches(mdata), with_batches(two_modalities_of_cells())
    for name, data, options in (
        ("cohort", cohort, {"n_steps": 5}),
        ("cells", cells, {"recipe": "cells", "n_steps": 5}),
    ):
        model = ae.models.MultimodalAutoencoder(**options).fit(data, batch_key="batch", progress=False)
        found[f"multimodal, {name}"] = (model, data)
    return found


def two_modalities_of_cells() -> md.MuData:
    """RNA and protein counts; some cells have no protein."""
    rna = ae.datasets.simulate_counts(120, 60)
    protein = np.random.default_rng(0).poisson(4, size=(100, 8)).astype("float32")
    return md.MuData({"rna": rna, "protein": ad.AnnData(protein, obs=rna.obs[:100])})


def with_batches(mdata: md.MuData) -> md.MuData:
    """Every other sample of another batch."""
    mdata.obs["batch"] = np.array(["x", "y"])[np.arange(mdata.n_obs) % 2]
    return mdata


def damaged(content: bytes, damage: str, rng: np.random.Generator) -> bytes:
    """The content with one random damage."""
    end = 8 + int.from_bytes(content[:8], "little") if damage == "header" else len(content)
    at, length = int(rng.integers(end)), int(rng.integers(1, 64))
    if damage == "flipped bit":
        return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
    if damage in ("random byte", "header"):
        return content[:at] + rng.bytes(1) + content[at + 1 :]
    if damage == "cut":
        return content[:at]
    if damage == "hole":
        return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]
    if damage == "inserted":
        return content[:at] + rng.bytes(length) + content[at:]
    if damage == "swapped":
        return (
            content[:at]
            + content[at + length : at + 2 * length]
            + content[at : at + length]
            + content[at + 2 * length :]
        )
    return content + rng.bytes(length)


def changed(tree: dict, rng: np.random.Generator) -> dict:
    """The tree of a model with one random change: a value, an array or a part that is other, gone or new."""
    tree = copy.deepcopy(tree)
    places = [(node, key) for node in nodes(tree) for key in (node if isinstance(node, dict) else range(len(node)))]
    node, key = places[int(rng.integers(len(places)))]
    if rng.random() < 0.1:
        del node[key]
    elif isinstance(node[key], np.ndarray) and node[key].size and rng.random() < 0.8:
        node[key] = changed_array(node[key], rng)
    else:
        node[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    return tree


def nodes(tree):
    """All mappings and lists of a tree."""
    yield tree
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, (dict, list)):
            yield from nodes(value)


def changed_array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another shape, type, or one entry that is out of range."""
    how = int(rng.integers(5))
    if how < 3:
        return (array.ravel()[:-1], array[..., None], array.astype("float64" if array.dtype.kind in "iu" else "int64"))[
            how
        ]
    array = array.copy()
    odd = (np.nan, np.inf, -np.inf) if array.dtype.kind == "f" else (-7, 99, 10**4)
    array.flat[int(rng.integers(array.size))] = np.asarray(odd[int(rng.integers(3))]).astype(array.dtype)
    return array


def outcome(path: Path, data, expected: np.ndarray) -> str:
    """What comes of reading a file."""
    tracemalloc.reset_peak()
    start, before = time.process_time(), tracemalloc.get_traced_memory()[0]
    try:
        model = ae.models.load(path)
    except ValueError:
        result = "refused"
    except Exception as error:  # noqa: BLE001 (what we look for)
        return f"crash: {type(error).__name__}"
    else:
        try:
            code = model.encode(data)
        except (ValueError, KeyError):  # a column of batches that the data do not have
            return "refused when used"
        result = "without effect" if np.array_equal(code, expected) else "other values"
        result = result if np.isfinite(code).all() else "not finite"
    if time.process_time() - start > SECONDS:  # of the processor: others may keep the machine busy
        return "slow"
    return "large" if tracemalloc.get_traced_memory()[1] - before > BYTES else result


def fuzz(n: int, seed: int = 0, *, signed: bool = False) -> Counter:
    """Damage `n` files, or change and sign them again; how often each (kind, outcome) was met."""
    rng, found = np.random.default_rng(seed), Counter()
    already = tracemalloc.is_tracing()
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        known = []
        for i, (kind, (model, data)) in enumerate(models().items()):
            model.save(Path(folder) / f"{i}.ae")
            header, arrays, name = ae.io.load_arrays(Path(folder) / f"{i}.ae")
            tree = ae.io.unpack(header, arrays)
            known.append((kind, (Path(folder) / f"{i}.ae").read_bytes(), tree, name, data, model.encode(data)))
        for i in range(n):
            kind, content, tree, name, data, expected = known[i % len(known)]
            if signed:
                ae.io.save_arrays(Path(folder) / "damaged.ae", name, *ae.io.pack(changed(tree, rng)))
            else:
                content = damaged(content, DAMAGES[int(rng.integers(len(DAMAGES)))], rng)
                (Path(folder) / "damaged.ae").write_bytes(content)
            found[kind, outcome(Path(folder) / "damaged.ae", data, expected)] += 1
    if not already:
        tracemalloc.stop()
    return found


def table(found: Counter) -> str:
    """Markdown, a row for each kind of model."""
    columns = sorted({result for _, result in found})
    rows = [["model", *columns], ["---", *["---:"] * len(columns)]]
    rows += [[kind, *(str(found[kind, c]) for c in columns)] for kind in dict.fromkeys(kind for kind, _ in found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Print and write the tables; exit with 1 where something went wrong."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    damages = fuzz(n)
    print(table(damages), flush=True)
    signed = fuzz(n // 5, signed=True)
    text = (
        f"`python benchmarks/fuzz_files.py {n}`, see there.\n\nDamaged files:\n\n{table(damages)}\n\n"
        f"Changed and signed again:\n\n{table(signed)}\n"
    )
    RESULTS.write_text(text, "utf-8")
    print(text)
    wrong = any(result.startswith(WRONG) for _, result in damages)
    sys.exit(wrong or any(result.startswith(WRONG[1:]) for _, result in signed))


if __name__ == "__main__":
    main()
