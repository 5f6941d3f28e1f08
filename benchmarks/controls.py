"""Nothing invented: what denoising does where there is nothing to find, and how far its correlations are true.

    python benchmarks/controls.py

A table for each of three controls on celseq2_5cl (five cell lines, deep counts), for raw counts, aeverse (the default call), its decoder's
mean alone (the prior), and kNN smoothing:

shuffled       500 genes are added a second time with their counts permuted among cells of like library size, and all is
               denoised together. `cv2`: squared coefficient of variation of a gene over cells; `lines`: of its means in
               the five cell lines (medians over the genes; `lines_95`: 95th percentile). The copies should be flat.
halves         the largest cell line, denoised with the others from half of the molecules, is cut into two: at random
               (20 times), or by 2-means on principal components of the same counts. `markers`: genes that differ at a
               false discovery rate of 5 % (Welch's t-test on log1p of counts per 10,000), mean; `any`: share of cuts
               with at least one. At random there is nothing to find. `unseen` tests the molecules that were held back,
               which is valid for either cut. `told` gives the random half to aeverse as batch_key, on this line alone.
correlations   a tenth of the molecules; correlations among 400 variable genes (log1p of counts per 10,000), beside
               those of the full data: `r` and `rmse` over pairs, mean absolute correlation and its `true_size`,
               and the share of pairs `invented` (above 0.5, below 0.2 in the full data); over all cells, and around the
               means of the lines.

Written: benchmarks/results/controls_correlations.csv, ..._halves.csv, ..._shuffled.csv and controls.md.
"""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pandas as pd
import scipy.sparse as sp
from denoise import knn_smoothing
from dropouts import thin
from scipy.stats import false_discovery_control, ttest_ind
from tables import markdown

N_SHUFFLED, N_CUTS, N_TOLD, N_CORRELATED = 500, 20, 1, 400


# ---- methods ---------------------------------------------------------------------------------------------------
def aeverse(counts: sp.csr_matrix) -> np.ndarray:
    """The default call."""
    from anndata import AnnData

    import aeverse as ae

    return ae.tl.denoise(AnnData(counts.copy()), copy=True).layers["denoised"]


def aeverse_prior(counts: sp.csr_matrix) -> np.ndarray:
    """The decoder's mean instead of the posterior mean."""
    from anndata import AnnData

    import aeverse as ae

    adata = AnnData(counts.copy())
    model = ae.models.Autoencoder().fit(adata)
    return model.decode(model.encode(adata), library=np.asarray(counts.sum(1)).ravel())


def told(counts: sp.csr_matrix, half: np.ndarray) -> np.ndarray:
    """The default call, which is told the half."""
    from anndata import AnnData

    import aeverse as ae

    adata = AnnData(counts.copy())
    adata.obs["half"] = half.astype(str)
    ae.tl.denoise(adata, batch_key="half")
    return adata.layers["denoised"]


METHODS = {
    "raw": lambda counts: counts.toarray(),
    "aeverse": aeverse,
    "aeverse_prior": aeverse_prior,
    "knn_smoothing": knn_smoothing,
}


