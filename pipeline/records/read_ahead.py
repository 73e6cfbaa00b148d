# SPDX-License-Identifier: Apache-2.0
"""Read ahead: ask the kernel to load records from the disk before the loader needs them."""

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

SAMPLE_RECORDS = 16  # number of records per call whose pages mincore checks
CALLS_AFTER_MISS = 64  # number of calls that read ahead after a call found missing pages
# Largest assumed size of a record, as a multiple of the mean size.  The distance to the next record
# of the set may be larger, because other records lie between the two.
MAX_GAP_OVER_MEAN = 4


class ReadAhead:
    """Loads records into memory in the background; call it with rows that are needed soon.

    Each call checks with mincore whether the pages of a few sample records are in memory.  After
    CALLS_AFTER_MISS calls without a missing page, ``ReadAhead`` asks the kernel for no records
    until a page is missing again.  The first call marks the files for random access, so the kernel
    reads a missing page without its neighbours.  The reader's compiled functions, if available,
    make the calls faster.
    """

    def __init__(self, records: RecordSet, reader: RecordReader):
        self._records, self._reader = records, reader
        self._visible = [is_residency_visible(rec) for rec in records.files]
        self._remaining_calls = 0  # number of further calls that read ahead
        self._in_file_order: bool | None = None  # unknown yet

    def __call__(self, rows: np.ndarray) -> None:
        """Ask the kernel to load the records of ``rows`` (n,) unless they seem to be in memory."""
        maps = self._reader.maps
        if self._in_file_order is None:
            self._in_file_order = self._records.is_in_file_order()
            for data in maps:
                advise(data, np.array([0]), np.array([data.size]), mmap.MADV_RANDOM)
        if not len(rows):
            return
        sample = rows[np.linspace(0, len(rows) - 1, SAMPLE_RECORDS).astype(np.int64)]
        if not all(
            self._visible[file] and are_resident(maps[file], start, size)
            for file, start, size in self._pages(sample)
        ):
            self._remaining_calls = CALLS_AFTER_MISS
        if not self._remaining_calls:
            return
        self._remaining_calls -= 1
        kernels = self._reader.kernels
        for file, start, size in self._pages(rows):
            if kernels is None:
                advise(maps[file], start, size, mmap.MADV_WILLNEED)
            else:
                kernels.read_ahead(maps[file], start, size)

    def _pages(self, rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return the pages that hold the records of ``rows``, for each file.

        The result is a list of (file index, offsets, sizes); offsets and sizes are arrays in bytes.
        """
        offsets, mean = self._records.offsets[rows], self._reader.mean_bytes
        sizes = np.full(len(rows), 2 * mean)
        if self._in_file_order:  # a record ends where the next record begins
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
    """Return the pages that hold pieces of a mapped file, as arrays (offsets, sizes) in bytes.

    Adjacent and overlapping pieces are merged.
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
    """Call madvise with ``advice`` for page ranges (offset, size) of a mapped file."""
    address = data.ctypes.data
    for offset, length in zip(start.tolist(), size.tolist(), strict=True):
        libc().madvise(address + offset, length, advice)


def are_resident(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> bool:
    """Return whether page ranges of a mapped file are completely in memory; False if mincore fails.

    The check does not load any page.
    """
    pages = -(-size // mmap.PAGESIZE)
    resident = np.zeros(int(pages.sum()), dtype=np.uint8)
    address, out = data.ctypes.data, resident.ctypes.data
    for offset, length, count in zip(start.tolist(), size.tolist(), pages.tolist(), strict=True):
        if libc().mincore(address + offset, length, out):
            return False
        out += count
    return bool((resident & 1).all())


def is_residency_visible(path: Path) -> bool:
    """Return whether mincore tells this process which pages of a file are in memory.

    If the process neither owns nor may write a file, mincore reports all of its pages as resident.
    """
    try:
        return path.stat().st_uid == os.geteuid() or os.access(path, os.W_OK)
    except OSError:
        return False
