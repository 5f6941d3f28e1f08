"""Single-cell multi-omics: one code from all modalities, beside other methods behind the same call.

    python benchmarks/multimodal.py --tables multimodal_embed --methods aeverse pca_rna concat_pca wnn mofa

A table for each question:

embed        scanpy's default call on the embedding: ari and nmi of its clusters with the published labels, their number,
             purity (balanced accuracy of the labels of a cell's 15 nearest cells, five folds); mixing: share of the 30
             nearest cells that come from another batch, over what chance gives. Users of WNN cluster its graph, so
             wnn_graph does: muon's, of 30 components of each modality, at the same default
half         the same when half of the cells lack one modality, whichever (lost = any), or one in particular; foscttm of
             the whole data: share of cells nearer to a cell's embedding from one modality than its own from the other
predict      RNA to protein for a fifth of the cells that have both: Spearman, mean over proteins, and rmse of log1p
foreground   protein counts: area under the ROC curve for the cell types known to carry a protein, mean over proteins
seconds      wall time of the call;  cpu_seconds: processor time, which other work on the machine changes little;
memory_mb    peak of the process beyond what it held before the call

Written are benchmarks/results/multimodal_embed.csv, ..._half.csv, ..._predict.csv, ..._foreground.csv, multimodal.md and
multimodal.png.
"""

from __future__ import annotations

from pathlib import Path

import harness
import numpy as np
import pandas as pd
from scores import default_scores, graph_scores
from tables import markdown

DATA_SETS = ["cite_teaseq", "snare_cortex", "mosaic_pbmc15k"]
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
    """The code of the default call; ``pca_rna``: 30 components of RNA, ``aeverse_batch``: the batches are told."""
    import mudata as md

    import aeverse as ae

    if method == "pca_rna":
        mdata, method = md.MuData({"rna": mdata["rna"]}), "concat_pca"
    more = {"batch_key": "batch"} if method == "aeverse_batch" else {}
    method = "ae" if method.startswith(harness.OURS) else method
    ae.tl.multimodal_embed(mdata, method=method, random_state=seed, progress=False, **more)
    return mdata.obsm["X_ae"]


def read(data: str):
    """All cells."""
    import mudata as md

    return md.read_h5mu(harness.DATA / f"{data}.h5mu")


def score_embed(data: str, method: str, seed: int) -> dict:
    """The default clusters, purity and mixing of all cells."""
    mdata = read(data)
    labels = mdata.obs["cell_type"].astype(str)
    with harness.timed():
        result = wnn_graph(mdata, seed) if method == "wnn_graph" else embed(mdata, method, seed)
    if method == "wnn_graph":
        return graph_scores(result, labels.to_numpy())
    if method == "pca_rna":
        return default_scores(result, labels.loc[mdata["rna"].obs_names].to_numpy())
    mixed = {"mixing": mixing(result, mdata.obs["batch"].astype(str).to_numpy())} if "batch" in mdata.obs else {}
    return default_scores(result, labels.to_numpy()) | mixed


def wnn_graph(mdata, seed: int):
    """Muon's weighted nearest neighbors, as in its tutorial: an AnnData whose graph they are."""
    import anndata as ad
    import mudata as md
    import muon as mu
    import scanpy as sc
    import scipy.sparse as sp

    if not hasattr(sp.csr_array, "getnnz"):  # scanpy 1.11 asks for it, newer versions of scipy no longer have it
        sp.csr_array.getnnz = sp.csr_array._getnnz
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


def score_half(data: str, method: str, seed: int) -> list[dict]:
    """The same when half of the cells lack a modality; how near a cell's embeddings from two modalities are."""
    import aeverse as ae

    mdata, rows = read(data), []
    labels = mdata.obs["cell_type"].astype(str)
    for lost in ("any", *mdata.mod):
        partial = half_lost(mdata, seed, lost)
        with harness.timed():
            embedding = embed(partial, method, seed)
        own = labels.reindex(partial.obs_names).to_numpy()
        rows.append({"lost": lost, **default_scores(embedding, own), **harness.cost()})
    if method == "aeverse":
        model = ae.models.MultimodalAutoencoder(random_state=seed).fit(mdata, progress=False)
        first, second = (model.encode(mdata, modalities=[m]) for m in list(mdata.mod)[:2])
        paired = np.all([mdata.obs_names.isin(a.obs_names) for a in mdata.mod.values()], axis=0)
        chosen = np.random.default_rng(0).permutation(np.flatnonzero(paired))[:1500]
        rows.append({"lost": "none", "foscttm": foscttm(first[chosen], second[chosen])})
    return rows


def score_predict(data: str, method: str, seed: int) -> dict:
    """RNA to protein."""
    import mudata as md
    from scipy.stats import spearmanr

    mdata = read(data)
    protein, rna = mdata["prot"], mdata["rna"]
    hidden = np.random.default_rng(seed).random(protein.n_obs) < 0.2
    truth = np.log1p(protein.X.toarray())
    partial = md.MuData({"rna": rna.copy(), "prot": protein[~hidden].copy()})
    with harness.timed():
        predicted = PREDICTORS[method](partial, truth, hidden, protein.obs_names, seed)
    spearman = [spearmanr(predicted[:, j], truth[hidden, j])[0] for j in range(truth.shape[1])]
    rmse = float(np.sqrt(((predicted - truth[hidden]) ** 2).mean()))
    return {"n_cells": protein.n_obs, "spearman": float(np.mean(spearman)), "rmse": rmse}


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


