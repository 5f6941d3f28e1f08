"""The commands that run a tool from file to file: one line for each, options read from the tool's signature and docstring.

Both are read from the tool's source, so that help loads neither PyTorch nor anything else that is large.
"""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DENOISE = """\
Denoise UMI counts with an autoencoder and write them to a new file, with

  layers/denoised                   posterior mean of the expected counts
  obsm/X_ae                         embedding of the cells, for scanpy.pp.neighbors(use_rep="X_ae")
  var/denoised_deviance_explained   share of each gene's held-out deviance that the model explains
  uns/ae                            parameters, versions, training history, model"""
DENOISE_EXAMPLES = """\
examples:
  aeverse denoise counts.h5ad denoised.h5ad
  aeverse denoise filtered_feature_bc_matrix.h5 denoised.h5ad --log1p --save-model pbmc.ae
  aeverse denoise in.h5ad out.h5ad --layer counts --batch-key donor --genes LYZ,CD14,CD79A
  aeverse denoise in.zarr out.zarr --report page.html --overwrite"""
EMBED_EXAMPLES = """\
examples:
  aeverse embed counts.h5ad embedded.h5ad
  aeverse embed in.h5ad out.h5ad --n-latent 16 --batch-key donor --report page.html"""


FIT = """\
Train an autoencoder as 'aeverse embed' does, and write the model only. Other commands take it with --model.
For the modalities of a .h5mu: aeverse multimodal cells.h5mu out.h5mu --save-model joint.ae"""
FIT_EXAMPLES = """\
examples:
  aeverse fit counts.h5ad pbmc.ae --layer counts
  aeverse map new.h5ad mapped.h5ad --model pbmc.ae --transfer cell_type"""
BENCHMARK_EXAMPLES = """\
examples:
  aeverse benchmark counts.h5ad scores.csv --methods ae,pca,scvi --label-key cell_type"""


@dataclass(frozen=True)
class Command:
    """A tool of `aeverse.tl`, what its command says when done, and what help shows.

    `writes` is what the output file holds: the ``"data"`` with the results, the fitted ``"model"``, or a ``"table"``.
    """

    tool: str
    done: str
    summary: str
    text: str = ""
    examples: str = ""
    writes: Literal["data", "model", "table"] = "data"


COMMANDS = {
    "denoise": Command("denoise", "denoised", "denoise raw counts", DENOISE, DENOISE_EXAMPLES),
    "embed": Command("embed", "embedded", "embed cells or samples", examples=EMBED_EXAMPLES),
    "fit": Command("embed", "fitted to", "train a model and save it", FIT, FIT_EXAMPLES, writes="model"),
    "dropouts": Command("dropouts", "found dropouts of", "probability that a zero was missed"),
    "markers": Command("markers", "tested", "marker genes that hold although clusters were found in the same counts"),
    "multimodal": Command("multimodal_embed", "embedded", "embed the cells of a .h5mu from all modalities"),
    "predict": Command("predict_modality", "predicted", "predict a modality from the others (.h5mu)"),
    "foreground": Command("protein_foreground", "judged", "protein counts above background (.h5mu)"),
    "map": Command("map_query", "mapped", "map new samples with a saved model, and transfer labels"),
    "subtypes": Command("subtypes", "grouped", "subtypes of patients in an embedding"),
    "survival": Command("survival", "analyzed", "survival by groups or by an embedding"),
    "associations": Command("associations", "tested", "association of groups with clinical columns"),
    "benchmark": Command(
        "benchmark",
        "compared methods on",
        "scores of methods on held-out samples (.csv)",
        "",
        BENCHMARK_EXAMPLES,
        writes="table",
    ),
}

