"""`pl.associations`: how strongly groups of patients are associated with clinical columns."""

from __future__ import annotations

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
    from mudata import MuData

SIGNIFICANT = 0.05


@checked
@with_shared_parameters
def associations(
    data: AnnData | MuData,
    *,
    key: str = "associations",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure:
    """Effect of each column that `aeverse.tl.associations` tested, with its corrected p-value, the strongest on top.

    Filled points have a p-value of at most 0.05 after correction (Benjamini and Hochberg).

    Parameters
    ----------
    data
        Cohort in which `aeverse.tl.associations` was run.
    key
        The `key_added` of that run.
    title, figsize, ax, show, save, return_fig
        As in `aeverse.pl.latent`.

    Returns
    -------
    Axes, or the figure.

    Raises
    ------
    KeyError
        There is no such result.

    See Also
    --------
    aeverse.tl.associations : The tests.

    Examples
    --------
    >>> import aeverse as ae
    >>> adata = ae.datasets.pbmc68k_counts()
    >>> ae.tl.associations(adata, groupby="bulk_labels", columns=["n_counts", "percent_mito"])
    >>> ax = ae.pl.associations(adata, show=False)
    """
    record = _slots.read_record(data, key)
    if "tests" not in record:
        raise KeyError(f"uns['ae'][{key!r}] holds no tests; run aeverse.tl.associations first.")
    tests = record["tests"].sort_values("effect", ascending=False, kind="stable")
    [panel_title] = titles(title, [f"associated with {record['params']['groupby']}"])
    [panel] = panels(1, ax, size=(5.6, 1.2 + 0.3 * len(tests)), figsize=figsize)
    rows, effect, p = np.arange(len(tests)), tests["effect"].to_numpy(float), tests["p_bh"].to_numpy(float)
    panel.hlines(rows, 0, effect, color="#BBBBBB", lw=1.5, zorder=1)
    face = [COLORS[0] if value <= SIGNIFICANT else "white" for value in p]
    panel.scatter(effect, rows, s=46, c=face, edgecolors=COLORS[0], linewidths=1.6, zorder=2)
    for row, value in enumerate(p):
        text = f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"
        panel.text(1.02, row, text, transform=panel.get_yaxis_transform(), va="center", fontsize=8)
    panel.set_yticks(rows, [f"{name} ({n})" for name, n in zip(tests.index, tests["patients"], strict=True)])
    panel.set_ylim(len(tests) - 0.4, -0.6)
    panel.set_xlim(
        0, max(1.0, float(np.nanmax(effect)) * 1.05) if (effect > 0.5).any() else max(0.1, effect.max() * 1.25)
    )
    panel.tick_params(axis="y", length=0)
    tidy(panel, panel_title, "effect (Cramér's V or epsilon squared)", "")
    return finish([panel], "associations", own=ax is None, show=show, save=save, return_fig=return_fig)
