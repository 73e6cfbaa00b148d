# SPDX-License-Identifier: Apache-2.0
"""RecordSet: ids, file order, checksums and names of images in messages."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.records import record_set
from pipeline.records.record_set import ImageError, RecordSet, row_slices


def made(offsets, file=None, keys=None) -> RecordSet:
    """Return a set with images at these offsets of one file, or of the files with these indexes."""
    count = len(offsets)
    return RecordSet(
        files=(Path("a.rec"), Path("b.rec"))[: 1 if file is None else 2],
        file=np.zeros(count, np.int16) if file is None else np.asarray(file, np.int16),
        keys=np.arange(count) if keys is None else np.asarray(keys),
        offsets=np.asarray(offsets),
        labels=np.arange(count, dtype=np.int32) // 2,
        num_classes=count,
        image_size=(112, 112),
    )


TWO = made([0, 48, 96, 0, 48], file=[0, 0, 0, 1, 1], keys=[1, 2, 3, 1, 2])


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_slices_cover_every_row_once(monkeypatch, count):
    monkeypatch.setattr(record_set, "SLICE_ROWS", 3)
    rows = [np.arange(count)[part] for part in row_slices(count)]
    assert [len(part) for part in rows[:-1]] == [3] * (len(rows) - 1)
    assert np.concatenate([np.arange(0), *rows]).tolist() == list(range(count))


def test_a_swap_in_the_file_order_is_found_across_slices(monkeypatch):
    monkeypatch.setattr(record_set, "SLICE_ROWS", 3)
    for swapped in range(8):
        offsets = np.arange(9) * 10
        offsets[[swapped, swapped + 1]] = offsets[[swapped + 1, swapped]]
        expected = list(range(9))
        expected[swapped : swapped + 2] = swapped + 1, swapped
        assert made(offsets).file_order().tolist() == expected
    assert made(np.arange(9) * 10).file_order() is None


def test_file_order_is_set_by_set():
    assert TWO.is_in_file_order() and TWO.file_order() is None
    assert made([48, 0, 96, 48, 0], file=TWO.file).file_order().tolist() == [1, 0, 2, 4, 3]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_ids_of_two_sets_are_unique(dtype):
    both = replace(TWO, keys=TWO.keys.astype(dtype))
    ids = both.ids(np.arange(5))
    assert ids.dtype == np.int64 and len(set(ids.tolist())) == 5
    assert ids[:3].tolist() == [1, 2, 3]  # the first set: its keys


def test_rows_are_grouped_by_file():
    def found(records, rows):
        return [(file, places.tolist()) for file, places in records.by_file(np.array(rows))]

    assert found(TWO, [4, 0, 3, 1]) == [(0, [1, 3]), (1, [0, 2])]
    assert found(TWO, [3, 4]) == [(1, [0, 1])]
    assert found(made([0, 48]), [1, 0, 1]) == [(0, [0, 1, 2])]


def test_an_image_is_named_by_file_and_key():
    assert TWO.name == "a.rec, b.rec"
    assert TWO.image_name(4) == "b.rec: the image of key 2"
    assert str(TWO.image_error(0, "is green")) == (
        "a.rec: the image of key 1 is green; fix the record or leave its key out of the .idx"
    )


def test_checksums_identify_a_set():
    records = made(np.arange(12) * 48)
    sums = records.checksums()
    assert set(sums) == {"crc_file", "crc_keys", "crc_offsets", "crc_labels"}
    # Folders and dtypes do not matter.
    moved = replace(records, files=(Path("elsewhere.rec"),), keys=records.keys.astype(np.int32))
    assert moved.checksums() == sums
    for name in ("keys", "offsets", "labels", "file"):
        column = getattr(records, name).copy()
        column[[1, 2]] = column[[2, 1]] if name != "file" else 1
        if name == "labels":
            column[1] += 1
        changed = replace(records, **{name: column}).checksums()
        assert {key for key in sums if changed[key] != sums[key]} == {f"crc_{name}"}


def test_an_image_error_of_a_worker_process_keeps_its_row_and_message():
    problem = "a.rec: key 8 is damaged"
    error = pickle.loads(pickle.dumps(ImageError(7, problem, "copy it again")))
    assert type(error) is ImageError and (error.row, error.problem) == (7, problem)
    assert str(error) == f"{problem}; copy it again"
