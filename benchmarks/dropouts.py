"""Dropouts and intervals: are the probabilities of aeverse true?

    python benchmarks/dropouts.py --tables dropouts_thinned --methods scVI

A table for each of three questions, on real counts whose truth is known because molecules were taken away, and on simulated ones:

thinned    a tenth (or half) of the molecules is kept. Which of the zeros are not zero in the full data?
           `ece` and `worst`: calibration of the probabilities at depth 10 (2), in 15 bins of equal width; mean and
           largest distance between predicted and true share (of bins with 1,000 entries). `auc`: ranking of all zeros;
           `auc_gene`: of the zeros of one gene, mean over genes with at least 20 of either kind. Peers rank by their
           denoised values, which are no probabilities.
structural simulated cell types with genes that are off in some of them: which zeros had a rate above zero?
intervals  a tenth of the molecules is held out: share of the entries that lie in the central 90 % interval of the
           negative binomial with the mean and shape of layers["denoised"] and layers["denoised_sd"], by predicted mean.
           `randomized` (probability integral transform) is 0.90 for a true distribution at any mean; `plain` counts the
           closed interval, which discrete counts fill beyond 90 % where the mean is low; `without_sd` is `randomized`
           for a Poisson distribution with the same mean, as if that were known.

Judged on 500 cells drawn at random (all cells are fitted). Written: benchmarks/results/dropouts_thinned.csv, ..._structural.csv,
..._intervals.csv and dropouts.md, means over the splits (seeds).
"""

from __future__ import annotations

import itertools
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import scipy.sparse as sp
from denoise import gene_means, knn_smoothing, magic, scvi_early_stopping
from scipy.stats import nbinom, poisson
from sklearn.metrics import roc_auc_score
from tables import markdown

DATA_SETS, DEPTHS = ("celseq2_5cl", "mouse_bladder", "pbmc3k"), (10, 2)
N_BINS, N_JUDGED = 15, 500
MEANS = (0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, np.inf)
PEERS = {"kNN smoothing": knn_smoothing, "MAGIC": magic, "gene means": gene_means, "scVI": scvi_early_stopping}
METHODS = {"aeverse": None, **PEERS}


# ---- the truth -------------------------------------------------------------------------------------------------
def thin(counts: sp.csr_matrix, share: float, seed: int) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Part of the molecules and the rest, without genes of which the part has none."""
    part, rest = counts.copy(), counts.copy()
    part.data = np.random.default_rng(seed).binomial(counts.data.astype(int), share).astype(np.float32)
    rest.data = counts.data - part.data
    genes = np.asarray(part.sum(0)).ravel() > 0
    part, rest = part[:, genes], rest[:, genes]
    part.eliminate_zeros()
    rest.eliminate_zeros()
    return part, rest


def read(data: str) -> sp.csr_matrix:
    """Counts."""
    import anndata as ad

    return ad.read_h5ad(harness.DATA / f"{data}.h5ad").X


def dropout_probabilities(counts: sp.csr_matrix, depth: float) -> np.ndarray:
    """All of them, (cells, genes)."""
    from anndata import AnnData

    import aeverse as ae

    adata = AnnData(counts.copy())
    ae.tl.dropouts(adata, depth=depth, threshold=0.0)
    return adata.layers["dropout_prob"].toarray()


def score_of(method: str, counts: sp.csr_matrix, depth: float) -> np.ndarray:
    """What ranks the zeros: our probabilities, or a peer's denoised values, (cells, genes)."""
    with harness.timed():
        return np.asarray(PEERS[method](counts) if method in PEERS else dropout_probabilities(counts, depth))


