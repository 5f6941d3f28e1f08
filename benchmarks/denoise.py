"""Denoising: aeverse beside its peers, by held-out molecules.

    python benchmarks/denoise.py --data pbmc3k mouse_bladder celseq2_5cl --seeds 0 1 2 --methods aeverse pca magic

A tenth of the molecules of each entry is held out; a method sees the other nine tenths. Each method runs in a process
of its own, one after another, with the same number of threads (--threads). Printed, and written to
benchmarks/results/denoise.csv and denoise.md:

D2         Poisson deviance of the held-out molecules explained beyond library size x gene mean; higher is better
mse_pred   squared error on log1p(counts per 10,000), of its expectation under Poisson(mean); lower is better
ari        agreement of Leiden clusters (30 PCs of the log of the denoised matrix) with the labels, where there are any
seconds    wall time from the counts to the denoised matrix, imports not counted
memory     peak of the process, MB
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
LABELS = {"mouse_bladder": "label", "celseq2_5cl": "label"}


# ---- methods: counts (CSR) to a denoised matrix ------------------------------------------------------------------
def gene_means(counts):
    """Library size x gene mean."""
    return np.asarray(counts.sum(1)) * np.asarray(counts.sum(0)) / counts.sum()


def aeverse(counts):
    """The default call."""
    import aeverse as ae

    adata = _adata(counts)
    ae.tl.denoise(adata)
    return adata.layers["denoised"]


def aeverse_one(counts):
    """One member instead of an ensemble."""
    import aeverse as ae

    adata = _adata(counts)
    ae.tl.denoise(adata, n_models=1)
    return adata.layers["denoised"]


def aeverse_prior(counts):
    """The decoder's mean instead of the posterior mean."""
    import aeverse as ae

    model = ae.models.Autoencoder().fit(_adata(counts))
    return model.decode(model.encode(_adata(counts)), library=np.asarray(counts.sum(1)).ravel())


def pca(counts, n_comps=30):
    """Reconstruction of log-normalized counts (scanpy's normalize_total and log1p) from 30 components, back to counts."""
    from sklearn.utils.extmath import randomized_svd

    library = np.maximum(np.asarray(counts.sum(1), np.float32), 1)
    x = np.log1p(counts.toarray() / library * np.median(library))
    mean = x.mean(0)
    u, s, v = randomized_svd(x - mean, n_comps, random_state=0)
    return np.maximum(np.expm1((u * s) @ v + mean), 0) * library / np.median(library)


def knn_smoothing(counts, k=15):
    """Sums over the 15 nearest cells on 30 components (as Wagner et al., 2018, one round)."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.utils.extmath import randomized_svd

    root, _ = _root(counts)
    u, s, _ = randomized_svd(root - root.mean(0), 30, random_state=0)
    graph = NearestNeighbors(n_neighbors=k).fit(u * s).kneighbors_graph(u * s)
    return (graph @ counts).toarray()


def magic(counts):
    """MAGIC with its recommended settings: library-size normalized, square root, t='auto'... and back."""
    import magic as magic_impute

    root, library = _root(counts)
    operator = magic_impute.MAGIC(random_state=0, verbose=0, n_jobs=1)
    return np.maximum(operator.fit_transform(root, genes="all_genes"), 0) ** 2 * library


def alra(counts):
    """ALRA (Linderman et al., 2022): low rank of log-normalized values, thresholded and rescaled per gene; back to counts."""
    from sklearn.utils.extmath import randomized_svd

    library = np.maximum(np.asarray(counts.sum(1)), 1)
    x = np.log1p(counts.toarray() / library * 1e4)
    _, s, _ = randomized_svd(x, 100, random_state=0)
    gaps = -np.diff(s)
    noise = gaps[79:]
    k = int(np.flatnonzero((gaps - noise.mean()) / noise.std() > 6).max()) + 1
    u, s, v = randomized_svd(x, k, random_state=0)
    low = (u * s) @ v
    low[low <= np.abs(low.min(0))] = 0
    for g in range(x.shape[1]):
        here, there = low[:, g] > 0, x[:, g] > 0
        if here.sum() > 1 and there.sum() > 1 and low[here, g].std() > 0:
            scaled = (low[here, g] - low[here, g].mean()) / low[here, g].std() * x[there, g].std() + x[there, g].mean()
            low[here, g] = np.maximum(scaled, 0)
    low[(low == 0) & (x > 0)] = x[(low == 0) & (x > 0)]
    return np.expm1(low) * library / 1e4


def cellmapper(counts):
    """CellMapper as on Open Problems: three steps along UMAP's kernel over the components of highly variable genes."""
    import scanpy as sc
    from cellmapper import CellMapper

    adata = _adata(counts)
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata)
    sc.pp.pca(adata)
    mapper = CellMapper(adata)
    mapper.compute_neighbors(use_rep="X_pca")
    mapper.compute_mapping_matrix(kernel_method="umap")
    mapper.map_layers(key="counts", t=3)
    smoothed = mapper.query_imputed.X
    return smoothed.toarray() if sp.issparse(smoothed) else np.asarray(smoothed)


