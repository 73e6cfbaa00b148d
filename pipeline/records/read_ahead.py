# SPDX-License-Identifier: Apache-2.0
"""Read-ahead: have records fetched from the disk before they are wanted."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.mapped import libc

if TYPE_CHECKING:
    from pipeline.records.reader import RecordReader
    from pipeline.records.record_set import RecordSet

SAMPLE_RECORDS = 16  # of a call, whose pages are looked up
CALLS_AFTER_MISS = 64  # that ask for their records after the last one that found pages missing
MAX_GAP_OVER_MEAN = 4  # a longer gap between two records is taken for one that was left out


class ReadAhead:
    """Fetches the records of rows that will be wanted soon; to be called with these rows.

    A sample says whether they are in memory; nothing is asked for once all of it has been there
    for a while.  From the first call on the system takes the files to be read here and there: a
    page that is missing is fetched alone.  Faster if the reader has the compiled functions.
    """

    def __init__(self, records: RecordSet, reader: RecordReader):
        self._records, self._reader = records, reader
        self._visible = [is_residency_visible(rec) for rec in records.files]
        self._remaining = 0  # calls that will still ask
        self._in_file_order: bool | None = None  # not known before the first call

    def __call__(self, rows: np.ndarray) -> None:
        """Fetch the records of rows (n,) in the background."""
        if self._in_file_order is None:
            self._in_file_order = self._records.is_in_file_order()
            for data in self._reader.maps:
                advise(data, np.array([0]), np.array([data.size]), mmap.MADV_RANDOM)
        if not len(rows):
            return
        sample = rows[np.linspace(0, len(rows) - 1, SAMPLE_RECORDS).astype(np.int64)]
        if not all(
            self._visible[file] and are_resident(self._reader.maps[file], start, size)
            for file, start, size in self._pages(sample)
        ):
            self._remaining = CALLS_AFTER_MISS
        if not self._remaining:
            return
        self._remaining -= 1
        kernels = self._reader.kernels
        for file, start, size in self._pages(rows):
            if kernels is None:
                advise(self._reader.maps[file], start, size, mmap.MADV_WILLNEED)
            else:
                kernels.read_ahead(self._reader.maps[file], start, size)

    def _pages(self, rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return (file, offsets, sizes) of the pages that hold the records of some rows."""
        offsets, mean = self._records.offsets[rows], self._reader.mean_bytes
        sizes = np.full(len(rows), 2 * mean)
        if self._in_file_order:  # a record ends where the next one begins
            following = np.minimum(rows + 1, len(self._records) - 1)
            gaps = self._records.offsets[following] - offsets
            sizes = np.where(gaps > 0, np.minimum(gaps, MAX_GAP_OVER_MEAN * mean), sizes)
        return [
            (file, *pages_of(self._reader.maps[file], offsets[places], sizes[places]))
            for file, places in self._records.by_file(rows)
        ]


def pages_of(
    data: np.ndarray, offsets: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (offsets, sizes) of the whole pages that hold some pieces of a mapped file.

    Pieces that follow each other become one.
    """
    start = offsets // mmap.PAGESIZE * mmap.PAGESIZE
    end = np.minimum(offsets + sizes, data.size)
    start, end = start[start < end], end[start < end]
    if not len(start):
        return start, end
    is_first = np.ones(len(start), dtype=bool)
    is_first[1:] = (start[1:] < start[:-1]) | (start[1:] > end[:-1])
    first = np.flatnonzero(is_first)
    return start[first], np.maximum.reduceat(end, first) - start[first]


def advise(data: np.ndarray, start: np.ndarray, size: np.ndarray, advice: int) -> None:
    """Tell the system what whole pages of a mapped file will be used for."""
    address = data.ctypes.data
    for where, count in zip(start.tolist(), size.tolist(), strict=True):
        libc().madvise(address + where, count, advice)


def are_resident(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> bool:
    """Return whether whole pages of a mapped file are all in memory; False if that is not known.

    Fetches none.
    """
    pages = -(-size // mmap.PAGESIZE)
    resident = np.zeros(int(pages.sum()), dtype=np.uint8)
    address, out = data.ctypes.data, resident.ctypes.data
    for where, count, n in zip(start.tolist(), size.tolist(), pages.tolist(), strict=True):
        if libc().mincore(address + where, count, out):
            return False
        out += n
    return bool((resident & 1).all())


def is_residency_visible(path: Path) -> bool:
    """Return whether the system tells this process which pages of a file are in memory.

    Of a file of others, which it could not write, it says that all are.
    """
    try:
        return path.stat().st_uid == os.geteuid() or os.access(path, os.W_OK)
    except OSError:
        return False
