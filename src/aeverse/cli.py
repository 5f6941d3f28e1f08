"""The command `aeverse`: the tools, from file to file. Heavy packages load only when a command needs them."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aeverse import _files

if TYPE_CHECKING:
    from anndata import AnnData

OK, MISTAKE, INTERRUPTED = 0, 1, 130

OPTIONS = ["layer", "mask_var", "batch_key", "likelihood", "n_latent", "n_models", "model", "key_added", "random_state"]
OPTIONS += ["device"]

DESCRIPTION = "Autoencoders for single-cell data: denoise raw counts, embed cells, describe a model."
EXAMPLES = """\
examples:
  aeverse demo                                        real counts, denoised, clustered and pictured
  aeverse denoise counts.h5ad denoised.h5ad           adds layers/denoised and obsm/X_ae
  aeverse denoise in.h5ad out.h5ad --layer counts --batch-key donor --report page.html
  aeverse embed counts.h5ad embedded.h5ad             adds obsm/X_ae only
  aeverse info model.ae                               what a saved model was trained on

exit codes: 0 done, 1 a mistake in the input (said in one line), 2 wrong usage, 130 interrupted
'aeverse COMMAND --help' tells the options of a command."""

DENOISE = """\
Denoise UMI counts with an autoencoder and write them to a new file, with

  layers/denoised                   posterior mean of the expected counts
  obsm/X_ae                         code of the cells, for scanpy.pp.neighbors(use_rep="X_ae")
  var/denoised_deviance_explained   share of each gene's held-out deviance that the model explains
  uns/ae                            parameters, versions, training history, decoder"""
DENOISE_EXAMPLES = """\
examples:
  aeverse denoise counts.h5ad denoised.h5ad
  aeverse denoise in.h5ad out.h5ad --layer counts --batch-key donor
  aeverse denoise in.h5ad out.h5ad --genes LYZ,CD14,CD79A --target-sum 1e4
  aeverse denoise in.zarr out.zarr --report page.html --overwrite"""

EMBED = """\
Embed cells with an autoencoder and write the code to a new file, as obsm/X_ae (for
scanpy.pp.neighbors(use_rep="X_ae")); parameters and history are in uns/ae."""
EMBED_EXAMPLES = """\
examples:
  aeverse embed counts.h5ad embedded.h5ad
  aeverse embed in.h5ad out.h5ad --n-latent 16 --batch-key donor --report page.html"""

DEMO = """\
Denoise the real blood cells that come inside scanpy (700 cells, 765 genes; no download), cluster
them by their code, and write an .h5ad file, pictures and a report to a folder."""


INFO = (
    "Print what a saved model was trained on, how well it predicts what was held out, and the versions that wrote it."
)


class UserError(Exception):
    """A mistake that the user can mend; its message is all that is shown."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM: not a KeyboardInterrupt, on which training would keep its weights and the command go on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; None: those of the process.

    Returns
    -------
    Exit code: 0 done (or help shown), 1 a mistake in the input, 130 interrupted.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version`` (code 0), and on wrong usage (code 2).

    Examples
    --------
    >>> from aeverse.cli import main
    >>> main(["denoise", "no_such_file.h5ad", "out.h5ad"])
    1
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help()
        return OK
    with _one_line_warnings(), _signals():
        try:
            args.run(args)
        except (KeyboardInterrupt, Stopped):
            return _fail(f"interrupted; {'everything' if args.written else 'nothing'} was written.", INTERRUPTED)
        except Exception as error:  # noqa: BLE001 (whatever it is, one line)
            if args.traceback:
                traceback.print_exc()
            return _fail(_message(error), MISTAKE)
    return OK


