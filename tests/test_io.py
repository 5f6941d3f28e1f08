import contextlib
import json
import os
import stat

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import aeverse as ae
from aeverse.io import _checksum

ARRAYS = {"x": np.arange(6.0).reshape(2, 3), "flag": np.array([True, False]), "none": np.zeros((0, 4), np.int64)}
CONFIG = {"a": 1, "b": [None, "ä"], "c": {"d": 0.5}}


@pytest.fixture
def path(tmp_path):
    ae.io.save_arrays(tmp_path / "file.ae", "Example", CONFIG, ARRAYS)
    return tmp_path / "file.ae"


def test_what_was_saved_comes_back(path):
    config, arrays, kind = ae.io.load_arrays(path)
    assert (config, kind) == (CONFIG, "Example")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_arrays_that_are_not_contiguous_are_saved_right(tmp_path):
    x = np.arange(12.0).reshape(3, 4)
    ae.io.save_arrays(tmp_path / "f", "Example", {}, {"t": x.T, "s": x[:, ::2], "f": np.asfortranarray(x)})
    _, arrays, _ = ae.io.load_arrays(tmp_path / "f")
    np.testing.assert_array_equal(arrays["t"], x.T)
    np.testing.assert_array_equal(arrays["s"], x[:, ::2])
    np.testing.assert_array_equal(arrays["f"], x)


def test_a_saved_file_is_readable_by_whom_new_files_are(path, tmp_path):
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(os.stat(path).st_mode) == stat.S_IMODE(os.stat(tmp_path / "plain").st_mode)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        ae.io.save_arrays(path, "Example", {}, {"x": np.ones(3)})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.* to write 'f\.ae'"):
        ae.io.save_arrays(tmp_path / "nowhere" / "f.ae", "Example", {}, ARRAYS)


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "none.ae", tmp_path):
        with pytest.raises(FileNotFoundError, match="No model file at"):
            ae.io.load_arrays(path)


def test_a_file_of_another_kind_is_refused(path):
    with pytest.raises(ValueError, match="holds a Example, not a"):
        ae.models.load(path)


def test_a_newer_format_is_refused(tmp_path):
    header = {"aeverse": json.dumps({"format": ae.io.FORMAT + 1, "kind": "Example", "config": {}})}
    (tmp_path / "new.ae").write_bytes(save(ARRAYS, metadata=header))
    with pytest.raises(ValueError, match=f"has format {ae.io.FORMAT + 1}.*Update aeverse"):
        ae.io.load_arrays(tmp_path / "new.ae")


@pytest.mark.parametrize(
    "header", [None, {"other": "x"}, {"aeverse": "{"}, {"aeverse": "[]"}, {"aeverse": '{"format": "x"}'}]
)
def test_safetensors_of_others_are_refused(tmp_path, header):
    (tmp_path / "other.safetensors").write_bytes(save(ARRAYS, metadata=header))
    with pytest.raises(ValueError, match="not one that aeverse wrote"):
        ae.io.load_arrays(tmp_path / "other.safetensors")


def _written(path, header, arrays=ARRAYS):
    """A safetensors file with a header of our making, and its right checksum."""
    with contextlib.suppress(ValueError, RecursionError):  # of what could not be written
        header = json.dumps({**json.loads(header), "sha256": _checksum(json.loads(header), arrays)})
    path.write_bytes(save(arrays, metadata={"aeverse": header}))
    return path


def test_an_older_format_is_refused(tmp_path):
    path = _written(tmp_path / "old.ae", json.dumps({"format": 1, "kind": "Example", "config": {}}))
    with pytest.raises(ValueError, match=r"has format 1; this aeverse reads format 3\. Fit the model again"):
        ae.io.load_arrays(path)


@pytest.mark.parametrize(
    "header",
    [
        '{"format": 1e400, "kind": "Example", "config": {}}',
        '{"format": ' + "9" * 5000 + ', "kind": "Example", "config": {}}',
        '{"format": true, "kind": "Example", "config": {}}',
        '{"format": 3, "kind": 5, "config": {}}',
        '{"format": 3, "kind": "Example", "config": []}',
        '{"format": 3, "kind": "Example", "config": {}, "more": 1}',
        '{"format": 3, "kind": "Example", "config": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"format": 3, "kind": "Example", "config": ' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    ],
    ids=["overflow", "digits", "bool", "kind", "config", "more", "brackets", "braces"],
)
def test_odd_headers_are_refused(tmp_path, header):
    with pytest.raises(ValueError, match=r"odd\.ae.* (is damaged|not one that aeverse wrote)"):
        ae.io.load_arrays(_written(tmp_path / "odd.ae", header))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(path, where, bit):
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    damaged = path.with_suffix(".damaged")
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged|not an aeverse model|not one that aeverse wrote|has format"):
        ae.io.load_arrays(damaged)


def test_arrays_that_the_file_does_not_back_are_not_made(tmp_path):
    size = 10**15
    head = json.dumps({"x": {"dtype": "F64", "shape": [size], "data_offsets": [0, 8 * size]}}).encode()
    (tmp_path / "huge.ae").write_bytes(len(head).to_bytes(8, "little") + head + bytes(64))
    with pytest.raises(ValueError, match="not an aeverse model or is truncated"):
        ae.io.load_arrays(tmp_path / "huge.ae")


def test_saving_to_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name the file"):
        ae.io.save_arrays(tmp_path, "Example", {}, ARRAYS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(path, share):
    content = path.read_bytes()
    short = path.with_suffix(".short")
    short.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="not an aeverse model or is truncated"):
        ae.io.load_arrays(short)


@settings(max_examples=50)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.ae"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"random\.ae"):
        ae.io.load_arrays(path)
