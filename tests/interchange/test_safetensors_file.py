from __future__ import annotations

import json
import random

import numpy as np
import pytest
import safetensors.numpy

from interchange.model import InterchangeError
from interchange.safetensors_file import read_safetensors_file


def write(path, header: dict, data: bytes):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_tensors_and_metadata_are_read(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(7, np.int64)}
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(arrays, path, {"threshold": "0.3"})
    tensors, metadata = read_safetensors_file(path)
    assert metadata == {"threshold": "0.3"}
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
        "a": ((2, 3), "float32"),
        "b": ((), "int64"),
    }
    np.testing.assert_array_equal(tensors["a"].read(), arrays["a"])


def test_bfloat16_becomes_float32(tmp_path):
    header = {
        "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "a": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [4, 8]},
    }
    bits = np.array([0x3F80, 0xC000], "<u2")
    path = write(tmp_path / "a.safetensors", header, bytes(4) + bits.tobytes())
    np.testing.assert_array_equal(read_safetensors_file(path)[0]["a"].read(), [[1], [-2]])


def test_an_unknown_element_type_is_refused_by_name(tmp_path):
    header = {"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}
    with pytest.raises(InterchangeError, match="the tensor 'a' must have .* got F8_E4M3"):
        read_safetensors_file(write(tmp_path / "a.safetensors", header, b"\0"))


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4)),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        ({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 8]}}, bytes(8)),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(9)),
        ({"a": 5}, b""),
    ],
)
def test_structure_errors_are_refused(tmp_path, header, data):
    with pytest.raises(InterchangeError, match=r"a\.safetensors: is not a valid safetensors file"):
        read_safetensors_file(write(tmp_path / "a.safetensors", header, data))


def test_truncation_damage_and_a_missing_file_raise_no_other_error(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(InterchangeError, match="no such file"):
        read_safetensors_file(path)
    safetensors.numpy.save_file({"a": np.ones(9, np.float32), "b": np.ones(3)}, path)
    content = path.read_bytes()
    chooser = random.Random(0)
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(InterchangeError):
            read_safetensors_file(path)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chooser.randrange(120)] = chooser.randrange(256)
        path.write_bytes(damaged)
        try:
            for tensor in read_safetensors_file(path)[0].values():
                tensor.read()
        except InterchangeError:
            refused += 1
    assert refused > 20