# ---- scores ----------------------------------------------------------------------------------------------------
def calibration(p: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Expected calibration error, and the largest error of a bin."""
    bins = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    size = np.bincount(bins, minlength=N_BINS)
    gap = np.abs(np.bincount(bins, p, N_BINS) - np.bincount(bins, truth, N_BINS))
    large = size >= 1000
    return gap.sum() / len(p), float((gap[large] / size[large]).max())


def auc_within_genes(score: np.ndarray, truth: np.ndarray, zero: np.ndarray) -> float:
    """Mean over genes of the AUC among their zeros."""
    found = []
    for g in np.flatnonzero(((truth & zero).sum(0) >= 20) & ((~truth & zero).sum(0) >= 20)):
        found.append(roc_auc_score(truth[zero[:, g], g], score[zero[:, g], g]))
    return float(np.mean(found))


def thinned(data: str, method: str, seed: int) -> list[dict]:
    """A row for every depth."""
    counts, rows = read(data), []
    judged = np.sort(np.random.default_rng(seed).permutation(counts.shape[0])[:N_JUDGED])
    for depth in DEPTHS:
        part, rest = thin(counts, 1 / depth, seed)
        zero, truth = (part[judged].toarray() == 0), (rest[judged].toarray() > 0)
        score = score_of(method, part, depth)[judged]
        row = {"depth": depth, "share": truth[zero].mean(), **_aucs(score, truth, zero), **harness.cost()}
        if method not in PEERS:  # theirs are no probabilities
            row["ece"], row["worst"] = calibration(score[zero], truth[zero])
        rows.append(row)
    return rows


def _aucs(score, truth, zero) -> dict[str, float]:
    return {"auc": roc_auc_score(truth[zero], score[zero]), "auc_gene": auc_within_genes(score, truth, zero)}


def structural(data: str, method: str, seed: int) -> dict:
    """The simulator; `auc_deeper` and `ece` ask for what a tenfold draw of the rate shows."""
    import aeverse as ae

    adata = ae.datasets.simulate_counts(2000, 1000, random_state=seed)
    genes = np.asarray(adata.X.sum(0)).ravel() > 0
    counts, rate = adata.X[:, genes], adata.layers["rate"][:, genes]
    truth, deeper = rate > 0, np.random.default_rng(seed).poisson(9 * rate) > 0
    zero = counts.toarray() == 0
    score = score_of(method, counts, 10)
    row = {"share": truth[zero].mean(), **_aucs(score, truth, zero)}
    row["auc_deeper"] = roc_auc_score(deeper[zero], score[zero])
    return row if method in PEERS else {**row, "ece": calibration(score[zero], deeper[zero])[0]}


def intervals(data: str, method: str, seed: int) -> list[dict]:
    """A row for every bin of the predicted mean."""
    from anndata import AnnData

    import aeverse as ae

    rng, counts, rows = np.random.default_rng(seed), read(data), []
    part, rest = thin(counts, 0.9, seed)
    judged = np.sort(rng.permutation(counts.shape[0])[:N_JUDGED])
    adata = AnnData(part.copy())
    ae.tl.denoise(adata, uncertainty=True)
    mean, sd = (adata.layers[name][judged].astype(np.float64) for name in ("denoised", "denoised_sd"))
    x = rest[judged].toarray()
    for low, high in itertools.pairwise(MEANS):
        entries = np.flatnonzero(((mean / 9 > low) & (mean / 9 <= high)).ravel())
        if len(entries) < 1000:
            continue
        entries = rng.choice(entries, min(len(entries), 200_000), replace=False)
        m, s, count = (a.ravel()[entries] for a in (mean, sd, x))
        shape = (m / s) ** 2
        p = shape / (shape + m / 9)
        at_random = rng.random(len(entries))
        above, below = nbinom.cdf(count, shape, p), nbinom.cdf(count - 1, shape, p)
        u = below + at_random * (above - below)
        u_poisson = poisson.cdf(count - 1, m / 9) + at_random * poisson.pmf(count, m / 9)
        row = {
            "means": f"{low:g} to {high:g}", "entries": len(entries),
            "randomized": np.mean((u > 0.05) & (u < 0.95)),
            "plain": np.mean((above >= 0.05) & (below < 0.95)),
            "too_low": np.mean(u <= 0.05), "too_high": np.mean(u >= 0.95),
            "without_sd": np.mean((u_poisson > 0.05) & (u_poisson < 0.95)),
        }  # fmt: skip
        rows.append(row)
    return rows


QUICK = ["simulated"], ["gene means", "kNN smoothing"]
ONCE = {"applies": lambda data, method, seed: method != "scVI" or seed == 0}
CASES = [
    harness.Cases("dropouts_thinned", DATA_SETS, METHODS, thinned, **ONCE),
    harness.Cases("dropouts_intervals", DATA_SETS, {"aeverse": None}, intervals),
    harness.Cases("dropouts_structural", ["simulated"], METHODS, structural, quick=QUICK, **ONCE),
]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the splits."""
    lines = []
    for name, table in tables.items():
        groups = table.groupby([c for c in ("data", "depth", "means", "method") if c in table], sort=False)
        mean = groups.mean(numeric_only=True).drop(columns=["seed", "seconds", "memory_mb"], errors="ignore")
        mean.insert(0, "seeds", groups.size())
        lines += [f"## {name.removeprefix('dropouts_')}\n", *markdown(mean.reset_index()), ""]
    return lines


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
