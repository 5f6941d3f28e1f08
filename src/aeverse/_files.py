"""Writing to disk, all or nothing: a file or a folder is written beside its place and then put there in one step.

Whatever happens on the way (an error, Ctrl-C, a kill), the old content is there, whole, or the new one. What a killed
run leaves, folders named ``.aeverse-*``, the next run that writes to the same place removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]

PREFIX = ".aeverse-"
LONGEST_NAME = 255  # bytes
LOCK, NEW, OLD = "lock", "new", "old"  # what is in such a folder
PATIENCE = 5.0  # seconds in which a folder must be removed
TIMES_GONE = 20  # a hundredth of a second apart, until what was not finished counts as removed
AT_WORKING_FOLDER, EXCHANGE = -100, 2  # AT_FDCWD, and the flag of renameat2 (Linux) and renamex_np (macOS)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path to write a file or a folder to; at the end of the block it takes the place of `path`.

    Where the block fails, `path` stays as it was.
    """
    with staged(path) as new:
        yield new
        publish(new, path)


@contextlib.contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Give a path, on the same disk as `path`, to write to; `publish` moves it, and the end of the block removes it."""
    place = _place(path)
    if len(os.fsencode(place.name)) > LONGEST_NAME:
        raise OSError(f"the name {place.name[:20]!r}… is longer than the {LONGEST_NAME} bytes that a file's may have.")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(place.parent)!r} to write {place.name!r} to.")
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise OSError(f"{str(path)!r} is neither a file nor a folder; it cannot be replaced.")
    remove_leftovers(place.parent)
    with _own_folder(place.parent) as folder:
        (folder / NEW).mkdir()
        yield folder / NEW / place.name


def publish(new: Path, path: str | Path) -> None:
    """Put what was written to a path of `staged` in the place of `path`: links are followed, permissions stay."""
    place = _place(path)
    if not new.is_dir():
        refuse_folder(path)
    if place.exists():
        shutil.copymode(place, new)
    try:
        os.replace(new, place)
    except OSError:  # of a folder, on one that is there already
        if not place.exists():
            raise
        _exchange(new, place)


def refuse_folder(path: str | Path) -> None:
    """Raise where `path` is a folder, whose place no file takes; ``""`` is the working folder."""
    if os.path.isdir(_place(path)):  # False, not an error, for a name that is too long
        raise IsADirectoryError(f"{str(path)!r} is a folder; name the file to write.")


def inside(path: str | Path, other: str | Path) -> bool:
    """Whether `path` is `other`, by whatever name, or lies in it."""
    path, other = Path(path), Path(other)
    is_same = path.exists() and other.exists() and path.samefile(other)
    return is_same or _place(path).is_relative_to(_place(other))


def _place(path: str | Path) -> Path:
    """Where `path` leads: a link stays, and what it points to is replaced."""
    return Path(os.path.realpath(path))


def _exchange(new: Path, place: Path) -> None:
    """Swap two paths, at once where the system can."""
    if _swapped(new, place):
        return
    aside = new.parent.parent / OLD
    aside.mkdir()
    os.replace(place, aside / place.name)  # killed here, the next run puts it back
    try:
        os.replace(new, place)
    except BaseException:
        if not place.exists():
            os.replace(aside / place.name, place)
        raise


def _swapped(one: Path, other: Path) -> bool:
    """Swap two paths by one system call; False where there is none."""
    a, b = os.fsencode(one), os.fsencode(other)
    try:
        system = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return system.renamex_np(a, b, EXCHANGE) == 0
        return system.renameat2(AT_WORKING_FOLDER, a, AT_WORKING_FOLDER, b, EXCHANGE) == 0
    except (AttributeError, OSError, TypeError):  # an old C library, or Windows
        return False


# ---- signals ----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the end of the block, which must be short; elsewhere than in the main thread they do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    try:
        with handling_signals(lambda number, _: came.append(number)):
            yield
    finally:
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


@contextlib.contextmanager
def handling_signals(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Do something else on Ctrl-C and SIGTERM while the block runs; in the main thread."""
    with contextlib.ExitStack() as put_back:
        for number in (signal.SIGINT, signal.SIGTERM):
            if (before := signal.getsignal(number)) is not None:  # one that C set cannot be put back
                put_back.callback(signal.signal, number, before)
                signal.signal(number, handler)
        yield


# ---- folders of runs ---------------------------------------------------------------------------------------------
_own: set[tuple[int, Path]] = set()  # threads, and their folders that are there


@contextlib.contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, locked while the block runs, so that others see that it is in use."""
    while True:
        folder = None
        try:
            with undisturbed():  # a signal comes when the name of the folder is known
                folder = _new_folder(parent)
                _own.add((threading.get_ident(), folder))
            with _locked(folder) as is_ours:
                if not is_ours:  # another run took it for a leftover
                    continue
                yield folder
                return
        finally:
            with undisturbed():
                if folder is not None:
                    _remove(folder)
                    _own.discard((threading.get_ident(), folder))


def remove_own() -> None:
    """Remove the folders of this thread: after a signal that came when a block had ended and its folder was still there."""
    with undisturbed():
        for thread, folder in list(_own):
            if thread == threading.get_ident():
                _remove(folder)
                _own.discard((thread, folder))


def _remove(folder: Path) -> None:
    """Remove a folder, into which threads of a library (zarr) may still write for a moment after an error, and make it anew."""
    try:
        is_unfinished = bool(os.listdir(folder / NEW))
    except OSError:  # another run takes it for a leftover, and removes it in this moment
        is_unfinished = False
    wanted, gone, end = TIMES_GONE if is_unfinished else 1, 0, time.monotonic() + PATIENCE
    while gone < wanted and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        gone = 0 if folder.exists() else gone + 1
        if gone < wanted:
            time.sleep(0.01)


def _new_folder(parent: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
    except OSError as error:
        raise type(error)(f"cannot write to the folder {str(parent)!r}: {error.strerror}.") from error


def remove_leftovers(parent: Path) -> None:
    """Remove the folders of killed runs; a folder that one of them had moved aside goes back to its place."""
    if fcntl is None:
        return
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _locked(folder) as is_ours:
            if not is_ours:
                continue
            for old in (folder / OLD).glob("*"):
                if not (parent / old.name).exists():
                    os.replace(old, parent / old.name)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a run's folder; False where another process holds it. The system frees it when a process ends."""
    if fcntl is None:
        yield True
        return
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:  # removed in this moment, or another user's
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK))
        except OSError:
            is_ours = False
        yield is_ours
    finally:
        os.close(descriptor)
