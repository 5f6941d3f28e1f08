"""Draw the picture of docs/family.md: what each regularizer does to the embedding of the same cells.

python docs/family.py
"""

from pathlib import Path

import matplotlib
import numpy as np

import aeverse as ae

matplotlib.use("Agg")
import matplotlib.pyplot as plt

REGULARIZERS = (None, "denoising", "sparse", "contractive", "variational", "graph")
OUT = Path(__file__).parent / "_static" / "family.png"


def main() -> None:
    adata = ae.datasets.pbmc68k_counts()
    types = adata.obs["bulk_labels"].cat
    order = np.argsort(types.codes.to_numpy(), kind="stable")
    colors = plt.get_cmap("tab10")(types.codes.to_numpy())
    figure, axes = plt.subplots(2, 6, figsize=(13, 5), height_ratios=[1, 1.1], layout="constrained")
    for regularizer, (above, below) in zip(REGULARIZERS, axes.T, strict=True):
        model = ae.models.Autoencoder(regularizer=regularizer, n_models=1, n_latent=16, max_epochs=30).fit(adata)
        code = model.encode(adata)
        centered = code - code.mean(0)
        left, size, _ = np.linalg.svd(centered, full_matrices=False)
        above.scatter(*(left[:, :2] * size[:2]).T, s=4, c=colors, linewidths=0)
        above.set_title(f'"{regularizer}"' if regularizer else "None", fontsize=11)
        limit = np.quantile(np.abs(code), 0.99)
        below.imshow(code[order], aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("two leading directions")
    axes[1, 0].set_ylabel("cells, by type")
    for ax in axes[1]:
        ax.set_xlabel("16 dimensions")
    handles = [
        plt.Line2D([], [], marker="o", ls="", ms=5, color=plt.get_cmap("tab10")(i), label=name)
        for i, name in enumerate(types.categories)
    ]
    figure.legend(handles=handles, frameon=False, ncols=5, loc="outside lower center", fontsize=8)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
