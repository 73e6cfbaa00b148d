# SPDX-License-Identifier: Apache-2.0
"""Files of MXNet arrays: equal to MXNet's own, and every damage is one sentence."""

from __future__ import annotations

import io
import struct

import mxnet as mx
import numpy as np
import pytest

from mxnet_arrays import ArrayFileError, find_arrays, read_arrays, write_arrays

ARRAYS = {
    "arg:weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "aux:half": np.array([0.5, -1.0], np.float16),
    "counts": np.array([[2**40]], np.int64),
    "bytes": np.array([0, 255], np.uint8),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.params"
    mx.nd.save(str(path), {n: mx.nd.array(a, dtype=a.dtype) for n, a in ARRAYS.items()})
    return path


def test_arrays_that_mxnet_saved_are_read(saved):
    found = read_arrays(saved)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert {n: p.shape for n, p in find_arrays(saved).items()} == {
        n: a.shape for n, a in ARRAYS.items()
    }


def test_written_files_equal_those_of_mxnet(tmp_path, saved):
    with (tmp_path / "b.params").open("wb") as file:
        write_arrays(file, ARRAYS)
    assert (tmp_path / "b.params").read_bytes() == saved.read_bytes()
    with pytest.raises(TypeError, match="text: MXNet stores no array of 1 dimensions and type <U"):
        write_arrays(io.BytesIO(), {"text": np.array(["a"])})


def test_older_layouts_and_lists_without_names_are_read(tmp_path):
    values = struct.pack("<2f", 1, 2)
    place = struct.pack("<iii", 1, 0, 0)
    layouts = {
        "before 1": struct.pack("<II", 1, 2) + place + values,
        "1": struct.pack("<Iiq", 0xF993FAC8, 1, 2) + place + values,
        "3": struct.pack("<Iiiq", 0xF993FACA, 0, 1, 2) + place + values,
    }
    for layout, array in layouts.items():
        path = tmp_path / "old.params"
        path.write_bytes(struct.pack("<3Q", 0x112, 0, 1) + array + struct.pack("<Q", 0))
        np.testing.assert_array_equal(read_arrays(path)["0"], [1, 2], err_msg=layout)
        if layout != "3":  # MXNet loads layout 3 only with the shapes of NumPy switched on
            np.testing.assert_array_equal(mx.nd.load(str(path))[0].asnumpy(), [1, 2])
    path.write_bytes(struct.pack("<3QIii", 0x112, 0, 1, 0xF993FAC9, 0, 0) + struct.pack("<Q", 0))
    assert read_arrays(path)["0"].shape == (0,)


def test_every_truncation_is_refused(saved, tmp_path):
    content, path = saved.read_bytes(), tmp_path / "short.params"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ArrayFileError, match="use an undamaged file that MXNet has saved$"):
            find_arrays(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ArrayFileError, match="has bytes after its last name, got 1 bytes"):
        find_arrays(path)


def test_hostile_sizes_are_refused_before_memory_is_used(saved, tmp_path):
    content, path = saved.read_bytes(), tmp_path / "bad.params"
    for at, kind, number, problem in [
        (0, "Q", 7, "does not begin with 0x112 like a file of MXNet arrays, got 0x7"),
        (16, "Q", 2**60, "is too short for its number of arrays"),
        (28, "i", 1, "array 0 must be dense .storage type 0., got storage type 1"),
        (32, "i", 2**30, "array 0 must have at most 32 dimensions, got 1073741824"),
        (32, "i", -1, "array 0 must have at most 32 dimensions, got -1"),
        (36, "q", -1, "array 0 has a negative dimension, got shape .-1, 3."),
        (36, "q", 2**62, "is truncated: array 0 of shape .* needs .* bytes at byte"),
        (60, "i", 99, "array 0 has an unknown element type, got type number 99"),
        (len(content) - 13, "Q", 2**40, "a name must have at most 4096 bytes"),
        (len(content) - 2, "B", 255, "a name must be text in UTF-8"),
    ]:
        changed = bytearray(content)
        struct.pack_into(f"<{kind}", changed, at, number)
        path.write_bytes(changed)
        with pytest.raises(ArrayFileError, match=problem):
            find_arrays(path)
    same = [b"\1\0\0\0\0\0\0\0a", b"\1\0\0\0\0\0\0\0b"]
    arrays = struct.pack("<3Q", 0x112, 0, 2) + 2 * struct.pack("<Iii", 0xF993FAC9, 0, 0)
    path.write_bytes(arrays + struct.pack("<Q", 1) + same[0])
    with pytest.raises(ArrayFileError, match="must have one name for each of its 2 arrays, got 1"):
        find_arrays(path)
    path.write_bytes(arrays + struct.pack("<Q", 2) + same[0] * 2)
    with pytest.raises(ArrayFileError, match="must have different names, got 'a' more than once"):
        find_arrays(path)
    many = struct.pack("<3Q", 0x112, 0, 100_001) + b"\0" * 4 * 100_001
    path.write_bytes(many)
    with pytest.raises(ArrayFileError, match="must have at most 100,000 arrays, got 100,001"):
        find_arrays(path)
