"""`pl.loadings`: the features behind each dimension of an embedding with a linear decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from aeverse import _slots
from aeverse._arguments import checked
from aeverse.pl._axes import COLORS, finish, panels, tidy, titles
from aeverse.pl._docs import with_shared_parameters

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

MOST = 8  # dimensions shown where the caller names none


@checked
@with_shared_parameters
def loadings(
    adata: AnnData,
    *,
    components: Sequence[int | str] | int | str | None = None,
    n_points: int = 12,
    key: str = "X_ae",
    ncols: int = 4,
    title: str | Sequence[str] | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | np.ndarray | Figure:
    """The features with the largest loadings of each dimension, one panel for each dimension.

    As `scanpy.pl.pca_loadings`, for ``varm["ae_loadings"]``: the sign shows in which direction along the dimension the
    feature grows.

    Parameters
    ----------
    adata
        Object in which `aeverse.tl.embed` was run with a linear decoder.
    components
        Dimensions to show: numbers from 0, or names of gene sets; None: the first eight.
    n_points
        Features in each panel.
    key
        The `key_added` of that run.
    ncols, title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, an array of several, or the figure.

    Raises
    ------
    KeyError
        There are no loadings, or no such dimension.

    See Also
    --------
    aeverse.tl.attribute : The features behind a dimension or a group, also of a decoder that is not linear.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.embed(adata, n_models=1)
    >>> axes = ae.pl.loadings(adata, components=[0, 1], show=False)
    """
    slot = _slots.side_key(key, "loadings")
    if slot not in adata.varm:
        raise KeyError(f"key={key!r}: varm[{slot!r}] does not exist; run aeverse.tl.embed with decoder='linear' first.")
    names = [str(name) for name in np.atleast_1d(_slots.read_record(adata, key).get("code_names", []))]
    values = np.asarray(adata.varm[slot], np.float64)
    chosen = range(min(MOST, values.shape[1])) if components is None else components
    positions = [_position(c, names, values.shape[1]) for c in ([chosen] if isinstance(chosen, (int, str)) else chosen)]
    labels = [names[p] if len(names) == values.shape[1] else f"dimension {p}" for p in positions]
    panel_titles = titles(title, labels)
    axes = panels(len(positions), ax, size=(2.7, 0.9 + 0.21 * n_points), ncols=ncols, figsize=figsize)
    for each, position, label in zip(axes, positions, panel_titles, strict=True):
        weights = np.nan_to_num(values[:, position])
        top = np.argsort(-np.abs(weights), kind="stable")[:n_points]
        top = top[np.argsort(-weights[top], kind="stable")]
        each.barh(range(len(top)), weights[top], color=[COLORS[3] if w > 0 else COLORS[0] for w in weights[top]])
        each.set_yticks(range(len(top)), [str(name) for name in adata.var_names[top]], fontsize=8)
        each.invert_yaxis()
        each.axvline(0, color="#888888", lw=0.8)
        each.tick_params(axis="y", length=0)
        tidy(each, label, "loading", "")
    return finish(axes, "loadings", own=ax is None, show=show, save=save, return_fig=return_fig)


def _position(component: int | str, names: list[str], n: int) -> int:
    if isinstance(component, str) and component in names:
        return names.index(component)
    if not isinstance(component, str) and 0 <= int(component) < n:
        return int(component)
    raise KeyError(
        f"components={component!r} is no dimension; they are 0 to {n - 1}" + (f", or {names}." if names else ".")
    )
