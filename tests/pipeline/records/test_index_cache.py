# SPDX-License-Identifier: Apache-2.0
"""Index files: correct, written with little memory, shared by ranks, absent after a full disk."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipeline.records import index_cache, record_set
from pipeline.records.index_cache import (
    image_index,
    load_columns,
    narrow,
    save_columns,
    write_image_index,
)
from pipeline.records.open import open_records
from pipeline.records.record_set import RecordError, RecordSet


def no_locks(*arguments):
    raise OSError(9, "Bad file descriptor")


def disk_is_full(*arguments):
    raise OSError(28, "No space left on device")


def table_of(keys, offsets) -> RecordSet:
    """Return a set for tests that use its keys and offsets alone."""
    count = len(keys)
    return RecordSet(
        files=(Path("a.rec"),),
        file=np.zeros(count, np.int16),
        keys=np.asarray(keys),
        offsets=np.asarray(offsets),
        labels=np.zeros(count, np.int32),
        num_classes=1,
        image_size=(112, 112),
    )


@pytest.mark.parametrize("lines", [1, 3, 1 << 14])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_image_index_of_numbers_with_any_number_of_digits(tmp_path, monkeypatch, lines, dtype):
    monkeypatch.setattr(record_set, "SLICE_ROWS", lines)
    keys = np.array([0, 9, 10, 99, 100, 101_010, 2**31 - 1], dtype)
    offsets = np.array([0, 1 << 40, 7, 10**12, 10, 90, 2**62])
    write_image_index(table_of(keys, offsets), tmp_path / "images.idx")
    expected = "".join(f"{k}\t{o}\n" for k, o in zip(keys, offsets))
    assert (tmp_path / "images.idx").read_text() == expected
    assert [f.name for f in tmp_path.iterdir()] == ["images.idx"]


def test_writing_an_image_index_needs_little_memory(tmp_path):
    records = table_of(np.arange(1, 600_001), np.arange(600_000) * 9000)
    tracemalloc.start()
    write_image_index(records, tmp_path / "images.idx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20  # it does not grow with the number of rows
    table = np.loadtxt(tmp_path / "images.idx", dtype=np.int64)
    assert (table == np.stack([records.keys, records.offsets], axis=1)).all()


def test_a_full_disk_leaves_the_old_image_index(tmp_path, monkeypatch):
    (tmp_path / "images.idx").write_text("before")
    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(RecordError) as caught:
        write_image_index(table_of([1], [0]), tmp_path / "images.idx")
    assert str(caught.value) == (
        f"{tmp_path}: cannot be written, got No space left on device; free disk space or "
        "choose another run.dir"
    )
    assert [f.name for f in tmp_path.iterdir()] == ["images.idx"]
    assert (tmp_path / "images.idx").read_text() == "before"


def test_a_damaged_image_index_is_written_again(tmp_path):
    records = table_of(np.arange(1, 101), np.arange(100) * 100)
    path = image_index(records, tmp_path)
    whole, checksum = path.read_bytes(), path.with_suffix(".crc").read_bytes()
    for damaged in (path, path.with_suffix(".crc")):
        content = bytearray(damaged.read_bytes())
        content[5] ^= 1
        for harm in (bytes(content), bytes(content[:5]), b"", None):
            damaged.unlink() if harm is None else damaged.write_bytes(harm)
            assert image_index(records, tmp_path) == path
            assert path.read_bytes() == whole
            assert path.with_suffix(".crc").read_bytes() == checksum


def test_ranks_share_an_image_index(tmp_path, monkeypatch):
    written, found = [], []

    def write(records, path):
        written.append(path)
        write_image_index(records, path)

    monkeypatch.setattr(index_cache, "write_image_index", write)
    records = table_of(np.arange(1, 5001), np.arange(5000) * 100)
    folder = tmp_path / "run" / "index"
    ranks = [
        threading.Thread(target=lambda: found.append(image_index(records, folder)))
        for _ in range(8)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert len(found) == 8 and len(set(found)) == len(written) == 1
    (path,) = set(found)
    assert path.parent == folder and len(path.read_text().splitlines()) == 5000
    # A resumed run finds the file; other images get another file.
    assert image_index(records, folder) == path and len(written) == 1
    assert image_index(table_of(records.keys[1:], records.offsets[1:]), folder) != path
    # On a file system without locks every rank writes the same file.
    monkeypatch.setattr(index_cache.fcntl, "flock", no_locks)
    assert image_index(records, tmp_path / "other").name == path.name
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="file/index: cannot be written, got Not a directory; "):
        image_index(records, tmp_path / "file" / "index")


def test_saved_columns_load_unchanged_and_are_written_once(tmp_path, monkeypatch):
    path = tmp_path / "run" / "columns.npy"
    columns = [np.array([7, 2**40]), narrow(np.array([1, -2])), narrow(np.array([0.5, 1.0]))]
    save_columns(path, *columns)
    found = load_columns(path, 3)
    assert [column.dtype for column in found] == [np.int64, np.int32, np.float64]
    assert [column.tolist() for column in found] == [[7, 2**40], [1, -2], [0.5, 1.0]]
    save_columns(path, *columns[::-1])  # does not replace the file of another rank
    assert load_columns(path, 3)[0].tolist() == [7, 2**40]
    assert [file.name for file in path.parent.iterdir()] == ["columns.npy"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError):
        load_columns(path, 3)


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ([0.0, 2**31 - 1.0], np.int32),
        ([0.0, 2.0**31], np.float64),
        ([float("nan")], np.float64),
        ([-(2**31)], np.int32),
        ([2**31], np.int64),
    ],
)
def test_numbers_are_narrowed_if_no_value_changes(numbers, dtype):
    numbers = np.array(numbers)
    assert narrow(numbers).dtype == dtype
    np.testing.assert_array_equal(narrow(numbers), numbers)


def test_image_index_leaves_out_header_and_identity_records(make_records, tmp_path):
    folder = make_records(4, 3)
    write_image_index(open_records(folder, tmp_path), tmp_path / "images.idx")
    lines = (folder / "train.idx").read_text().splitlines()
    assert (tmp_path / "images.idx").read_text().splitlines() == lines[1:13]  # keys 1 to 12