PREDICTORS = {"aeverse": predict_ae, "knn": predict_knn, "totalvi": predict_totalvi}


def foreground_ae(mdata, seed: int) -> np.ndarray:
    import aeverse as ae

    ae.tl.protein_foreground(mdata)
    return mdata["prot"].layers["foreground_prob"]


def foreground_totalvi(mdata, seed: int) -> np.ndarray:
    return np.asarray(totalvi_model(mdata, seed).get_protein_foreground_probability(return_numpy=True))


FOREGROUND = {
    "aeverse": foreground_ae,
    "totalvi": foreground_totalvi,
    "counts": lambda mdata, seed: mdata["prot"].X.toarray(),
}


def score_foreground(data: str, method: str, seed: int) -> dict:
    """Probabilities of foreground against the types that are known to carry a protein."""
    from sklearn.metrics import roc_auc_score

    mdata = read(data)
    with harness.timed():
        probability = FOREGROUND[method](mdata, seed)
    labels = mdata.obs["cell_type"].astype(str).reindex(mdata["prot"].obs_names)
    names = list(mdata["prot"].var_names)
    area = {p: roc_auc_score(labels.str.contains(t), probability[:, names.index(p)]) for p, t in CARRIERS.items()}
    return {"auc": float(np.mean(list(area.values()))), **{f"auc_{p}": v for p, v in area.items()}}


def totalvi_model(mdata, seed: int):
    """The trained scvi-tools model behind ``method="totalvi"``."""
    from aeverse import _slots, models
    from aeverse.methods._totalvi import train_totalvi

    data = _slots.read_modalities(mdata)
    kinds = models.kinds_of(data, "auto")
    return train_totalvi(data, kinds, n_obs=mdata.n_obs, batches=None, n_latent=None, random_state=seed, progress=False)


# ---- helpers -----------------------------------------------------------------------------------------------------
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


# ---- tables ------------------------------------------------------------------------------------------------------
def applies(data: str, method: str, seed: int) -> bool:
    """What takes long runs once; totalVI needs proteins, MultiVI peaks."""
    needs = {"totalvi": "cite_teaseq mosaic_pbmc15k", "multivi": "snare_cortex"}
    return data in needs.get(method, data) and (seed == 0 or method in ("aeverse", "pca_rna", "concat_pca", "knn"))


EMBEDDERS = dict.fromkeys(
    ["aeverse", "aeverse_batch", "pca_rna", "concat_pca", "wnn", "wnn_graph", "mofa", "totalvi", "multivi"]
)
LONG = ("aeverse_batch", "wnn", "mofa", "totalvi", "multivi")
QUICK = ["cite_teaseq"], ["pca_rna", "concat_pca"]
SEEDS = (0, 1, 2)
CASES = [
    harness.Cases("multimodal_embed", DATA_SETS, EMBEDDERS, score_embed, SEEDS, QUICK, applies, LONG),
    harness.Cases(
        "multimodal_half",
        DATA_SETS[:2],
        {m: None for m in EMBEDDERS if m in ("aeverse", "concat_pca")},
        score_half,
        SEEDS,
    ),
    harness.Cases(
        "multimodal_predict", ["mosaic_pbmc15k", "cite_teaseq"], PREDICTORS, score_predict, SEEDS, ((), ()), applies
    ),
    harness.Cases("multimodal_foreground", ["cite_teaseq"], FOREGROUND, score_foreground),
]
COLUMNS = {
    "embed": ["ari", "nmi", "n_clusters", "purity", "mixing", "seconds", "cpu_seconds", "memory_mb"],
    "half": ["ari", "nmi", "n_clusters", "purity", "foscttm", "seconds", "cpu_seconds"],
    "predict": ["n_cells", "spearman", "rmse", "seconds", "cpu_seconds", "memory_mb"],
    "foreground": ["auc", *(f"auc_{p}" for p in CARRIERS), "seconds"],
}


def write(tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    """Means over the seeds, and a picture."""
    lines = []
    for task, columns in COLUMNS.items():
        table = tables.get(f"multimodal_{task}")
        if table is None:
            continue
        grouped = table.groupby(["data", "method", *(["lost"] if "lost" in table else [])], sort=False)
        mean = grouped[[c for c in columns if c in table and table[c].notna().any()]].mean()
        mean.insert(0, "seeds", grouped.size())
        mean = mean.reset_index()
        lines += [f"## {task}\n", *markdown(mean), ""]
        if task == "embed":
            draw(mean, folder)
    return lines


def draw(mean: pd.DataFrame, folder: Path) -> None:
    """ARI of the default clusters against wall time, a panel a data set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    sets = list(dict.fromkeys(mean["data"]))
    fig, axes = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 3.6), layout="constrained", squeeze=False)
    for ax, data in zip(axes.flat, sets, strict=True):
        part = mean[mean["data"] == data]
        ax.scatter(
            part["seconds"], part["ari"], c=["#d95f02" if m.startswith("ae") else "#7f7f7f" for m in part["method"]]
        )
        for row in part.itertuples():
            place = (0, 6 if row.method == "aeverse_batch" else -13)  # where it is in nobody's way
            ax.annotate(
                row.method, (row.seconds, row.ari), xytext=place, textcoords="offset points", fontsize=8, ha="center"
            )
        ax.set(title=data, xscale="log", xlabel="seconds", ylabel="ARI of scanpy's default clusters")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # a decade or less has too few powers of ten
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(0.2)
    fig.savefig(folder / "multimodal.png", dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    harness.main(__file__, __doc__, CASES, write)