NO_OPTIONS = ("progress", "copy", "reference", "gene_sets", "lazy")  # objects in memory, or of no use for files
NOT_OF_A_MODEL = ("method", "model", "save_model", "key_added", "uncertainty")  # what `fit` has no use for
SAME = {"random_state": "Seed.", "device": "auto, cpu or cuda.", "model": "File of a saved model to use."}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a tool: its annotation as it is written, its default, and the first sentence about it."""

    name: str
    annotation: str
    needed: bool
    default: Any
    text: str


def parameters(tool: str) -> list[Parameter]:
    """The parameters of a function of `aeverse.tl`, the data first; it stands in a file of its name."""
    path = Path(__file__).parent / "tl" / f"_{tool}.py"
    functions = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    function = next(node for node in functions if node.name == tool)
    arguments = [*function.args.args, *function.args.kwonlyargs]
    defaults = [None] * (len(function.args.args) - len(function.args.defaults)) + function.args.defaults
    described = _descriptions(ast.get_docstring(function) or "")
    return [
        Parameter(
            argument.arg,
            ast.unparse(argument.annotation) if argument.annotation else "",
            default is None,
            None if default is None else ast.literal_eval(default),
            SAME.get(argument.arg, described.get(argument.arg, "")),
        )
        for argument, default in zip(arguments, [*defaults, *function.args.kw_defaults], strict=True)
    ]


def defaults(tool: str) -> dict[str, Any]:
    """The default of every parameter but the data; None where a value is required."""
    return {p.name: p.default for p in parameters(tool)[1:]}


def add_options(parser: argparse.ArgumentParser, command: Command) -> list[str]:
    """An option for each parameter of a tool but its data; without a default it is required. Returns the names."""
    left_out = (*NO_OPTIONS, *(NOT_OF_A_MODEL if command.writes == "model" else ()))
    options = [p for p in parameters(command.tool)[1:] if p.name not in left_out]
    for p in options:
        default = "" if p.default in (None, ()) else f" (default: {p.default})"
        kind = _kind(p.annotation, p.name)
        text = f"{p.text}{default}".replace("%", "%%")
        name = f"--{p.name.replace('_', '-')}"
        parser.add_argument(name, required=p.needed, default=argparse.SUPPRESS, help=text, **kind)
    return [p.name for p in options]


def with_config(argv: list[str]) -> list[str]:
    """Options of the TOML file that ``--config`` names, put before those of the command line, which count more."""
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", type=Path)
    path = before.parse_known_args(argv)[0].config
    if path is None:
        return argv
    values = tomllib.loads(path.read_text("utf-8"))
    return [argv[0], *(_as_word(name.replace("_", "-"), value) for name, value in values.items()), *argv[1:]]


def _as_word(option: str, value: Any) -> str:
    """One option as it would stand on the command line."""
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    if isinstance(value, list):
        value = ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    if isinstance(value, dict):
        value = ",".join(f"{key}={entry}" for key, entry in value.items())
    return f"--{option}={value}"


def takes(tool: str) -> tuple[str, ...]:
    """Endings of the files whose data a tool takes."""
    data = parameters(tool)[0].annotation
    return (*((".h5ad", ".zarr") if "AnnData" in data else ()), *((".h5mu",) if "MuData" in data else ()))


def _kind(annotation: str, name: str) -> dict[str, Any]:
    """How argparse reads a value of an annotation."""
    if annotation.startswith("bool"):
        return {"action": argparse.BooleanOptionalAction}
    if name in ("model", "save_model"):
        return {"metavar": "FILE"}
    if "Sequence[str]" in annotation:
        return {"type": _names, "metavar": "A,B,..."}
    if "Mapping" in annotation:
        return {"type": _pairs, "metavar": "NAME=VALUE,..."}
    number = {"int": int, "float": float}.get(annotation.split(" | ")[0])
    return {"type": number or _word, "metavar": "N" if number else "VALUE"}


def _word(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _names(text: str) -> str | list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if "," in text else _word(text)


def _pairs(text: str) -> Mapping[str, str | None] | str | None:
    if "=" not in text:
        return _word(text)
    return {name.strip(): _word(value.strip()) for name, _, value in (pair.partition("=") for pair in text.split(","))}


def _descriptions(doc: str) -> dict[str, str]:
    """First sentence about each parameter, from the numpydoc docstring."""
    section = re.split(r"^\w[\w ]*\n-{3,}\n", doc, flags=re.MULTILINE)
    descriptions: dict[str, str] = {}
    for names, text in re.findall(r"^(\w[\w, ]*)\n((?:    .*\n?|\n)+)", section[1] if len(section) > 1 else "", re.M):
        sentence = re.split(r"(?<=[a-z`\"\])])\.\s|:\s*\n", " ".join(text.split()))[0].rstrip(".") + "."
        descriptions |= dict.fromkeys((name.strip() for name in names.split(",")), sentence.replace("`", ""))
    return descriptions
