"""Single-cell multi-omics: one code from all modalities, beside other methods behind the same call.

    python benchmarks/multimodal.py --methods ae pca_rna concat_pca wnn mofa --seeds 0
    python benchmarks/multimodal.py --task half --methods ae concat_pca
    python benchmarks/multimodal.py --task predict --methods ae knn totalvi --cells 3000
    python benchmarks/multimodal.py --task foreground --data cite_teaseq --methods ae totalvi counts

Each run has a process of its own, one after another, with the same number of threads. SparseRows go to
benchmarks/results/multimodal.csv as they are measured, in place of older ones of the same run, so that a method that
takes an hour need not be run again; multimodal.md and multimodal.png are made from all of them.

embed        scanpy's default call on the embedding: ari and nmi of its clusters with the published labels, their number,
             purity (balanced accuracy of the labels of a cell's 15 nearest cells, five folds); mixing: share of the 30
             nearest cells that come from another batch, over what chance gives. Users of WNN cluster its graph, so
             wnn_graph does: muon's, of 30 components of each modality, at the same default
half         the same when half of the cells lack one modality, whichever (lost = any), or one in particular; foscttm of
             the whole data: share of cells nearer to a cell's embedding from one modality than its own from the other
predict      RNA to protein for a fifth of the cells that have both: Spearman, mean over proteins, and rmse of log1p
foreground   protein counts: area under the ROC curve for the cell types known to carry a protein, mean over proteins;
             agreement: share of the (cell, protein) pairs on whose side of 0.5 totalVI agrees
seconds      wall time of the call;  cpu_seconds: processor time, which other work on the machine changes little;
memory_mb    peak of the process beyond what it held before the call
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

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
DATA_SETS = ["cite_teaseq", "snare_cortex", "mosaic_pbmc15k"]
METHODS = ["ae", "ae_batch", "pca_rna", "concat_pca", "wnn", "wnn_graph", "mofa", "totalvi", "multivi", "knn", "counts"]
CARRIERS = {  # of the cell types of cite_teaseq; what a type carries only in part is left out
    "CD3": r"^T\.",
    "CD4": r"^T\.CD4|^Mono",
    "CD8a": r"^T\.CD8",
    "CD19": r"^B\.",
    "CD14": r"^Mono\.CD14",
    "CD16": r"^Mono\.CD16|^NK",
    "CD56": r"^NK",
}


# ---- tasks -------------------------------------------------------------------------------------------------------
def embed(mdata, method: str, seed: int) -> np.ndarray:
    """The code of the default call; ``pca_rna``: 30 components of RNA, ``ae_batch``: the batches are told."""
    import mudata as md

    import aeverse as ae

    if method == "pca_rna":
        mdata, method = md.MuData({"rna": mdata["rna"]}), "concat_pca"
    more = {"batch_key": "batch"} if method == "ae_batch" else {}
    ae.tl.multimodal_embed(mdata, method=method.removesuffix("_batch"), random_state=seed, progress=False, **more)
    return mdata.obsm["X_ae"]


def run_embed(mdata, method: str, seed: int, args) -> dict:
    """The default clusters, purity and mixing of all cells."""
    from scores import default_scores, graph_scores

    labels = mdata.obs["cell_type"].astype(str)
    if method == "wnn_graph":
        graph, cost = measured(lambda: wnn_graph(mdata, seed))
        return {**graph_scores(graph, labels.to_numpy()), **cost}
    embedding, cost = measured(lambda: embed(mdata, method, seed))
    if method == "pca_rna":
        labels = labels.loc[mdata["rna"].obs_names]
    if "batch" in mdata.obs and method != "pca_rna":
        cost["mixing"] = mixing(embedding, mdata.obs["batch"].astype(str).to_numpy())
    return {**default_scores(embedding, labels.to_numpy()), **cost}


def wnn_graph(mdata, seed: int):
    """Muon's weighted nearest neighbors, as in its tutorial: an AnnData whose graph they are."""
    import anndata as ad
    import mudata as md
    import muon as mu
    import scanpy as sc

    from aeverse import _slots, models
    from aeverse.methods._prepare import Components, Preparation

    data = _slots.read_modalities(mdata)
    kinds, mods = models.kinds_of(data, "auto"), {}
    for m, d in data.items():
        components = Components(Preparation(d, kinds[m])(d), kinds[m], 30, seed)
        names = mdata.obs_names[d.rows]
        mods[m] = ad.AnnData(np.zeros((len(names), 1), np.float32), obsm={"X_pca": components.scores})
        mods[m].obs_names, mods[m].var_names = names, [m]
        sc.pp.neighbors(mods[m], use_rep="X_pca", random_state=seed)
    joint = md.MuData(mods)
    mu.pp.neighbors(joint, random_state=seed)
    graph = ad.AnnData(np.zeros((joint.n_obs, 1), np.float32), obsp={k: joint.obsp[k] for k in joint.obsp})
    graph.uns["neighbors"], graph.obs_names = joint.uns["neighbors"], joint.obs_names
    return graph[mdata.obs_names].copy()


