"""The command `aeverse`: the tools, from file to file. Heavy packages load only when a command needs them."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aeverse import _commands, _files

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

OK, MISTAKE, INTERRUPTED = 0, 1, 130
FOREIGN = (".h5", ".mtx", ".loom")  # endings of files that scanpy reads

DESCRIPTION = "Autoencoders for single-cell and multi-omics data: the tools of aeverse.tl, from file to file, and what a model is."
EXAMPLES = """\
examples:
  aeverse demo                                        real counts, denoised, clustered and pictured
  aeverse denoise counts.h5ad denoised.h5ad           adds layers/denoised and obsm/X_ae
  aeverse denoise in.h5ad out.h5ad --layer counts --batch-key donor --report page.html
  aeverse embed counts.h5ad embedded.h5ad             adds obsm/X_ae only
  aeverse fit counts.h5ad pbmc.ae                     trains a model and writes nothing else
  aeverse info model.ae                               what a saved model was trained on
  aeverse multimodal cells.h5mu out.h5mu --save-model joint.ae
  aeverse map new.h5ad mapped.h5ad --model pbmc.ae --transfer cell_type

A folder, .h5 or .mtx from Cell Ranger and a .loom file are read, too. Lists are written A,B; None is written none.
--config FILE.toml reads options from a file, such as n_latent = 16; those of the command line count more.

