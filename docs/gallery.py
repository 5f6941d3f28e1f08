"""Draw the pictures of docs/gallery.md, each by the call that the page shows: python docs/gallery.py [NAME ...]"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import mudata as md

matplotlib.use("Agg")

import scanpy as sc

import aeverse as ae

OUT = Path(__file__).parent / "_static" / "gallery"


@functools.cache
def cells():
    """700 real blood cells, denoised, with probabilities of dropouts and attributions."""
    adata = ae.datasets.pbmc68k_counts()
    ae.tl.denoise(adata)
    ae.tl.embed(adata)  # with the model at hand: adds the loadings
    ae.tl.dropouts(adata, genes=["LYZ", "CD79A"])
    sc.pp.neighbors(adata, use_rep="X_ae")
    sc.tl.umap(adata)
    ae.tl.attribute(adata, ae.get.model(adata), groupby="bulk_labels")
    ae.tl.associations(adata, groupby="bulk_labels", columns=["n_counts", "percent_mito"])
    return adata


@functools.cache
def mapped():
    """200 of them, mapped onto a model of the other 500."""
    adata = ae.datasets.pbmc68k_counts()
    order = adata.obs_names.to_series().sample(frac=1, random_state=0)
    training, query = adata[order[:500]].copy(), adata[order[500:]].copy()
    model = ae.models.Autoencoder().fit(training)
    ae.tl.map_query(query, model, transfer="bulk_labels")
    return query


@functools.cache
def citeseq():
    """Simulated CITE-seq, with proteins missing in a third of the cells."""
    whole = ae.datasets.simulate_citeseq()
    mdata = md.MuData({"rna": whole["rna"], "prot": whole["prot"][: 2 * whole.n_obs // 3].copy()})
    mdata.obs["proteins"] = ["measured" if name in mdata["prot"].obs_names else "missing" for name in mdata.obs_names]
    ae.tl.multimodal_embed(mdata)
    ae.tl.predict_modality(mdata, "prot")
    return mdata


@functools.cache
def cohort():
    """A simulated cohort with subtypes that live differently long."""
    mdata = ae.datasets.simulate_cohort()
    ae.tl.multimodal_embed(mdata)
    ae.tl.subtypes(mdata)
    ae.tl.survival(mdata, time_key="OS_time", event_key="OS_event", groupby="subtype", covariates="age")
    return mdata


PICTURES: dict[str, Callable] = {
    "latent": lambda **to: ae.pl.latent(cells(), basis="X_umap", color="bulk_labels", **to),
    "denoised": lambda **to: ae.pl.denoised(cells(), ["CCR7", "CD8A"], ncols=2, **to),
    "denoised_pair": lambda **to: ae.pl.denoised(cells(), "LYZ", "CST3", color="bulk_labels", **to),
    "dotplot": lambda **to: ae.pl.dotplot(cells(), ["CCR7", "CD8A", "MS4A1"], groupby="bulk_labels", **to),
    "dropouts": lambda **to: ae.pl.dropouts(cells(), ["LYZ", "CD79A"], groupby="bulk_labels", **to),
    "deviance_explained": lambda **to: ae.pl.deviance_explained(cells(), **to),
    "history": lambda **to: ae.pl.history(cells(), **to),
    "loadings": lambda **to: ae.pl.loadings(cells(), components=[0, 1], **to),
    "attributions": lambda **to: ae.pl.attributions(cells(), n_top=3, **to),
    "associations": lambda **to: ae.pl.associations(cells(), **to),
    "mapping": lambda **to: ae.pl.mapping(mapped(), "bulk_labels", truth="bulk_labels", **to),
    "benchmark": lambda **to: ae.pl.benchmark(
        ae.tl.benchmark(ae.datasets.pbmc68k_counts(), ["ae", "pca"], label_key="bulk_labels"), **to
    ),
    "modality_weights": lambda **to: ae.pl.modality_weights(citeseq(), groupby="proteins", **to),
    "predicted": lambda **to: ae.pl.predicted(citeseq(), "prot", **to),
    "subtypes": lambda **to: ae.pl.subtypes(cohort(), **to),
    "kaplan_meier": lambda **to: ae.pl.kaplan_meier(cohort(), **to),
    "forest": lambda **to: ae.pl.forest(cohort(), **to),
}

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](save=OUT / f"{name}.png")
