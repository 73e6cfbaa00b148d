# SPDX-License-Identifier: Apache-2.0
"""Rows of arrays in several files are read by range, in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from mxnet_arrays import find_arrays, write_arrays
from training import stored_rows
from training.checkpoint_files import CheckpointError
from training.stored_rows import StoredRows, block_ranges

VALUES = np.arange(36, dtype=np.float32).reshape(12, 3)


@pytest.fixture
def rows(tmp_path):
    parts = []
    for number, part in enumerate((VALUES[:5], VALUES[5:5], VALUES[5:9], VALUES[9:])):
        path = tmp_path / f"{number}.params"
        with path.open("wb") as file:
            write_arrays(file, {"before": np.ones(number + 1), "centres": part})
        parts.append((path, find_arrays(path)["centres"]))
    return StoredRows(parts)


def test_the_object_describes_the_array(rows):
    assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == ((12, 3), np.float32, 2, 12)
    assert np.array_equal(np.asarray(rows), VALUES)
    assert np.asarray(rows, np.float64).dtype == np.float64


@pytest.mark.parametrize("block_bytes", [1, 12, 30, 1 << 20])
def test_blocks_give_every_range(rows, monkeypatch, block_bytes):
    monkeypatch.setattr(stored_rows, "BLOCK_BYTES", block_bytes)
    for start in range(12):
        for stop in range(start + 1, 13):
            blocks = list(rows.blocks(start, stop))
            assert np.array_equal(np.concatenate(blocks), VALUES[start:stop])
            assert max(block.nbytes for block in blocks) <= max(12, block_bytes)
    assert list(rows.blocks(4, 4)) == []


def test_slices_and_row_numbers_read_the_rows(rows, monkeypatch):
    monkeypatch.setattr(stored_rows, "BLOCK_BYTES", 24)
    assert np.array_equal(rows[3:10], VALUES[3:10]) and np.array_equal(rows[:], VALUES)
    assert rows[7:3].shape == (0, 3) and rows[-2:].tolist() == VALUES[-2:].tolist()
    for numbers in ([11, 0, 4, 4, 9], [], [5]):
        assert np.array_equal(rows[np.array(numbers, int)], VALUES[np.array(numbers, int)])
    for numbers in ([12], [-1]):
        with pytest.raises(IndexError, match=f"must be from 0 to 11, got {numbers[0]}"):
            rows[np.array(numbers)]
    with pytest.raises(IndexError, match="must have the step 1, got 2"):
        rows[::2]


def test_a_file_that_has_become_shorter_or_missing_is_reported(rows, tmp_path):
    path = tmp_path / "2.params"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(CheckpointError, match=r"2.params: is truncated, got \d+ of 48 bytes"):
        rows[:]
    path.unlink()
    with pytest.raises(CheckpointError, match=r"2.params: is missing"):
        rows[5:6]
    assert np.array_equal(rows[:5], VALUES[:5])


def test_a_row_longer_than_a_block_is_one_block():
    assert list(block_ranges(2, 5, 1 << 30)) == [(2, 3), (3, 4), (4, 5)]
