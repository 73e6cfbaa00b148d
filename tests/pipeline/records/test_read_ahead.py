# SPDX-License-Identifier: Apache-2.0
"""Read-ahead: which pages it asks the kernel for, and when."""

from __future__ import annotations

import mmap
import os
import time

import numpy as np
import pytest

import ops
from pipeline.records import read_ahead as module
from pipeline.records.open import open_records
from pipeline.records.read_ahead import (
    CALLS_AFTER_MISS,
    MAX_GAP_OVER_MEAN,
    ReadAhead,
    are_resident,
    pages_of,
)
from pipeline.records.reader import RecordReader
from pipeline.records.recordio import map_rec, read_headers

PAGE = mmap.PAGESIZE
FETCH_TIMEOUT_S = 120


class FakeKernel:
    """Fake kernel: reports whether pages are resident and records the advice."""

    def __init__(self, resident: bool):
        self.resident = resident
        self.asked: list[tuple[int, int]] = []  # (offset, bytes) of the last call
        self.calls = 0  # calls of read_ahead
        self.random = 0

    def are_resident(self, data, start, size):
        assert (start % PAGE == 0).all() and (start + size <= data.size).all()
        return self.resident

    def advise(self, data, start, size, advice):
        if advice == mmap.MADV_RANDOM:
            self.random += 1
            return
        assert advice == mmap.MADV_WILLNEED
        self.read_ahead(data, start, size)

    def read_ahead(self, data, start, size):  # as in ops.feed
        assert (start % PAGE == 0).all() and (start + size <= data.size).all()
        self.asked = list(zip(start.tolist(), size.tolist()))
        self.calls += 1


@pytest.fixture
def system(monkeypatch):
    system = FakeKernel(resident=False)
    monkeypatch.setattr(module, "are_resident", system.are_resident)
    monkeypatch.setattr(module, "advise", system.advise)
    return system


@pytest.fixture(params=["compiled", "plain"])
def read_ahead(request, system, tiny_records, tmp_path):
    records = open_records(tiny_records, tmp_path)
    return ReadAhead(
        records, RecordReader(records, system if request.param == "compiled" else None)
    )


ROWS = np.array([3, 90, 17, 41])


def test_missing_pages_are_read_ahead_in_every_call(system, read_ahead):
    for count in range(1, 1001):
        read_ahead(ROWS)
        assert system.calls == count
    assert system.random == 1  # MADV_RANDOM once


def test_resident_pages_are_not_read_ahead(system, read_ahead):
    system.resident = True
    for _ in range(1000):
        read_ahead(ROWS)
    assert system.calls == 0
    system.resident = False  # evicted
    read_ahead(ROWS)
    assert system.calls == 1


def test_read_ahead_continues_for_a_while_after_a_miss(system, read_ahead):
    read_ahead(ROWS)
    system.resident = True
    for _ in range(1000):
        read_ahead(ROWS)
    assert system.calls == CALLS_AFTER_MISS


def test_files_with_invisible_residency_are_always_read_ahead(
    system, monkeypatch, tiny_records, tmp_path
):
    monkeypatch.setattr(module, "is_residency_visible", lambda path: False)
    system.resident = True  # mincore reports this for such files
    records = open_records(tiny_records, tmp_path)
    read_ahead = ReadAhead(records, RecordReader(records))
    for count in range(1, 201):
        read_ahead(ROWS)
        assert system.calls == count


def test_no_rows_need_no_read_ahead(system, read_ahead):
    read_ahead(np.empty(0, dtype=np.int64))
    assert system.calls == 0


