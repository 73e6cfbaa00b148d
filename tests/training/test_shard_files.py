# SPDX-License-Identifier: Apache-2.0
"""A shard is one file with its origin and its rows."""

from __future__ import annotations

import json
import re

import mxnet as mx
import numpy as np
import pytest

from heads.shard import Shard
from mxnet_arrays import RowBlocks, write_arrays
from training.checkpoint_files import CheckpointError, ShardError, fingerprint
from training.shard_files import ShardHeader, read_shard, shard_name, write_shard

HEADER = ShardHeader.of(Shard.of(5, 1, 2), "run", 20, {"seed": 3})
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def write(folder, header=HEADER, rows=ROWS):
    blocks = RowBlocks(rows.shape, rows.dtype, np.array_split(rows, max(1, len(rows))))
    return write_shard(folder, header, {"fc7_weight": blocks})


def test_the_file_holds_header_and_rows(tmp_path):
    entry = write(tmp_path)
    path = tmp_path / "fc7-00001-of-00002.params"
    arrays = {"fc7_weight": [2, 3]}
    assert entry == {"name": path.name, "arrays": arrays, **fingerprint(path)}
    header, places = read_shard(path)
    assert header == HEADER and places["fc7_weight"].shape == (2, 3)
    loaded = mx.nd.load(str(path))
    assert np.array_equal(loaded["fc7_weight"].asnumpy(), ROWS)
    assert json.loads(loaded["about"].asnumpy().tobytes())["step"] == 20


def test_a_shard_without_classes_has_arrays_without_rows(tmp_path):
    header = ShardHeader.of(Shard.of(1, 1, 2), "run", 20)
    entry = write(tmp_path, header, ROWS[:0])
    assert entry["sha256"] == fingerprint(tmp_path / entry["name"])["sha256"]
    assert read_shard(tmp_path / entry["name"])[1]["fc7_weight"].shape == (0, 3)


def test_a_single_shard_is_fc7_params():
    assert [shard_name(0, 1), shard_name(7, 12)] == ["fc7.params", "fc7-00007-of-00012.params"]


def test_an_error_leaves_no_file(tmp_path):
    few = RowBlocks((3, 3), ROWS.dtype, [ROWS])
    with pytest.raises(ValueError, match="must have 3 rows, got 2"):
        write_shard(tmp_path, HEADER, {"fc7_weight": few})
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused_by_name(tmp_path):
    path = tmp_path / write(tmp_path)["name"]
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ShardError, match=f"{re.escape(str(path))}: the shard is damaged"):
            read_shard(path)


@pytest.mark.parametrize(
    "about",
    [None, np.zeros(4, np.uint8), np.ones((2, 2), np.uint8), np.ones(3, np.float32)]
    + [np.frombuffer(text, np.uint8) for text in (b"[1]", b"{}", b"\xff", b'{"run": 1}')],
)
def test_a_file_without_a_valid_header_is_refused_by_name(tmp_path, about):
    path = tmp_path / "fc7.params"
    arrays = {"fc7_weight": ROWS} if about is None else {"about": about}
    with path.open("wb") as file:
        write_arrays(file, arrays)
    with pytest.raises(ShardError, match="fc7.params: the shard is damaged, got no valid array"):
        read_shard(path)


def test_a_missing_or_unreadable_shard_is_refused_by_name(tmp_path):
    with pytest.raises(ShardError, match="fc7.params: the shard is missing, got no such file"):
        read_shard(tmp_path / "fc7.params")
    (tmp_path / "fc7.params").mkdir()
    with pytest.raises(CheckpointError, match=r"fc7.params: cannot be read, got Is a directory"):
        read_shard(tmp_path / "fc7.params")
