"""Writing is all or nothing: killed or stopped at any step, the old content is there or the new one, whole."""

import contextlib
import multiprocessing
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import anndata as ad
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import aeverse as ae
from aeverse import _files

matplotlib.use("Agg")

OLD, NEW = "old " * 5000, "new " * 7000
STEPS = ("open", "os.", "shutil.", "tempfile.", "ctypes.", "fcntl.")  # audit events that a write raises

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")


def put(path: Path, text: str, *, folder: bool) -> None:
    """Write a text as a file, or as the parts of a folder."""
    if not folder:
        path.write_text(text)
        return
    path.mkdir()
    (path / "inner").mkdir()
    for name in ("a", "inner/b"):
        (path / name).write_text(text)


def content(path: Path) -> set[str]:
    return {f.read_text() for f in path.rglob("*") if f.is_file()} if path.is_dir() else {path.read_text()}


def replace(path: Path, text: str, *, folder: bool) -> None:
    with _files.replacing(path) as new:
        put(new, text, folder=folder)


def ended(work, step: int | None, end) -> int:
    """Run `work` in a process of its own that meets `end` at a step; 0 where it came through."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        seen = [0]

        def hook(event, arguments):
            if event.startswith(STEPS):
                seen[0] += 1
                if seen[0] == step:
                    end()

        sys.addaudithook(hook)
        try:
            work()
        except BaseException:  # noqa: BLE001 (a child must not go on with the tests)
            pass
        else:
            os._exit(0)
        os._exit(1)  # what the error held is gone by now
    return os.waitpid(child, 0)[1]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    raise KeyboardInterrupt


def signalled():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("swap", [True, False], ids=["swap", "two renames"])
@pytest.mark.parametrize("end", [kill, stop, signalled])
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_ended_at_any_step_old_or_new_is_there(tmp_path, monkeypatch, folder, end, swap):
    if not swap:
        monkeypatch.setattr(_files, "_swapped", lambda one, other: False)
    path, found, step = tmp_path / "out", [], 0
    put(path, OLD, folder=folder)
    status = None
    while status != 0:
        step += 1
        status = ended(lambda: replace(path, NEW, folder=folder), step, end)
        if not swap and end is kill:  # between the two renames there is neither, until the next run looks
            _files.remove_leftovers(tmp_path)
        if end is signalled:
            assert list(tmp_path.iterdir()) == [path], "Ctrl-C leaves something"
        [text] = content(path)
        assert text in (OLD, NEW)
        found.append(text)
        replace(path, OLD, folder=folder)
        assert list(tmp_path.iterdir()) == [path], "leftovers stay"
    assert step > 8
    assert set(found) == {OLD, NEW}
    assert found[-1] == NEW


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_another_run_that_cleans_at_any_step_does_no_harm(tmp_path, folder):
    def clean():
        child = os.fork()
        if child == 0:
            _files.remove_leftovers(tmp_path)
            os._exit(0)
        os.waitpid(child, 0)

    path = tmp_path / "out"
    put(path, OLD, folder=folder)
    for step in range(1, 60):
        assert ended(lambda: replace(path, NEW, folder=folder), step, clean) == 0, f"at step {step}"
        assert content(path) == {NEW}
        assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_content(tmp_path):
    path = tmp_path / "out"
    path.write_text(OLD)

    def broken(new):
        new.write_text(NEW[:10])
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), _files.replacing(path) as new:
        broken(new)
    assert path.read_text() == OLD
    assert list(tmp_path.iterdir()) == [path]


def keep_writing(folder: Path) -> None:
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        with contextlib.suppress(OSError):  # where the folder is gone
            (folder / str(time.monotonic_ns())).touch()


def write_late(folder: Path) -> None:
    time.sleep(0.15)
    folder.mkdir(parents=True, exist_ok=True)  # as zarr's threads do
    (folder / "chunk").write_text("late")


@pytest.mark.parametrize("work", [keep_writing, write_late])
def test_threads_that_still_write_after_an_error_leave_nothing(tmp_path, work):
    def fail(new):
        new.mkdir()
        threads.append(threading.Thread(target=work, args=(new,)))
        threads[0].start()
        time.sleep(0.1)
        raise OSError("disk full")

    threads = []
    with pytest.raises(OSError, match="disk full"), _files.replacing(tmp_path / "out.zarr") as new:
        fail(new)
    threads[0].join()
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(tmp_path):
    for folder in (False, True):
        there, link = tmp_path / f"there{folder}", tmp_path / f"link{folder}"
        put(there, OLD, folder=folder)
        link.symlink_to(there)
        replace(link, NEW, folder=folder)
        assert link.is_symlink()
        assert content(there) == {NEW}


def test_the_permissions_of_an_existing_file_stay_and_a_new_one_is_as_any(tmp_path):
    private, fresh, plain = tmp_path / "private", tmp_path / "fresh", tmp_path / "plain"
    private.touch(mode=0o600)
    private.chmod(0o600)
    plain.touch()
    for path in (private, fresh):
        replace(path, NEW, folder=False)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(fresh.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_names_may_be_as_long_as_the_system_allows(tmp_path):
    replace(tmp_path / ("n" * 255), NEW, folder=False)
    assert content(tmp_path / ("n" * 255)) == {NEW}


def test_two_writers_at_once_do_not_meet(tmp_path):
    path, errors = tmp_path / "out", []

    def write(text):
        try:
            for _ in range(30):
                replace(path, text, folder=True)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in (OLD, NEW)]
    processes = [multiprocessing.get_context("fork").Process(target=write, args=(OLD,))]
    for each in threads + processes:
        each.start()
    for each in threads + processes:
        each.join()
    assert not errors
    assert [p.exitcode for p in processes] == [0]
    assert len(content(path)) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_use_is_no_leftover(tmp_path):
    with _files.staged(tmp_path / "one") as one:
        one.write_text(NEW)
        replace(tmp_path / "two", NEW, folder=False)
        _files.publish(one, tmp_path / "one")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("path", ["", ".", "folder"])
def test_a_file_takes_the_place_of_no_folder(tmp_path, monkeypatch, path):
    (tmp_path / "here" / "folder").mkdir(parents=True)
    (tmp_path / "here" / "data").write_text(OLD)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises((IsADirectoryError, ValueError), match=r"folder|a string that is not empty"):
        ae.io.save_arrays(path, "Example", {}, {"x": np.zeros(3)})
    with pytest.raises(IsADirectoryError, match="folder"):
        replace(Path(path), NEW, folder=False)
    assert (tmp_path / "here" / "data").read_text() == OLD
    assert {p.name for p in tmp_path.rglob("*")} == {"here", "folder", "data"}


def test_what_is_neither_file_nor_folder_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="neither a file nor a folder"):
        replace(tmp_path / "pipe", NEW, folder=False)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_inside(tmp_path):
    folder, file, link = tmp_path / "a.zarr", tmp_path / "a.zarr" / "b.h5ad", tmp_path / "link"
    folder.mkdir()
    file.touch()
    link.symlink_to(folder)
    assert _files.inside(file, folder)
    assert _files.inside(link / "b.h5ad", folder)
    assert _files.inside(folder, folder / "..")
    assert _files.inside(folder, link)
    assert not _files.inside(folder, file)
    assert not _files.inside(tmp_path / "a.zarr2", folder)


# ---- what aeverse writes: models, .h5ad, .zarr --------------------------------------------------------------------
def save_model(path: Path, which: str) -> None:
    ae.io.save_arrays(path, "Example", {"which": which}, {"x": np.full(3000, float(which == NEW))})


def model_at(path: Path) -> str:
    config, arrays, _ = ae.io.load_arrays(path)
    assert (arrays["x"] == float(config["which"] == NEW)).all()
    return config["which"]


def write_object(path: Path, which: str) -> None:
    adata = ad.AnnData(np.full((40, 10), float(which == NEW)), uns={"which": which})
    with _files.replacing(path) as new:
        adata.write_h5ad(new) if path.suffix == ".h5ad" else adata.write_zarr(new)


def object_at(path: Path) -> str:
    adata = ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)
    assert (float(adata.uns["which"] == NEW) == adata.X).all()
    return adata.uns["which"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "write", "read"),
    [("out.ae", save_model, model_at), ("out.h5ad", write_object, object_at), ("out.zarr", write_object, object_at)],
)
def test_killed_while_writing_a_model_or_an_object(tmp_path, name, write, read):
    path, found, step, status = tmp_path / name, set(), 0, None
    write(path, OLD)
    while status != 0:
        step += 1 + step // 2  # an object is written in many steps
        status = ended(lambda: write(path, NEW), step, kill)
        found.add(read(path))
        assert len(list(tmp_path.iterdir())) <= 2
        write(path, OLD)
        assert list(tmp_path.iterdir()) == [path], "leftovers stay"
    assert step > 8
    assert found == {OLD, NEW}


def test_a_picture_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    adata = ad.AnnData(np.zeros((5, 2)), obsm={"X_ae": np.random.default_rng(0).normal(size=(5, 2))})
    picture = tmp_path / "a.png"
    picture.write_bytes(b"old")

    def broken(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        ae.pl.latent(adata, show=False, save=picture)
    assert picture.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [picture]
