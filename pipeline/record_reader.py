# SPDX-License-Identifier: Apache-2.0
"""Pictures of a record set by row: JPEG bytes through memory maps of the .rec files."""

from __future__ import annotations

import numpy as np

from pipeline.record_file import MAGIC, RecordError, map_rec, read_headers
from pipeline.records import RecordSet


class RecordReader:
    """Pictures of a record set by row, through memory maps of the .rec files."""

    def __init__(self, records: RecordSet):
        self._records = records
        self._data = [map_rec(rec) for rec in records.files]

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