exit codes: 0 done, 1 a mistake in the input (said in one line), 2 wrong usage, 130 interrupted
'aeverse COMMAND --help' lists the options of a command."""

DEMO = """\
Denoise the real blood cells that come inside scanpy (700 cells, 765 genes; no download), cluster
them by their embedding, and write an .h5ad file, pictures and a report to a folder."""


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
    argv = typed = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(next((word for word in argv if word in _commands.COMMANDS), None))
    try:
        argv = _commands.with_config(argv)
    except (OSError, ValueError) as error:
        return _fail(f"cannot read --config: {error}", MISTAKE)
    args = parser.parse_args(argv, argparse.Namespace(line=shlex.join(["aeverse", *typed])))
    if args.run is None:
        parser.print_help()
        return OK
    with _one_line_warnings(args.names):
        try:
            with _signals(args.signals):
                args.run(args)
        except (KeyboardInterrupt, Stopped):
            return _interrupted(args)
        except Exception as error:  # noqa: BLE001 (whatever it is, one line)
            if args.signals:  # a library made an error of its own of it
                return _interrupted(args)
            if args.traceback:
                traceback.print_exc()
            return _fail(_message(error, args.names), MISTAKE)
    return OK


# ---- arguments -------------------------------------------------------------------------------------------------
def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """All commands; of the chosen one also the options."""
    parser = argparse.ArgumentParser("aeverse", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=_Help)
    parser.add_argument("--version", action=_Version)
    parser.set_defaults(run=None, written=False, names=(), command=None, signals=[])
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    for name, command in _commands.COMMANDS.items():
        text = command.text or f"{command.summary[0].upper()}{command.summary[1:]}: aeverse.tl.{command.tool}."
        subparser = _command(commands, name, command.summary, text, command.examples or None, _run_tool)
        subparser.set_defaults(command=name)
        _add_files(subparser, command)
        if name == chosen:
            subparser.set_defaults(names=_commands.add_options(subparser, command))

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


def _add_files(parser: argparse.ArgumentParser, command: _commands.Command) -> None:
    output = {"data": ".h5ad, .zarr, or .h5mu for several modalities", "model": ".ae", "table": ".csv"}[command.writes]
    parser.add_argument("input", type=Path, help="file to read: .h5ad, .zarr, .h5mu, or of 10x or loom")
    parser.add_argument("output", type=Path, help=f"file to write: {output}")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="options in a file, such as n_latent = 16")
    page = "also write one self-contained page: what was done, how well, and figures"
    parser.add_argument("--report", type=Path, metavar="PAGE.html", help=page)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output and report")


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


def _run_tool(args: argparse.Namespace) -> None:
    """Read, run and write; everything that can be refused is refused before the work starts."""
    command = _commands.COMMANDS[args.command]
    options = {name: getattr(args, name) for name in args.names if hasattr(args, name)}
    arguments = _commands.defaults(command.tool) | options
    paths = _check_paths(args, options, command)
    with contextlib.ExitStack() as outputs:
        new = {name: outputs.enter_context(_files.staged(path)) for name, path in paths.items()}
        if "save_model" in new or command.writes == "model":
            options["save_model"] = new["output" if command.writes == "model" else "save_model"]
        data = _read(args.input)
        from aeverse import tl

        start = time.perf_counter()
        table = getattr(tl, command.tool)(data, **options)
        seconds = time.perf_counter() - start
        if "report" in new:
            from aeverse import _report

            run = _report.Run(args.command, args.line, args.input.name, data, arguments, seconds, table)
            new["report"].write_text(_report.page(run), "utf-8")
        if command.writes == "data":
            _write(data, new["output"])
        elif command.writes == "table":
            table.to_csv(new["output"], index=False)
        _publish(args, [(new[name], path) for name, path in paths.items()])
    features = "features" if args.input.suffix == ".h5mu" else "genes"
    print(f"{command.done} {data.n_obs:,} cells x {data.n_vars:,} {features} in {seconds:.1f} s")
    print(f"{_explained(data, arguments.get('key_added'))}wrote {' and '.join(map(str, paths.values()))}")


def _explained(data: AnnData | MuData, key: str | None) -> str:
    """The line about held-out molecules or entries, of a model that was judged by them."""
    record = data.uns.get("ae", {}).get(key, {})
    if "deviance_explained" not in record:
        return ""
    where = " (where the model was trained)" if record["params"].get("model") else ""
    return f"held-out deviance explained{where}: {record['deviance_explained']:.4f}\n"


# ---- files -----------------------------------------------------------------------------------------------------
def _check_paths(args: argparse.Namespace, options: dict[str, Any], command: _commands.Command) -> dict[str, Path]:
    """What will be written where, after checking that it may be."""
    endings = _commands.takes(command.tool)
    if not args.input.exists():
        raise UserError(f"{args.input} does not exist.")
    foreign = FOREIGN if ".h5ad" in endings else ()
    if args.input.suffix not in (*endings, *foreign) and not (foreign and _is_10x(args.input)):
        raise UserError(f"{args.input} must end in {' or '.join([*endings, *foreign])}.")
    written = (".h5mu",) if args.input.suffix == ".h5mu" else tuple(e for e in endings if e != ".h5mu")
    written = {"data": written, "model": (".ae",), "table": (".csv",)}[command.writes]
    if args.output.suffix not in written:
        raise UserError(f"{args.output} must end in {' or '.join(written)}.")
    paths = {"output": args.output, "report": args.report, "save_model": options.get("save_model")}
    paths = {name: Path(path) for name, path in paths.items() if path is not None}
    for name, path in paths.items():
        for source in (args.input, *([Path(options["model"])] if options.get("model") else [])):
            _check_apart(path, source, "input and output")
        if path.exists() and not args.overwrite:
            raise UserError(f"{path} exists; pass --overwrite to replace it.")
        if path.is_dir() and path.suffix != ".zarr":
            raise UserError(f"{path} is a folder; name a file to write.")
        for other, earlier in paths.items():
            if other == name:
                break
            _check_apart(path, earlier, f"{other} and {name}")
    return paths


def _is_10x(path: Path) -> bool:
    return path.is_dir() and any((path / f"matrix.mtx{end}").exists() for end in ("", ".gz"))


def _check_apart(path: Path, other: Path, roles: str) -> None:
    """Refuse to write to what is read, or to what holds it or lies in it."""
    within, around = _files.inside(path, other), _files.inside(other, path)
    if within and around:
        raise UserError(f"{path} is both {roles}; choose another {roles.split()[-1]}.")
    if within or around:
        inner, outer = (path, other) if within else (other, path)
        raise UserError(f"{inner} lies inside {outer}; choose another {roles.split()[-1]}.")


def _publish(args: argparse.Namespace, outputs: Sequence[tuple[Path, Path]]) -> None:
    """Put all that was written in its place, unless a signal came in a moment in which Python goes on, as in a destructor."""
    with _files.undisturbed():
        if args.signals:
            raise Stopped
        for new, path in outputs:
            _files.publish(new, path)
        args.written = True


def _read(path: Path) -> AnnData | MuData:
    try:
        return _open(path)
    except Exception as error:
        if "encoding_type='MuData'" in str(error):
            raise UserError(f"{path} holds a MuData; save one of its modalities as an AnnData.") from error
        raise UserError(f"cannot read {path} as {path.suffix or 'a folder of 10x'}: {_message(error, ())}") from error


def _open(path: Path) -> AnnData | MuData:
    if path.suffix == ".h5mu":
        import mudata

        return mudata.read_h5mu(path)
    if path.suffix in (".h5ad", ".zarr"):
        from aeverse import _slots

        return _slots.open_file(path)
    import scanpy as sc

    if path.suffix == ".loom":
        return sc.read_loom(path)
    adata = sc.read_10x_h5(path) if path.suffix == ".h5" else sc.read_10x_mtx(path if path.is_dir() else path.parent)
    adata.var_names_make_unique()
    return adata


def _write(data: AnnData | MuData, path: Path) -> None:
    if path.suffix == ".h5mu":
        data.write_h5mu(path)
        return
    from aeverse import _slots

    _slots.write_file(data, path)


# ---- messages --------------------------------------------------------------------------------------------------
def _interrupted(args: argparse.Namespace) -> int:
    _files.remove_own()
    return _fail(f"interrupted; {'everything' if args.written else 'nothing'} was written.", INTERRUPTED)


def _fail(message: str, code: int) -> int:
    print(f"aeverse: error: {message}", file=sys.stderr)
    return code


def _message(error: BaseException, names: Sequence[str]) -> str:
    """The error's text on one line."""
    if isinstance(error, MemoryError):
        return "out of memory. " + " ".join(str(error).split())
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    words = re.sub(r"^(tl|models)(\.\w+)+: ", "", text).split()  # the user knows the command
    if len(words) > 1:
        return _as_options(" ".join(words), names)
    return f"{type(error).__name__} {''.join(words)} (unexpected: --traceback shows where it arose)"


def _as_options(message: str, options: Sequence[str]) -> str:
    """Arguments of the Python functions, such as ``layer='counts'``, as options of the command line."""

    def option(match: re.Match) -> str:
        value = match[2] or ""
        if value == "None":
            return f"no --{match[1].replace('_', '-')}"
        return f"--{match[1].replace('_', '-')} {value.strip(chr(39))}".rstrip()

    if not options:
        return message
    names = "|".join(options)
    message = re.sub(rf"^tl\.\w+, argument ({names}):", lambda match: f"--{match[1].replace('_', '-')}:", message)
    return re.sub(rf"\b({names})=('[^']*'|None\b|[\w+-]+(?:\.\w+)*)?", option, message)


@contextlib.contextmanager
def _one_line_warnings(names: Sequence[str]) -> Iterator[None]:
    def show(message, category, filename, lineno, file=None, line=None):
        print(f"aeverse: warning: {_as_options(' '.join(str(message).split()), names)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _signals(came: list[int]) -> Iterator[None]:
    """End on Ctrl-C and SIGTERM as soon as Python can, with the temporary files removed; `came` lists those that came."""

    def stop(number: int, _: Any) -> None:
        came.append(number)
        raise Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _files.handling_signals(stop):
        yield
