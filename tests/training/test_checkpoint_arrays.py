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


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Write incomplete: 3 of 9", "No space left on device"),
        ("no such operator", "no such operator"),
    ],
)
def test_an_error_of_mxnet_names_a_full_disk(tmp_path, monkeypatch, said, problem):
    def fail(path, arrays):
        raise mx.base.MXNetError(said)

    monkeypatch.setattr(mx.nd, "save", fail)
    kind = OSError if "incomplete" in said else mx.base.MXNetError
    with pytest.raises(kind, match=problem):
        write_arrays(tmp_path / "net.params", {"a": mx.nd.ones((2,))})


def test_a_file_that_lacks_its_end_is_an_error_of_the_disk(tmp_path, monkeypatch):
    save = mx.nd.save

    def cut(path, arrays):
        save(path, arrays)
        with open(path, "r+b") as file:
            file.truncate(40)

    monkeypatch.setattr(mx.nd, "save", cut)
    with pytest.raises(OSError, match="the file is incomplete"):
        write_arrays(tmp_path / "net.params", {"a": mx.nd.ones((2, 3))})