def run_half(mdata, method: str, seed: int, args) -> list[dict]:
    """The same when half of the cells lack a modality; how near a cell's embeddings from two modalities are."""
    from scores import default_scores

    import aeverse as ae

    labels, rows = mdata.obs["cell_type"].astype(str), []
    for lost in ("any", *mdata.mod):
        partial = half_lost(mdata, seed, lost)
        embedding, cost = measured(lambda: embed(partial, method, seed))  # noqa: B023 (called at once)
        own = labels.reindex(partial.obs_names).to_numpy()
        rows.append({"lost": lost, **default_scores(embedding, own), **cost})
    if method == "ae":
        model = ae.models.MultimodalAutoencoder(random_state=seed).fit(mdata, progress=False)
        first, second = (model.encode(mdata, modalities=[m]) for m in list(mdata.mod)[:2])
        paired = np.all([mdata.obs_names.isin(a.obs_names) for a in mdata.mod.values()], axis=0)
        chosen = np.random.default_rng(0).permutation(np.flatnonzero(paired))[:1500]
        rows.append({"lost": "none", "foscttm": foscttm(first[chosen], second[chosen])})
    return rows


def run_predict(mdata, method: str, seed: int, args) -> dict:
    """RNA to protein."""
    import mudata as md
    from scipy.stats import spearmanr

    rng = np.random.default_rng(seed)
    protein = mdata["prot"]
    rna = mdata["rna"]
    if args.cells:
        protein = protein[np.sort(rng.permutation(protein.n_obs)[: args.cells])].copy()
        rna = rna[protein.obs_names].copy()
    hidden = rng.random(protein.n_obs) < 0.2
    truth = np.log1p(protein.X.toarray())
    partial = md.MuData({"rna": rna.copy(), "prot": protein[~hidden].copy()})
    found, cost = measured(lambda: PREDICTORS[method](partial, truth, hidden, protein.obs_names, seed))
    spearman = [spearmanr(found[:, j], truth[hidden, j])[0] for j in range(truth.shape[1])]
    rmse = float(np.sqrt(((found - truth[hidden]) ** 2).mean()))
    return {"n_cells": protein.n_obs, "spearman": float(np.mean(spearman)), "rmse": rmse, **cost}


def predict_ae(partial, truth, hidden, names, seed: int) -> np.ndarray:
    import aeverse as ae

    ae.tl.predict_modality(partial, "prot", random_state=seed, progress=False)
    return partial.obsm["predicted_prot"].loc[names[hidden]].to_numpy()


def predict_knn(partial, truth, hidden, names, seed: int) -> np.ndarray:
    """The 50 nearest cells in 30 components of RNA."""
    import scanpy as sc
    from sklearn.neighbors import KNeighborsRegressor

    rna = partial["rna"].copy()
    sc.pp.normalize_total(rna)
    sc.pp.log1p(rna)
    sc.pp.pca(rna, n_comps=30, random_state=seed)
    z = rna.obsm["X_pca"][rna.obs_names.get_indexer(names)]
    return KNeighborsRegressor(50, weights="distance").fit(z[~hidden], truth[~hidden]).predict(z[hidden])


def predict_totalvi(partial, truth, hidden, names, seed: int) -> np.ndarray:
    """Counts with background, as if measured with the cells that have protein (its tutorial on imputing proteins)."""
    model = totalvi_model(partial, seed)
    _, protein = model.get_normalized_expression(
        n_samples=25,
        return_numpy=True,
        transform_batch=[b for b in model.adata.obs["batch"].cat.categories if "protein" in b],
        include_protein_background=True,
    )
    return np.log1p(protein[partial.obs_names.get_indexer(names[hidden])])


