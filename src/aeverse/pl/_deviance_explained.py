"""`pl.deviance_explained`: which genes the model predicts, against how much they are expressed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, finish, panels, point_size, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

FEWEST_MOLECULES = 200  # of a gene, for its held-out share to say something


@checked
@with_shared_parameters
def deviance_explained(
    adata: AnnData,
    *,
    genes: Sequence[str] | str | None = None,
    key: str = "denoised",
    layer: str | None = None,
    size: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Share of each gene's held-out deviance that the model explains, against the gene's mean count.

    0 is no better than the gene's mean. A gene low in the plot varies little between cells, or too few of its molecules
    were counted to tell: genes with less than 200 molecules are gray.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.denoise` trained a model.
    genes
        Genes to name; None: those explained best, ten of them.
    key
        The `key_added` of that run.
    layer
        Layer with the raw counts; None: where `aeverse.tl.denoise` found them.
    size, title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError
        There is no such result (a run with `model` writes none), or no such gene.

    See Also
    --------
    aeverse.metrics.deviance_explained : The score.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.denoise(adata, n_models=1)
    >>> ax = ae.pl.deviance_explained(adata, show=False)
    """
    params = _slots.read_record(adata, key)["params"]
    column = f"{key}_deviance_explained"
    if column not in adata.var:
        raise KeyError(f"var[{column!r}] does not exist: run aeverse.tl.denoise without model= first.")
    counts = _slots.read_counts(adata, params.get("layer") if layer is None else layer)
    molecules = np.asarray(counts.sum(0), np.float64).ravel()
    explained = adata.var[column].to_numpy(np.float64)
    use = (molecules > 0) & np.isfinite(explained)
    enough = use & (molecules >= FEWEST_MOLECULES)
    if genes is None:
        order = np.argsort(-np.where(enough, explained, -np.inf), kind="stable")
        named = [int(i) for i in order[:10] if enough[i]]
    else:
        named = [int(i) for i in np.atleast_1d(_slots.positions(_slots.name_list(genes), adata.var_names))]
    [panel_title] = titles(title, ["Held-out molecules explained, gene by gene"])
    [panel] = panels(1, ax, size=(6.2, 4.2), figsize=figsize)
    mean = molecules / adata.n_obs
    area = max(point_size(int(use.sum())), 5.0) if size is None else size
    few = f"less than {FEWEST_MOLECULES} molecules"
    for rows, color, name in ((use & ~enough, "#C4C4C4", few), (enough, COLORS[0], "other genes")):
        panel.scatter(
            mean[rows], explained[rows], s=area, color=color, linewidths=0, alpha=0.7, label=name, rasterized=True
        )
    panel.set_xscale("log")
    shown_values = explained[enough] if enough.any() else explained[use]
    if len(shown_values):
        low, high = float(min(shown_values.min(), 0)), float(max(shown_values.max(), 0.01))
        panel.set_ylim(low - 0.06 * (high - low), high + 0.1 * (high - low))
    panel.axhline(0, color="#888888", lw=1)
    _name_genes(panel, mean[named], explained[named], [str(adata.var_names[i]) for i in named])
    tidy(panel, panel_title, "mean count in a cell", "deviance explained (0: the gene's mean)")
    panel.legend(loc="upper left", frameon=False, fontsize=8, markerscale=2)
    return finish([panel], "deviance_explained", own=ax is None, show=show, save=save, return_fig=return_fig)


def _name_genes(ax: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Names beside points, pushed apart where points are near, each with a line to its point."""
    low, high = ax.get_ylim()
    step = 0.042 * (high - low)
    placed: list[float] = []
    for i in np.argsort(-y, kind="stable"):
        height = min([float(y[i]), *([placed[-1] - step] if placed else [])])
        placed.append(height)
        ax.annotate(
            names[i],
            (x[i], y[i]),
            xytext=(1.02, height),
            textcoords=ax.get_yaxis_transform(),
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#AAAAAA", "lw": 0.5, "shrinkA": 1, "shrinkB": 2},
        )