# ---- arguments -------------------------------------------------------------------------------------------------
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("aeverse", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=_Help)
    parser.add_argument("--version", action=_Version)
    parser.set_defaults(run=None, written=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    denoise = _command(commands, "denoise", "denoise raw counts", DENOISE, DENOISE_EXAMPLES, _denoise)
    _add_files(denoise)
    _add_model(denoise, n_models=3, key_added="denoised")
    denoise.add_argument(
        "--genes", type=_names, metavar="A,B,...", help="write only these genes to the layer (default: all)"
    )
    denoise.add_argument(
        "--target-sum",
        type=float,
        metavar="SUM",
        help="what a cell's values add up to, such as 1e4 (default: the cell's own library size)",
    )

    embed = _command(commands, "embed", "embed cells in a few dimensions", EMBED, EMBED_EXAMPLES, _embed)
    _add_files(embed)
    _add_model(embed, n_models=3, key_added="X_ae")

    demo = _command(commands, "demo", "denoise, cluster and picture real blood cells", DEMO, None, _demo)
    demo.add_argument(
        "--out", type=Path, default=Path("aeverse-demo"), metavar="DIR", help="folder (default: %(default)s)"
    )
    demo.add_argument("--overwrite", action="store_true", help="replace the files of an earlier demo")

    info = _command(commands, "info", "describe a saved model", INFO, None, _info)
    info.add_argument("file", help="model file, or hf://owner/name")
    return parser


def _command(
    commands: Any, name: str, short: str, text: str, examples: str | None, run: Any
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=short, description=text, epilog=examples, formatter_class=_Help)
    parser.add_argument("--traceback", action="store_true", help="on an error, print where it arose (for a bug report)")
    parser.set_defaults(run=run)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help=".h5ad or .zarr with raw counts")
    parser.add_argument("output", type=Path, help=".h5ad or .zarr to write")
    parser.add_argument(
        "--report", type=Path, metavar="PAGE.html", help="also write one self-contained page with figures"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output and report")


def _add_model(parser: argparse.ArgumentParser, *, n_models: int, key_added: str) -> None:
    add = parser.add_argument
    add("--layer", help="layer with the raw counts (default: X)")
    add(
        "--mask-var",
        default="auto",
        metavar="COLUMN",
        help="var column of genes that the encoder reads (default: %(default)s)",
    )
    add("--batch-key", metavar="COLUMN", help="obs column with batches, which the model corrects for")
    add("--likelihood", default="nb", help="nb or poisson (default: %(default)s)")
    add(
        "--n-latent", type=int, default=32, metavar="N", help="dimensions of the code of a model (default: %(default)s)"
    )
    add("--n-models", type=int, default=n_models, metavar="N", help="models that are averaged (default: %(default)s)")
    add("--model", metavar="FILE", help="saved model to use instead of training one")
    add("--key-added", default=key_added, metavar="KEY", help="name of the result (default: %(default)s)")
    add("--random-state", type=int, default=0, metavar="SEED", help="seed (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wide enough for the examples."""

    def __init__(self, prog: str, **kwargs: Any):
        super().__init__(prog, max_help_position=30, width=110, **kwargs)


class _Version(argparse.Action):
    """Look the version up only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str):
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser, namespace, values, option_string=None):
        from importlib.metadata import version

        print(f"aeverse {version('aeverse')}")
        parser.exit(0)


# ---- commands --------------------------------------------------------------------------------------------------
def _denoise(args: argparse.Namespace) -> None:
    def tool(adata: AnnData) -> None:
        from aeverse import tl

        tl.denoise(adata, genes=args.genes, target_sum=args.target_sum, **_model(args))

    _run_tool(args, tool, "denoised")


def _embed(args: argparse.Namespace) -> None:
    def tool(adata: AnnData) -> None:
        from aeverse import tl

        tl.embed(adata, **_model(args))

    _run_tool(args, tool, "embedded")


def _demo(args: argparse.Namespace) -> None:
    from aeverse import _demo as demo

    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"{args.out} exists and is no folder; choose another one with --out.")
    if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
        raise UserError(f"{args.out} is not empty; pass --overwrite, or another folder with --out.")
    with _files.staged(args.out) as folder:
        folder.mkdir()
        summary = demo.run(folder)
        files = [(file, args.out / file.name) for file in folder.iterdir()]
        _publish(args, files if args.out.is_dir() else [(folder, args.out)])
    print(f"{summary}\n\nWritten to {args.out}{os.sep}: {', '.join(sorted(f.name for f in args.out.iterdir()))}")


def _info(args: argparse.Namespace) -> None:
    from aeverse import models
    from aeverse.models._card import facts

    for topic, text in facts(models.load(args.file)).items():
        print(f"{topic}: {text}")


def _model(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in OPTIONS}


def _run_tool(args: argparse.Namespace, tool: Any, done: str) -> None:
    """Read, run and write; everything that can be refused is refused before the work starts."""
    _check_paths(args)
    from aeverse import _report, _slots

    with contextlib.ExitStack() as outputs:
        new = outputs.enter_context(_files.staged(args.output))
        page = outputs.enter_context(_files.staged(args.report)) if args.report else None
        adata = _read(args.input)
        start = time.perf_counter()
        tool(adata)
        seconds = time.perf_counter() - start
        if page is not None:
            html = _report.page(adata, args.key_added, title=args.input.name, seconds=seconds, model=args.model)
            page.write_text(html, "utf-8")
        _slots.write_file(adata, new)
        _publish(args, [(new, args.output), (page, args.report)] if page is not None else [(new, args.output)])
    print(f"{done} {adata.n_obs:,} cells x {adata.n_vars:,} genes in {seconds:.1f} s")
    where = " (where the model was trained)" if args.model else ""
    print(f"held-out deviance explained{where}: {_report.heldout_deviance_explained(adata, args.key_added):.4f}")
    print(f"wrote {args.output}" + (f" and {args.report}" if args.report else ""))


# ---- files -----------------------------------------------------------------------------------------------------
def _check_paths(args: argparse.Namespace) -> None:
    if not args.input.exists():
        raise UserError(f"{args.input} does not exist.")
    for path in (args.input, args.output):
        if path.suffix not in (".h5ad", ".zarr"):
            raise UserError(f"{path} must end in .h5ad or .zarr.")
    outputs = [args.output] + ([args.report] if args.report else [])
    for path in outputs:
        for source in (args.input, *([Path(args.model)] if args.model else [])):
            _check_apart(path, source, "input and output")
        if path.exists() and not args.overwrite:
            raise UserError(f"{path} exists; pass --overwrite to replace it.")
        if path.is_dir() and path.suffix != ".zarr":
            raise UserError(f"{path} is a folder; name a file to write.")
    if args.report:
        _check_apart(args.report, args.output, "output and report")


def _check_apart(path: Path, other: Path, roles: str) -> None:
    """Refuse to write to what is read, or to what holds it or lies in it."""
    within, around = _files.inside(path, other), _files.inside(other, path)
    if within and around:
        raise UserError(f"{path} is both {roles}; choose another {roles.split()[-1]}.")
    if within or around:
        inner, outer = (path, other) if within else (other, path)
        raise UserError(f"{inner} lies inside {outer}; choose another {roles.split()[-1]}.")


def _publish(args: argparse.Namespace, outputs: Sequence[tuple[Path, Path]]) -> None:
    """Put all that was written in its place; Ctrl-C comes too late from here on."""
    with _signals(signal.SIG_IGN):
        for new, path in outputs:
            _files.publish(new, path)
        args.written = True


def _read(path: Path) -> AnnData:
    from aeverse import _slots

    try:
        return _slots.open_file(path)
    except Exception as error:
        if "encoding_type='MuData'" in str(error):
            raise UserError(f"{path} holds a MuData; save one of its modalities as an AnnData.") from error
        raise UserError(f"cannot read {path} as {path.suffix}: {_message(error)}") from error


# ---- messages --------------------------------------------------------------------------------------------------
def _fail(message: str, code: int) -> int:
    print(f"aeverse: error: {message}", file=sys.stderr)
    return code


def _message(error: BaseException) -> str:
    """The error's text on one line."""
    if isinstance(error, MemoryError):
        return "out of memory. " + " ".join(str(error).split())
    words = (str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)).split()
    if len(words) > 1:
        return _as_options(" ".join(words))
    return f"{type(error).__name__} {''.join(words)} (unexpected: --traceback shows where it arose)"


def _as_options(message: str) -> str:
    """Arguments of the Python functions, such as ``layer='counts'``, as options of the command line."""

    def option(found: re.Match) -> str:
        value = found[2] or ""
        if value == "None":
            return f"no --{found[1].replace('_', '-')}"
        return f"--{found[1].replace('_', '-')} {value.strip(chr(39))}".rstrip()

    names = "|".join([*OPTIONS, "genes", "target_sum"])
    message = re.sub(rf"^tl\.\w+, argument ({names}):", lambda found: f"--{found[1].replace('_', '-')}:", message)
    return re.sub(rf"\b({names})=('[^']*'|None\b|[\w+-]+(?:\.\w+)*)?", option, message)


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message, category, filename, lineno, file=None, line=None):
        print(f"aeverse: warning: {_as_options(' '.join(str(message).split()))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _stop(*_) -> None:
    raise Stopped


@contextlib.contextmanager
def _signals(handler: Any = _stop) -> Iterator[None]:
    """End on Ctrl-C and SIGTERM as soon as Python can, with the temporary files removed; or do what `handler` does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
