"""Which function of this package shows which command."""

from __future__ import annotations

from collections.abc import Callable

from aeverse._report import _cohort, _groups, _matrix, _multimodal
from aeverse._report._html import Content, Run, page_of

CONTENTS: dict[str, Callable[[Run], Content]] = {
    "denoise": _matrix.denoise,
    "embed": _matrix.embed,
    "fit": _matrix.embed,
    "dropouts": _matrix.dropouts,
    "markers": _groups.markers,
    "multimodal": _multimodal.multimodal,
    "predict": _multimodal.predict,
    "foreground": _multimodal.foreground,
    "map": _groups.map_query,
    "subtypes": _cohort.subtypes,
    "survival": _cohort.survival,
    "associations": _cohort.associations,
    "benchmark": _groups.benchmark,
}


def page(run: Run) -> str:
    """Return the HTML of the report about a command that was run."""
    return page_of(run, CONTENTS[run.command](run))