PREDICTORS = {"ae": predict_ae, "knn": predict_knn, "totalvi": predict_totalvi}


def run_foreground(mdata, method: str, seed: int, args) -> dict:
    """Probabilities of foreground against the types that are known to carry a protein."""
    from sklearn.metrics import roc_auc_score

    import aeverse as ae

    def found() -> np.ndarray:
        if method == "totalvi":
            return np.asarray(totalvi_model(mdata, seed).get_protein_foreground_probability(return_numpy=True))
        if method == "counts":
            return mdata["prot"].X.toarray()
        ae.tl.protein_foreground(mdata)
        return mdata["prot"].layers["foreground_prob"]

    probability, cost = measured(found)
    labels = mdata.obs["cell_type"].astype(str).reindex(mdata["prot"].obs_names)
    names = list(mdata["prot"].var_names)
    area = {p: roc_auc_score(labels.str.contains(t), probability[:, names.index(p)]) for p, t in CARRIERS.items()}
    kept = RESULTS / "multimodal_foreground.npy"  # not committed: for the agreement of the next run
    if method == "totalvi":
        np.save(kept, probability)
    elif method == "ae" and kept.exists():
        cost["agreement"] = float(((np.load(kept) > 0.5) == (probability > 0.5)).mean())
    return {"auc": float(np.mean(list(area.values()))), **{f"auc_{p}": v for p, v in area.items()}, **cost}


def totalvi_model(mdata, seed: int):
    """The trained scvi-tools model behind ``method="totalvi"``."""
    from aeverse import _slots, models
    from aeverse.methods._totalvi import train_totalvi

    data = _slots.read_modalities(mdata)
    kinds = models.kinds_of(data, "auto")
    return train_totalvi(data, kinds, n_obs=mdata.n_obs, batches=None, n_latent=None, random_state=seed, progress=False)


TASKS = {"embed": run_embed, "half": run_half, "predict": run_predict, "foreground": run_foreground}


# ---- helpers -----------------------------------------------------------------------------------------------------
def measured(call) -> tuple:
    """What a call returns, and what it costs."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    result = call()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return result, {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024,
    }


def half_lost(mdata, seed: int, lost: str = "any"):
    """Half of the cells lose one of their modalities, whichever or the one named; rows of NaN would do as well."""
    import mudata as md

    rng = np.random.default_rng(100 + seed)
    loses, which = rng.random(mdata.n_obs) < 0.5, rng.integers(0, len(mdata.mod), mdata.n_obs)
    mods = {}
    for i, (m, adata) in enumerate(mdata.mod.items()):
        gone = mdata.obs_names[loses & (which == i if lost == "any" else lost == m)]
        mods[m] = adata[~adata.obs_names.isin(gone)].copy()
    return md.MuData(mods)


def mixing(code: np.ndarray, batches: np.ndarray) -> float:
    """Share of the 30 nearest cells that come from another batch, over the share expected by chance."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=31).fit(code).kneighbors(code)[1][:, 1:]
    _, ids, sizes = np.unique(batches, return_inverse=True, return_counts=True)
    return float(np.mean((ids[near] != ids[:, None]).mean(1) / (1 - sizes[ids] / len(ids))))


def foscttm(a: np.ndarray, b: np.ndarray) -> float:
    """Share of samples closer than the true match, mean over both directions; 0.5 is chance."""
    distance = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    own = np.diag(distance)
    return float(((distance < own[:, None]).mean() + (distance < own[None]).mean()) / 2)


def run(task: str, data: str, method: str, seed: int, args) -> list[dict]:
    """One method on one data set, in this process."""
    import warnings

    import mudata as md
    import scipy.sparse as sp
    import torch

    import aeverse.models  # noqa: F401 (loading it is no part of the time)

    if not hasattr(sp.csr_array, "getnnz"):  # scanpy 1.11 asks for it, newer versions of scipy no longer have it
        sp.csr_array.getnnz = sp.csr_array._getnnz
    warnings.simplefilter("ignore")  # of mudata, scanpy and scib-metrics
    torch.set_num_threads(args.threads)
    rows = TASKS[task](md.read_h5mu(DATA / f"{data}.h5mu"), method, seed, args)
    named = {"task": task, "data": data, "method": method, "seed": seed, "lost": ""}
    return [{**named, **row} for row in (rows if isinstance(rows, list) else [rows])]


