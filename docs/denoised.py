"""Makes `_static/denoised.png`, the first picture of README.md and of the documentation: python docs/denoised.py"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import scanpy as sc

import aeverse as ae

adata = ae.datasets.pbmc68k_counts()
ae.tl.denoise(adata)
sc.pp.neighbors(adata, use_rep="X_ae")
sc.tl.umap(adata)
ae.pl.denoised(adata, ["CCR7", "CD8A"], ncols=2, save=Path(__file__).parent / "_static" / "denoised.png")