def _scvi(counts, **train):
    import scvi

    scvi.settings.seed = 0
    adata = _adata(counts)
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(accelerator="cpu", enable_progress_bar=False, **train)
    return model.get_normalized_expression(library_size="latent", return_numpy=True)


def scvi_default(counts):
    """scVI, default number of epochs."""
    return _scvi(counts)


def scvi_early_stopping(counts):
    """scVI with early stopping."""
    return _scvi(counts, early_stopping=True)


METHODS = {
    f.__name__: f
    for f in (
        gene_means, aeverse, aeverse_one, aeverse_prior, pca, knn_smoothing, alra, magic, cellmapper, scvi_early_stopping,
        scvi_default,
    )
}  # fmt: skip


def _adata(counts):
    from anndata import AnnData

    return AnnData(counts.copy())


def _root(counts):
    library = np.maximum(np.asarray(counts.sum(1), np.float32), 1)
    return np.sqrt(counts.toarray() / library), library


# ---- one run -----------------------------------------------------------------------------------------------------
def run(data: str, seed: int, method: str, threads: int) -> dict:
    """Score one method on one split."""
    import anndata as ad
    import torch

    torch.set_num_threads(threads)
    sys.path.insert(0, str(DATA.parent))
    from scoring import deviance_explained, mse_pred, split_molecules

    adata = ad.read_h5ad(DATA / f"{data}.h5ad")
    train, test, _ = split_molecules(adata.X, seed)
    METHODS[method](train[:64]) if method.startswith("aeverse") else None  # load what loads when first used
    start = time.perf_counter()
    denoised = np.asarray(METHODS[method](train), np.float32)
    seconds = time.perf_counter() - start
    return {
        "data": data,
        "seed": seed,
        "method": method,
        "D2": deviance_explained(denoised, train, test),
        "mse_pred": mse_pred(denoised, train, test),
        "ari": _ari(denoised, adata.obs[LABELS[data]]) if data in LABELS else None,
        "seconds": seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _ari(denoised, labels) -> float:
    import scanpy as sc
    from anndata import AnnData
    from sklearn.metrics import adjusted_rand_score

    adata = AnnData(np.maximum(denoised, 0))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=30, random_state=0)
    sc.pp.neighbors(adata, random_state=0)
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, random_state=0)
    return float(adjusted_rand_score(labels.astype(str), adata.obs["leiden"]))


def main() -> None:
    """Run everything asked for, one process each; add to the table; draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["pbmc3k", "mouse_bladder", "celseq2_5cl"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    if args.one:
        print(json.dumps(run(args.data[0], args.seeds[0], args.methods[0], args.threads)))
        return
    from tqdm import tqdm

    jobs = [(d, s, m) for d in args.data for s in args.seeds for m in args.methods]
    for data, seed, method in tqdm(jobs):
        command = [sys.executable, __file__, "--one", "--data", data, "--seeds", str(seed), "--methods", method]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [*command, "--threads", str(args.threads)], capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            tqdm.write(f"{data} {seed} {method} failed: {done.stderr.strip().splitlines()[-1:]}")
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        tqdm.write("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
        report(row)


def report(row: dict) -> None:
    """Put a row into the table on disk (in place of an older one) and write the summary and its picture."""
    import pandas as pd
    from tables import markdown

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "denoise.csv"
    table = pd.DataFrame([row])
    if path.exists():
        old = pd.read_csv(path)
        same = (old[["data", "seed", "method"]] == table.loc[0, ["data", "seed", "method"]].to_list()).all(axis=1)
        table = pd.concat([old[~same], table], ignore_index=True)
    table.sort_values(["data", "method", "seed"]).to_csv(path, index=False, float_format="%.5g")
    mean = table.groupby(["data", "method"]).mean(numeric_only=True).drop(columns="seed")
    mean.insert(0, "splits", table.groupby(["data", "method"]).size())
    mean = mean.sort_values(["data", "D2"], ascending=[True, False]).reset_index()
    (RESULTS / "denoise.md").write_text(
        "`python benchmarks/denoise.py --threads 1`, see there; the machine was shared, so compare times only roughly.\n\n"
        + "\n".join(markdown(mean, decimals=4))
        + "\n"
    )
    scores = mean[["data", "method", "D2"]].rename(columns={"D2": "deviance_explained"})
    scores.round(4).to_csv(ROOT / "src" / "aeverse" / "_denoising_scores.csv", index=False)  # for the report
    _draw(mean)


def _draw(mean) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(mean["data"]))
    fig, axes = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 3.6), layout="constrained", squeeze=False)
    for ax, data in zip(axes.flat, sets, strict=True):
        part = mean[mean["data"] == data].sort_values("D2")
        colors = ["#d95f02" if m.startswith("aeverse") else "#7f7f7f" for m in part["method"]]
        ax.barh(part["method"], part["D2"].clip(lower=-0.05), color=colors)
        ax.axvline(0, color="black", lw=0.8)
        ax.set(title=data, xlabel="D2 (cut at -0.05)", xticks=[-0.05, 0, 0.05, 0.1])
    fig.savefig(RESULTS / "denoise.png", dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
