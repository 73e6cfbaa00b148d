# SPDX-License-Identifier: Apache-2.0
"""Arrays of a checkpoint: what is written is read back, and made-up files are refused."""

from __future__ import annotations

import struct

import mxnet as mx
import numpy as np
import pytest

from training.checkpoint_arrays import read_arrays, to_ndarray, write_arrays
from training.checkpoint_folders import CheckpointError


def test_arrays_are_read_as_they_were_written(tmp_path):
    arrays = {"a": mx.nd.arange(6).reshape((2, 3)), "b": mx.nd.array([np.nan, -0.0, np.inf])}
    write_arrays(tmp_path / "net.params", arrays)
    found = read_arrays(tmp_path / "net.params")
    assert list(found) == ["a", "b"]
    for name, array in arrays.items():
        assert found[name].tobytes() == array.asnumpy().tobytes()
        assert to_ndarray(found[name]).asnumpy().tobytes() == array.asnumpy().tobytes()
    write_arrays(tmp_path / "momentum.params", {})
    assert read_arrays(tmp_path / "momentum.params") == {}


@pytest.mark.parametrize("dimensions", [-1, -7, 33, 2**31 - 1])
def test_a_made_up_number_of_dimensions_is_refused(tmp_path, dimensions):
    path = tmp_path / "net.params"
    write_arrays(path, {"a": mx.nd.ones((2, 3))})
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, 32, dimensions)  # after header, count, magic and storage type
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.params: .*, got .*; use "):
        read_arrays(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read, got No such file or directory; "):
        read_arrays(tmp_path / "net.params")
