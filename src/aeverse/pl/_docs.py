"""Descriptions of the parameters that plots share: written once, in `aeverse.pl.latent`, and shown by `help` of each plot."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from aeverse.pl._latent import latent

Function = TypeVar("Function", bound=Callable[..., Any])
REFERENCE = re.compile(r"^(\w+(?:, \w+)*)\n    As in `aeverse\.pl\.latent`\.\n", re.MULTILINE)
ENTRY = re.compile(r"^(\w+)\n((?:    .*\n)+)", re.MULTILINE)


def with_shared_parameters(function: Function) -> Function:
    """Put what `aeverse.pl.latent` says of a parameter in the place of "As in `aeverse.pl.latent`."."""
    if function.__doc__ is not None and latent.__doc__ is not None:  # both are None under `python -OO`
        descriptions = dict(ENTRY.findall(inspect.cleandoc(latent.__doc__)))

        def entries(reference: re.Match[str]) -> str:
            return "".join(f"{name}\n{descriptions[name]}" for name in reference[1].split(", "))

        function.__doc__ = REFERENCE.sub(entries, inspect.cleandoc(function.__doc__))  # Python 3.13 does so itself
    return function
