"""What every room shares: device, threads, memory, seeds, progress bars, packages that may be missing."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

MOST_THREADS = 8

_computing, _n_computing = threading.Lock(), 0
_caller = threading.local()  # n_threads: of torch, before it was put on one


def resolve_device(device: str = "auto"):
    """Return the torch device for ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a device that torch knows; use 'auto', 'cpu' or 'cuda'.") from error
    if resolved.type not in ("cpu", "cuda"):  # others lack double precision, or more
        raise ValueError(f"device={device!r} is not supported; use 'auto', 'cpu' or 'cuda'.")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={device!r}: torch finds no such CUDA device here; use device='cpu' or 'auto'.")
    return resolved


def available_memory() -> float:
    """Bytes that this process may still take: of the machine, and of the container (cgroup) it runs in; infinity if unknown."""
    limits = [float("inf")]
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{measure}").read_text()) for measure in ("max", "current"))
        limits.append(float(limit - used))
    if len(limits) == 1 and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # macOS: all that there is
        limits.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return max(0.0, min(limits))


def has_dask() -> bool:
    """Whether dask is installed."""
    try:
        import_dask_array("")
    except ImportError:
        return False
    return True


def import_dask_array(what: str) -> Any:
    """The package dask.array, which `what` needs; an ImportError says how to install it."""
    try:
        import dask.array
    except ImportError as error:
        raise ImportError(f'{what} needs dask, which is an extra: pip install "aeverse[scale]".') from error
    return dask.array


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run a block, or a function that this decorates, with torch on one thread; the caller's number is put back.

    The operations of a mini-batch are small, and OpenMP's threads wait for each other at the end of each, spinning. Where
    another process takes one of the cores, a step then takes many times as long. And on one thread sums do not depend on
    how many threads the caller has.
    """
    import torch

    global _n_computing
    of_caller = getattr(_caller, "n_threads", 1)
    with _computing:
        before = torch.get_num_threads()
        _caller.n_threads = max(before, of_caller)
        _n_computing += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        _caller.n_threads = of_caller
        with _computing:
            _n_computing -= 1
            torch.set_num_threads(before)
            if _n_computing and before > 1:
                # that also set the number of MKL, which all threads of the process share: others compute still
                other = threading.Thread(target=torch.set_num_threads, args=(1,))
                other.start()
                other.join()


@contextlib.contextmanager
def threads() -> Iterator[Callable[[Callable, Iterable], Iterable]]:
    """Within `one_thread`: a ``map`` whose calls run on as many threads as the caller had of torch's; results come in order.

    Each computes with torch on one thread, so that bits do not depend on their number, and waits without spinning. Where the
    caller is itself not the main thread, somebody else runs several already, and all is done on this one.
    """
    import torch

    n_threads = min(getattr(_caller, "n_threads", 1), MOST_THREADS)
    if n_threads == 1 or threading.current_thread() is not threading.main_thread():
        yield map
        return
    pool = ThreadPoolExecutor(n_threads, "aeverse", torch.set_num_threads, (1,))

    def spread(function: Callable, items: Iterable) -> Iterator:
        with_gradients = torch.is_grad_enabled()

        def work(item):
            with torch.set_grad_enabled(with_gradients):
                return function(item)

        coming: deque[Future] = deque()
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > n_threads:  # what waits takes memory
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()

    try:
        yield spread
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """Run a block that may change the number of torch's threads, and put it back if it did."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextlib.contextmanager
def learning() -> Iterator[None]:
    """Run a block, or a function that this decorates, with gradients, even inside ``no_grad`` or ``inference_mode``.

    Both are states of the thread, so that others do not notice. Torch computes on one thread meanwhile.
    """
    import torch

    with one_thread(), torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def seeded(random_state: int) -> Iterator[None]:
    """Run other people's code, which draws from torch's global generator, and put its state back afterwards.

    Not for threads. Our own code draws from a `torch.Generator` of each fit.
    """
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(random_state)
        yield


def progress_bar(total: int, description: str, progress: bool | None = None) -> Any:
    """Return a tqdm bar; ``progress=None`` shows it on a terminal or in a notebook and keeps quiet elsewhere."""
    from tqdm import tqdm

    if progress is None:
        progress = sys.stderr.isatty() or "ipykernel" in sys.modules
        progress = progress and "PYTEST_CURRENT_TEST" not in os.environ
    return tqdm(total=total, desc=description, disable=not progress, leave=False)


def log(message: str) -> None:
    """Say what was decided, on the logger ``"aeverse"`` at level INFO, and where scanpy is in use at its level "info"."""
    logging.getLogger("aeverse").info(message)
    if (scanpy := sys.modules.get("scanpy")) is not None and hasattr(scanpy, "logging"):
        scanpy.logging.info(f"aeverse: {message}")


def warn(message: str) -> None:
    """Warn the user at the line that called aeverse."""
    depth, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("aeverse"):
        frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
    warnings.warn(message, UserWarning, stacklevel=depth)
