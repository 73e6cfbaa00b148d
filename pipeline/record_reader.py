# SPDX-License-Identifier: Apache-2.0
"""Pictures of a record set by row: JPEG bytes through memory maps of the .rec files."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from pipeline.record_file import MAGIC, RecordError, map_rec, read_headers
from pipeline.records import RecordSet

if TYPE_CHECKING:
    from ops.feed import Feed  # which brings MXNet

AHEAD_AGAIN = 64  # calls after the last wait for the disk that are read ahead for
LARGEST_OVER_MEAN = 16


class Memory:
    """Arrays (B, S) of bytes that are used again: one stays as it is for the next ``kept`` calls.

    New memory for each batch costs as much as filling it.
    """

    def __init__(self, kept: int):
        self._arrays = deque([np.empty(0, dtype=np.uint8)] * (kept + 1))

    def take(self, count: int, size: int) -> np.ndarray:
        """Return an array (count, size), not initialised."""
        self._arrays.rotate()
        if self._arrays[0].size < count * size:
            self._arrays[0] = np.empty(count * size * 5 // 4, dtype=np.uint8)
        return self._arrays[0][: count * size].reshape(count, size)


class RecordReader:
    """Pictures of a record set by row, through memory maps of the .rec files.

    Parameters
    ----------
    feed
        The compiled functions, which ``gather`` and ``read_ahead`` use.
    """

    def __init__(self, records: RecordSet, feed: Feed | None = None):
        self._records, self._feed = records, feed
        self._data = [map_rec(rec) for rec in records.files]
        self._mean = sum(data.size for data in self._data) // len(records)
        self._ahead = AHEAD_AGAIN  # calls that are still read ahead for
        if feed is not None:
            for data in self._data:
                feed.read_randomly(data)

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the JPEG bytes of the rows, each a uint8 array (n,).

        Most are views of the memory map; nothing is read from disk before its bytes are touched.

        Raises
        ------
        RecordError
            If no whole record starts at the offset of a row.
        """
        if len(self._data) == 1:
            return self._read(self._data[0], rows)
        pictures: list[np.ndarray] = [np.empty(0, np.uint8)] * len(rows)
        file = self._records.file[rows]
        for place in np.unique(file):
            here = np.flatnonzero(file == place)
            found = self._read(self._data[place], rows[here])
            for i, picture in zip(here.tolist(), found, strict=True):
                pictures[i] = picture
        return pictures

    def gather(self, rows: np.ndarray, memory: Memory) -> np.ndarray | list[np.ndarray]:
        """Return the JPEG bytes of the rows as one array, uint8 (B, S).

        Each picture is followed by an end-of-image marker and zeros, which decoders pass over.
        Without a step of Python per picture.  The list that ``read`` gives where there are no
        compiled functions, a record is in parts, or one picture is so large that the others would
        be lost in zeros.

        Parameters
        ----------
        memory
            Where the array comes from.

        Raises
        ------
        RecordError
            If no whole record starts at the offset of a row.
        """
        if self._feed is None:
            return self.read(rows)
        offsets = self._records.offsets[rows]
        sizes = np.empty(len(rows), dtype=np.int64)
        groups = self._by_file(rows)
        for file, places in groups:
            sizes[places], waited = self._feed.picture_bytes(self._data[file], offsets[places])
            self._ahead = AHEAD_AGAIN if waited else max(0, self._ahead - 1)
        longest = int(sizes.max())
        if sizes.min() < 0 or longest > LARGEST_OVER_MEAN * max(sizes.mean(), 4096):
            return self.read(rows)
        array = memory.take(len(rows), longest + 2)
        for file, places in groups:
            self._feed.gather(self._data[file], offsets[places], sizes[places], array, places)
        return array

    def read_ahead(self, rows: np.ndarray) -> None:
        """Have the records of rows that will be wanted soon fetched from the disk.

        Does nothing once everything that is wanted has been in memory for a while.
        """
        if self._feed is None or not self._ahead or not len(rows):
            return
        offsets = self._records.offsets[rows]
        for file, places in self._by_file(rows):
            self._feed.read_ahead(self._data[file], offsets[places], 2 * self._mean)

    def _by_file(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Return (file, places in ``rows`` of its pictures) for each file that is read."""
        if len(self._data) == 1:
            return [(0, np.arange(len(rows)))]
        file = self._records.file[rows]
        return [(int(one), np.flatnonzero(file == one)) for one in np.unique(file)]

    def _read(self, data: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
        offsets = self._records.offsets[rows]
        headers = read_headers(data, offsets)
        start = offsets + 32 + 4 * headers.flag.astype(np.int64)
        end = offsets + 8 + headers.length
        bad = (headers.magic != MAGIC) | (start >= end) | (end > len(data))
        if bad.any():
            raise self._error(int(rows[np.flatnonzero(bad)[0]]), "holds no whole record")
        pictures = [data[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)]
        for i in np.flatnonzero(headers.continued):
            whole = self._join(data, int(rows[i]), int(offsets[i]))
            pictures[i] = whole[start[i] - offsets[i] - 8 :]
        return pictures

    def _join(self, data: np.ndarray, row: int, offset: int) -> np.ndarray:
        """Return the payload of a record in parts.

        A picture that holds the magic number at a multiple of 4 is cut there by the writer, which
        leaves the number out; the reader puts it back.
        """
        parts: list[np.ndarray] = []
        while True:
            if offset + 8 > len(data):
                raise self._error(row, "ends in the middle of a record in parts")
            magic, length = data[offset : offset + 8].view("<u4").tolist()
            part, length = length >> 29, length & (1 << 29) - 1
            if magic != MAGIC or part not in ((1,) if not parts else (2, 3)):
                raise self._error(row, "holds a broken record in parts")
            if parts:
                parts.append(np.frombuffer(MAGIC.to_bytes(4, "little"), np.uint8))
            parts.append(data[offset + 8 : offset + 8 + length])
            if part == 3:
                return np.concatenate(parts)
            offset += 8 + (length + 3) // 4 * 4

    def _error(self, row: int, what: str) -> RecordError:
        records = self._records
        return RecordError(
            f"{records.files[records.file[row]]}: {what} at the place of key {records.keys[row]}, "
            f"got offset {records.offsets[row]}; the .rec has changed or is damaged, make or copy "
            "it again"
        )