def covered(records, rows, asked):
    """Return, per row, whether the advice covers all pages of its record."""
    headers = read_headers(map_rec(records.files[0]), records.offsets[rows])
    pages = {p for start, size in asked for p in range(start // PAGE, -(-(start + size) // PAGE))}
    return [
        set(range(offset // PAGE, -(-(offset + 8 + length) // PAGE))) <= pages
        for offset, length in zip(records.offsets[rows].tolist(), headers.length.tolist())
    ]


def sized(*sizes):
    """Return images of these sizes in bytes, which no decoder accepts."""
    return [(0, b"\xff\xd8" + bytes(size - 4) + b"\xff\xd9") for size in sizes]


def test_records_are_read_ahead_with_their_exact_size(system, make_records, tmp_path):
    sizes = np.random.default_rng(0).integers(3_000, 30_000, 50)
    folder = make_records(1, 50, samples=sized(*sizes), header=False)
    records = open_records(folder, tmp_path)
    read_ahead = ReadAhead(records, RecordReader(records, system))
    for rows in (np.array([30, 7, 12, 49, 0]), np.arange(50)):
        read_ahead(rows)
        assert all(covered(records, rows, system.asked))
    assert system.asked == [(0, os.path.getsize(records.files[0]))]  # adjacent records are merged
    read_ahead(np.array([7]))
    start = records.offsets[7] // PAGE * PAGE
    assert system.asked == [(start, records.offsets[8] - start)]


def test_records_outside_the_set_are_not_read_ahead(system, make_records, tmp_path):
    folder = make_records(1, 400, samples=sized(*[9_000] * 400), header=False)
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[:20] + lines[380:]))
    records = open_records(folder, tmp_path)
    reader = RecordReader(records, system)
    read_ahead = ReadAhead(records, reader)
    reader._update_mean(40 * 9_000, 40)
    read_ahead(np.array([19]))
    assert all(covered(records, np.array([19]), system.asked))
    assert sum(size for _, size in system.asked) <= MAX_GAP_OVER_MEAN * 2 * 9_000  # of 3 million


@pytest.mark.parametrize("compiled", [True, False])
def test_records_out_of_file_order_are_read_ahead_with_twice_the_mean(
    system, make_records, tmp_path, compiled
):
    folder = make_records(1, 60, samples=sized(*[9_000] * 60), header=False)
    lines = [line.split("\t") for line in (folder / "train.idx").read_text().splitlines()]
    keys = np.random.default_rng(0).permutation(len(lines)) + 1
    text = "".join(f"{key}\t{offset}\n" for key, (_, offset) in zip(keys, lines))
    (folder / "train.idx").write_text(text)
    records = open_records(folder, tmp_path)
    read_ahead = ReadAhead(records, RecordReader(records, system if compiled else None))
    rows = np.arange(0, 60, 20)
    read_ahead(rows)
    assert all(covered(records, rows, system.asked))
    assert sum(size for _, size in system.asked) < 3 * (2 * 9_100 + 2 * PAGE)


def test_every_file_gets_its_own_advice(system, make_records, tmp_path):
    folders = [make_records(4, 3), make_records(3, 2, header=False)]
    records = open_records(folders, tmp_path)
    read_ahead = ReadAhead(records, RecordReader(records, system))
    read_ahead(np.arange(len(records)))
    assert system.calls == 2 and system.random == 2


@pytest.mark.parametrize("operators", ["native", "plain"])
def test_records_that_are_read_ahead_become_resident(make_records, tmp_path, operators):
    ops.use(operators)
    folder = make_records(1, 100, samples=sized(*[20_000] * 100), header=False)
    records = open_records(folder, tmp_path)
    with open(records.files[0], "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    data = map_rec(records.files[0])
    rows = np.array([70, 10, 40])

    def resident(rows):
        pages = pages_of(data, records.offsets[rows], np.full(len(rows), 20_032))
        return are_resident(data, *pages)

    if resident(np.array([99])):
        pytest.skip("this file system keeps its files in memory")
    read_ahead = ReadAhead(records, RecordReader(records, ops.loader_kernels()))
    assert not resident(rows)
    read_ahead(rows)
    until = time.monotonic() + FETCH_TIMEOUT_S
    while not resident(rows) and time.monotonic() < until:
        time.sleep(0.01)
    assert resident(rows)
    assert not resident(np.array([99])) and not resident(np.array([25]))  # no other pages


def test_pages_are_merged_and_end_with_the_file():
    data = np.zeros(20 * PAGE + 5, dtype=np.uint8)

    def found(*pieces):
        offsets, sizes = np.array(pieces, dtype=np.int64).reshape(-1, 2).T
        return [tuple(piece) for piece in np.stack(pages_of(data, offsets, sizes), 1).tolist()]

    assert found() == []
    assert found((5, 10)) == [(0, 15)]
    assert found((PAGE + 1, PAGE), (2 * PAGE + 1, 7)) == [(PAGE, PAGE + 8)]
    assert found((9 * PAGE, 9), (3 * PAGE, 4)) == [(9 * PAGE, 9), (3 * PAGE, 4)]
    assert found((20 * PAGE + 1, 9999)) == [(20 * PAGE, 5)]
    assert found((0, 1), (50 * PAGE, 7), (4 * PAGE, 2)) == [(0, 1), (4 * PAGE, 2)]


def test_pages_count_as_missing_if_mincore_fails(make_records, tmp_path):
    data = map_rec(open_records(make_records(4, 3), tmp_path).files[0])
    assert not are_resident(data, np.array([1]), np.array([PAGE]))  # not the start of a page


def test_the_residency_of_a_removed_file_is_invisible(tmp_path):
    path = tmp_path / "train.rec"
    path.write_bytes(b"x")
    assert module.is_residency_visible(path)
    path.unlink()
    assert not module.is_residency_visible(path)