# ---- tables ------------------------------------------------------------------------------------------------------
RUN = ["task", "data", "method", "seed", "lost"]
COLUMNS = {
    "embed": [
        "ari", "nmi", "n_clusters", "purity", "mixing", "seconds", "cpu_seconds", "memory_mb",
    ],
    "half": ["lost", "ari", "nmi", "n_clusters", "purity", "foscttm", "seconds", "cpu_seconds"],
    "predict": ["n_cells", "spearman", "rmse", "seconds", "cpu_seconds", "memory_mb"],
    "foreground": ["auc", *(f"auc_{p}" for p in CARRIERS), "agreement", "seconds"],
}  # fmt: skip


def report(rows: list[dict]) -> None:
    """Put rows into the table on disk (in place of older ones) and write the summary and its picture."""
    import pandas as pd
    from tables import markdown

    RESULTS.mkdir(exist_ok=True)
    path, table = RESULTS / "multimodal.csv", pd.DataFrame(rows)
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"lost": ""})
        same = old[RUN].astype(str).apply(tuple, axis=1).isin(table[RUN].astype(str).apply(tuple, axis=1))
        table = pd.concat([old[~same], table], ignore_index=True)
    table = table.sort_values(RUN)
    table.to_csv(path, index=False, float_format="%.5g")
    text = ["Made by `python benchmarks/multimodal.py`, see there. The machine was shared: compare times roughly."]
    for task, columns in COLUMNS.items():
        part = table[table["task"] == task]
        columns = [c for c in columns if c in part and part[c].notna().any()]
        keys = ["data", "method", *(["lost"] if "lost" in columns else [])]
        if part.empty:
            continue
        grouped = part.groupby(keys, sort=False)
        mean = grouped[[c for c in columns if c != "lost"]].mean()
        mean.insert(0, "seeds", grouped.size())
        mean = mean.reset_index()
        text += [f"\n## {task}\n", *markdown(mean)]
        if task == "embed":
            draw(mean)
    (RESULTS / "multimodal.md").write_text("\n".join(text) + "\n")


def draw(mean) -> None:
    """ARI of the default clusters against wall time, a panel a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(mean["data"]))
    fig, axes = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 3.6), layout="constrained", squeeze=False)
    for ax, data in zip(axes.flat, sets, strict=True):
        part = mean[mean["data"] == data]
        ax.scatter(
            part["seconds"], part["ari"], c=["#d95f02" if m.startswith("ae") else "#7f7f7f" for m in part["method"]]
        )
        for row in part.itertuples():
            place = (4, 4 if row.method == "ae_batch" else -11)  # where it is in nobody's way
            ax.annotate(row.method, (row.seconds, row.ari), xytext=place, textcoords="offset points", fontsize=8)
        ax.set(title=data, xscale="log", xlabel="seconds", ylabel="ARI of scanpy's default clusters")
        ax.margins(0.2)
    fig.savefig(RESULTS / "multimodal.png", dpi=110)
    plt.close(fig)


def main() -> None:
    """Run everything asked for, one process each; add to the table; draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="embed", choices=list(TASKS))
    parser.add_argument("--data", nargs="+", default=None, help="default: all, or those that the task is about")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=["ae", "pca_rna", "concat_pca"], choices=METHODS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", type=int, default=0, help="predict: a random part of the cells with protein; 0: all")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"needs the data sets in {DATA}")
    own = {"predict": ["mosaic_pbmc15k"], "foreground": ["cite_teaseq"], "half": DATA_SETS[:2]}
    data_sets = args.data or own.get(args.task, DATA_SETS)
    if args.one:
        print(json.dumps(run(args.task, data_sets[0], args.methods[0], args.seeds[0], args)))
        return
    for data, seed, method in [(d, s, m) for d in data_sets for s in args.seeds for m in args.methods]:
        command = [sys.executable, __file__, "--one", "--task", args.task, "--data", data, "--seeds", str(seed)]
        command += ["--methods", method, "--threads", str(args.threads), "--cells", str(args.cells)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "NUMBA_NUM_THREADS": str(args.threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            print(f"{args.task} {data} {method} {seed} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            continue
        rows = json.loads(done.stdout.strip().splitlines()[-1])
        for row in rows:
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)
        report(rows)


if __name__ == "__main__":
    main()
