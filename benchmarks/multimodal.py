"""Single-cell multi-omics: one code from all modalities, beside other methods behind the same call.

    python benchmarks/multimodal.py --data cite_teaseq snare_cortex mosaic_pbmc15k --methods ae concat_pca --seeds 0

Methods run one after another in one process with the same number of threads. Printed, and written to
benchmarks/results/multimodal.csv and multimodal.md (after every run, so that an interrupted one leaves what it has):

biology   mean of NMI, ARI, label silhouette, cLISI and rare-type silhouette (scib-metrics) on the published labels
seconds   wall time of the call

and, with --half, for methods that take cells without a modality:

half      the biology score when half of the cells lack one of the modalities, drawn at random
foscttm   share of cells nearer to a cell's code from one modality than its own code from the other; 0.5 is chance

With --predict, on mosaic_pbmc15k (RNA to protein, a fifth of the cells without protein): `spearman`, mean over the
proteins, and `rmse`, both on log1p counts, for tl.predict_modality and for the 50 nearest cells in 30 components of RNA.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import mudata as md
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from scipy.stats import spearmanr
from sklearn.neighbors import KNeighborsRegressor

import aeverse as ae

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
DATA_SETS = ["cite_teaseq", "snare_cortex", "mosaic_pbmc15k"]
METHODS = ["ae", "concat_pca", "wnn", "mofa", "totalvi", "multivi"]


def embed(mdata, method: str, seed: int) -> np.ndarray:
    """The code of the default call."""
    return ae.tl.multimodal_embed(mdata, method=method, random_state=seed, copy=True).obsm["X_ae"]


def rna_pca(mdata, seed: int) -> np.ndarray:
    """The best single modality: 30 components of RNA, by the same preparation as concat_pca."""
    return embed(md.MuData({"rna": mdata["rna"]}), "concat_pca", seed)


def half_lost(mdata, seed: int):
    """Half of the cells lose one of their modalities; rows of NaN would do as well."""
    rng = np.random.default_rng(100 + seed)
    lost, which = rng.random(mdata.n_obs) < 0.5, rng.integers(0, len(mdata.mod), mdata.n_obs)
    mods = {}
    for i, (m, adata) in enumerate(mdata.mod.items()):
        gone = mdata.obs_names[lost & (which == i)]
        mods[m] = adata[~adata.obs_names.isin(gone)].copy()
    return md.MuData(mods)


def foscttm(a: np.ndarray, b: np.ndarray) -> float:
    """Share of samples closer than the true match, mean over both directions."""
    distance = _square(a) + _square(b).T - 2 * a @ b.T
    own = np.diag(distance)
    return float(((distance < own[:, None]).mean() + (distance < own[None]).mean()) / 2)


def _square(x: np.ndarray) -> np.ndarray:
    return (x**2).sum(1, keepdims=True)


def predictions(mdata, seed: int) -> list[dict]:
    """RNA to protein on a fifth of the cells that have both."""
    rng = np.random.default_rng(seed)
    protein = mdata["prot"]
    hidden = rng.random(protein.n_obs) < 0.2
    truth = np.log1p(protein.X.toarray())
    partial = md.MuData({"rna": mdata["rna"].copy(), "prot": protein[~hidden].copy()})
    rows = []
    for method in ("ae", "knn"):
        start = time.perf_counter()
        if method == "ae":
            ae.tl.predict_modality(partial, "prot", random_state=seed)
            found = partial.obsm["prot_predicted"].loc[protein.obs_names[hidden]].to_numpy()
        else:
            rna = mdata["rna"].copy()
            sc.pp.normalize_total(rna)
            sc.pp.log1p(rna)
            sc.pp.pca(rna, n_comps=30, random_state=seed)
            z = rna.obsm["X_pca"][rna.obs_names.get_indexer(protein.obs_names)]
            found = KNeighborsRegressor(50, weights="distance").fit(z[~hidden], truth[~hidden]).predict(z[hidden])
        rows.append(
            {
                "data": "mosaic_pbmc15k, RNA to protein",
                "method": method,
                "seed": seed,
                "spearman": float(
                    np.mean([spearmanr(found[:, j], truth[hidden, j])[0] for j in range(truth.shape[1])])
                ),
                "rmse": float(np.sqrt(((found - truth[hidden]) ** 2).mean())),
                "seconds": time.perf_counter() - start,
            }
        )
    return rows


def measure(mdata, method: str, seed: int, half: bool) -> dict[str, float]:
    """All scores of one method on one data set."""
    from scoring import biology_score

    labels = mdata.obs["cell_type"].astype(str)
    start = time.perf_counter()
    code = rna_pca(mdata, seed) if method == "rna_pca" else embed(mdata, method, seed)
    row = {"seconds": time.perf_counter() - start}
    score, parts = biology_score(code, labels.to_numpy())
    row |= {"biology": score, **parts}
    if half and method in ("ae", "concat_pca", "mofa"):
        partial = half_lost(mdata, seed)
        row["half"] = biology_score(embed(partial, method, seed), labels.reindex(partial.obs_names).to_numpy())[0]
    if half and method == "ae":
        model = ae.models.MultimodalAutoencoder(random_state=seed).fit(mdata)
        first, second = (model.encode(mdata, modalities=[m]) for m in list(mdata.mod)[:2])
        paired = np.all([mdata.obs_names.isin(a.obs_names) for a in mdata.mod.values()], axis=0)
        chosen = np.random.default_rng(0).permutation(np.flatnonzero(paired))[:1500]
        row["foscttm"] = foscttm(first[chosen], second[chosen])
    return row


def report(rows: list[dict], command: str) -> None:
    """Write both tables: every run, and means over seeds."""
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "multimodal.csv", index=False, float_format="%.4g")
    mean = table.groupby(["data", "method"], sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    lines = [f"`{command}`", "", "| " + " | ".join(mean.columns) + " |", "|" + "---|" * len(mean.columns)]
    for values in mean.itertuples(index=False):
        lines.append(
            "| " + " | ".join("" if v != v else f"{v:.3f}" if isinstance(v, float) else str(v) for v in values) + " |"
        )
    (RESULTS / "multimodal.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run everything asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=DATA_SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=["ae", "rna_pca", "concat_pca"], choices=["rna_pca", *METHODS])
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--predict", action="store_true")
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    sys.path.insert(0, str(DATA.parent))
    if not hasattr(sp.csr_array, "getnnz"):  # scanpy 1.11 asks for it, newer versions of scipy no longer have it
        sp.csr_array.getnnz = sp.csr_array._getnnz
    warnings.simplefilter("ignore")  # of mudata, scanpy and scib-metrics
    command = "python benchmarks/multimodal.py " + " ".join(sys.argv[1:])
    rows = []
    for data in args.data:
        mdata = md.read_h5mu(DATA / f"{data}.h5mu")
        for seed in args.seeds:
            for method in args.methods:
                rows.append({"data": data, "method": method, "seed": seed, **measure(mdata, method, seed, args.half)})
                print(rows[-1], flush=True)
                report(rows, command)
    if args.predict:
        for seed in args.seeds:
            rows += predictions(md.read_h5mu(DATA / "mosaic_pbmc15k.h5mu"), seed)
            print(rows[-2:], flush=True)
            report(rows, command)


if __name__ == "__main__":
    main()
