"""Model files with random damage: each must be refused, or read as if nothing had happened, quickly and in little memory.

``python benchmarks/fuzz_files.py [N]`` damages files of several kinds of models N times (10,000) and prints a table.
"""

from __future__ import annotations

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
WRONG = ("other values", "crash", "slow", "large")


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
    found["multimodal"] = (ae.models.MultimodalAutoencoder(n_steps=5).fit(mdata, progress=False), mdata)
    return found


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


def outcome(path: Path, data, expected: np.ndarray) -> str:
    """What comes of reading a file."""
    tracemalloc.reset_peak()
    start, before = time.perf_counter(), tracemalloc.get_traced_memory()[0]
    try:
        model = ae.models.load(path)
    except ValueError:
        result = "refused"
    except Exception as error:  # noqa: BLE001 (what we look for)
        return f"crash: {type(error).__name__}"
    else:
        result = "without effect" if np.array_equal(model.encode(data), expected) else "other values"
    if time.perf_counter() - start > SECONDS:
        return "slow"
    return "large" if tracemalloc.get_traced_memory()[1] - before > BYTES else result


def fuzz(n: int, seed: int = 0) -> Counter:
    """Damage `n` files; how often each (kind, outcome) was met."""
    rng, found = np.random.default_rng(seed), Counter()
    already = tracemalloc.is_tracing()
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        known = []
        for i, (kind, (model, data)) in enumerate(models().items()):
            model.save(Path(folder) / f"{i}.ae")
            known.append((kind, (Path(folder) / f"{i}.ae").read_bytes(), data, model.encode(data)))
        for i in range(n):
            kind, content, data, expected = known[i % len(known)]
            changed = damaged(content, DAMAGES[int(rng.integers(len(DAMAGES)))], rng)
            (Path(folder) / "damaged.ae").write_bytes(changed)
            found[kind, outcome(Path(folder) / "damaged.ae", data, expected)] += 1
    if not already:
        tracemalloc.stop()
    return found


def main() -> None:
    """Print a table; exit with 1 where something went wrong."""
    found = fuzz(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    columns = sorted({result for _, result in found})
    print("| model |", " | ".join(columns), "|\n|---|" + "---:|" * len(columns))
    for kind in dict.fromkeys(kind for kind, _ in found):
        print(f"| {kind} |", " | ".join(str(found[kind, c]) for c in columns), "|")
    sys.exit(any(result.startswith(WRONG) for _, result in found))


if __name__ == "__main__":
    main()