def read(data: str) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts and lines."""
    import anndata as ad

    adata = ad.read_h5ad(harness.DATA / f"{data}.h5ad")
    return adata.X, adata.obs["label"].astype(str).to_numpy()


def denoised(method: str, counts: sp.csr_matrix) -> np.ndarray:
    """By a method."""
    with harness.timed():
        return METHODS[method](counts)


def per_10k(x: np.ndarray) -> np.ndarray:
    """Every cell scaled to 10,000."""
    x = np.maximum(np.asarray(x, np.float64), 0)
    return x / np.maximum(x.sum(1, keepdims=True), 1e-9) * 1e4


# ---- controls --------------------------------------------------------------------------------------------------
def shuffled(data: str, method: str, seed: int) -> list[dict]:
    """Rows for real genes and their shuffled copies."""
    rng, rows, (counts, lines) = np.random.default_rng(seed), [], read(data)
    chosen = rng.choice(np.flatnonzero(np.asarray(counts.mean(0)).ravel() > 0.1), N_SHUFFLED, replace=False)
    copies = counts[:, chosen].toarray()
    strata = pd.qcut(np.asarray(counts.sum(1)).ravel(), 20, labels=False)
    for stratum in range(20):
        cells = np.flatnonzero(strata == stratum)
        copies[cells] = rng.permuted(copies[cells], axis=0)  # each gene on its own
    together = sp.hstack([counts, sp.csr_matrix(copies)], format="csr").astype(np.float32)
    values = per_10k(denoised(method, together))
    for genes, columns in (("real", chosen), ("shuffled", counts.shape[1] + np.arange(N_SHUFFLED))):
        x = pd.DataFrame(values[:, columns])
        mean = x.mean().to_numpy()
        of_lines, size = x.groupby(lines).mean().to_numpy(), pd.Series(lines).value_counts(sort=False).sort_index()
        between = np.average((of_lines / mean - 1) ** 2, axis=0, weights=size)
        row = {"genes": genes, "cv2": np.median(x.var().to_numpy() / mean**2), "lines": np.median(between)}
        rows.append({**row, "lines_95": np.quantile(between, 0.95)})
    return rows


def halves(data: str, method: str, seed: int) -> list[dict]:
    """A row for every way of cutting a homogeneous line into two."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    rng, (counts, lines) = np.random.default_rng(seed), read(data)
    part, rest = thin(counts, 0.5, seed)
    line = np.flatnonzero(lines == pd.Series(lines).value_counts().index[0])
    tested = np.asarray(part[line].sum(0)).ravel() >= 50
    components = PCA(10, random_state=seed).fit_transform(np.log1p(per_10k(part[line].toarray())))
    at_random = [rng.permutation(len(line)) % 2 == 0 for _ in range(N_CUTS)]
    cuts = {"random": at_random, "2-means": [KMeans(2, random_state=seed).fit_predict(components) == 0]}
    values = rest.toarray() if method == "unseen" else denoised(method, part)
    x = np.log1p(per_10k(values[line]))[:, tested]
    rows = [{"cut": cut, **_markers([(x, half) for half in found])} for cut, found in cuts.items()]
    if method == "aeverse":
        of_told = [(np.log1p(per_10k(told(part[line], half)))[:, tested], half) for half in at_random[:N_TOLD]]
        rows.append({"cut": "random, told", **_markers(of_told)})
    return rows


def _markers(cuts: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    found = []
    for x, half in cuts:
        p = ttest_ind(x[half], x[~half], equal_var=False).pvalue
        found.append((false_discovery_control(np.nan_to_num(p, nan=1)) < 0.05).sum())
    return {"tested": x.shape[1], "cuts": len(cuts), "markers": np.mean(found), "any": np.mean(np.array(found) > 0)}


def correlations(data: str, method: str, seed: int) -> list[dict]:
    """Rows for correlations over all cells and within lines."""
    counts, lines = read(data)
    part, rest = thin(counts, 0.1, seed)
    full = np.log1p(per_10k((part + rest).toarray()))
    common = np.flatnonzero(np.asarray(part.mean(0)).ravel() > 0.1)
    genes = common[np.argsort(-full[:, common].var(0))[:N_CORRELATED]]
    pairs = np.triu_indices(len(genes), 1)

    def of(x: np.ndarray, within: bool) -> np.ndarray:
        if within:
            x = x - pd.DataFrame(x).groupby(lines).transform("mean").to_numpy()
        return np.nan_to_num(np.corrcoef(x.T)[pairs])

    x, rows = np.log1p(per_10k(denoised(method, part)))[:, genes], []
    for cells, within in (("all", False), ("within lines", True)):
        found, truth = of(x, within), of(full[:, genes], within)
        row = {"cells": cells, "r": np.corrcoef(found, truth)[0, 1], "rmse": np.sqrt(np.mean((found - truth) ** 2))}
        row |= {"size": np.abs(found).mean(), "true_size": np.abs(truth).mean()}
        rows.append({**row, "invented": np.mean((np.abs(found) > 0.5) & (np.abs(truth) < 0.2))})
    return rows


QUICK = ["celseq2_5cl"], ["raw", "knn_smoothing"]
CASES = [
    harness.Cases("controls_correlations", QUICK[0], METHODS, correlations, quick=QUICK),
    harness.Cases("controls_halves", QUICK[0], {**METHODS, "unseen": None}, halves),
    harness.Cases("controls_shuffled", QUICK[0], METHODS, shuffled),
]


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """A table for each control."""
    lines, costs = [], ["seed", "seconds", "cpu_seconds", "memory_mb"]
    for name, table in tables.items():
        shown = table.drop(columns=costs, errors="ignore")
        lines += [f"## {name.removeprefix('controls_')}\n", *markdown(shown), ""]
    return lines


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
