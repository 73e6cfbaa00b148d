# SPDX-License-Identifier: Apache-2.0
"""RecordSet: keys, offsets and labels of the images of one record set or of several."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records.mapped import RecordError

SLICE_ROWS = 1 << 14  # rows processed at a time, to keep temporary arrays small
_ID_KEY_BITS = 40  # an image's id is its key + (file index << 40)


def row_slices(count: int) -> list[slice]:
    """Return the slices in which ``count`` rows are processed."""
    return [slice(start, start + SLICE_ROWS) for start in range(0, count, SLICE_ROWS)]


@dataclass(frozen=True)
class RecordSet:
    """The images of one record set or of several, set by set in the order of their keys.

    Row i of the arrays is one image.
    """

    files: tuple[Path, ...]  # the .rec files
    file: np.ndarray  # (N,) int16, index of the image's file in ``files``
    keys: np.ndarray  # (N,) int32 or int64, key in the .idx
    offsets: np.ndarray  # (N,) int64, offset of the record in its .rec in bytes
    labels: np.ndarray  # (N,) int32, class of the image
    num_classes: int
    image_size: tuple[int, int]  # (height, width) in pixels
    # (num_classes, 2) int64, if labels were stacked or renumbered: the person of each class as
    # (index in ``files``, label there); the index is -1 if the sets share their labels.
    origins: np.ndarray | None = None
    notices: tuple[str, ...] = ()  # sentences for the log about records that the set leaves out

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def name(self) -> str:
        """Names of the files, for messages."""
        return ", ".join(map(str, self.files))

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """Return a unique number for each row, int64; in a single set it is the key."""
        return self.keys[rows] + (self.file[rows].astype(np.int64) << _ID_KEY_BITS)

    def is_in_file_order(self) -> bool:
        """Return whether the rows have the order of their records, set by set."""
        for part in row_slices(len(self)):
            part = slice(part.start, part.stop + 1)
            file, offsets = self.file[part], self.offsets[part]
            if not ((offsets[1:] > offsets[:-1]) | (file[1:] != file[:-1])).all():
                return False
        return True

    def file_order(self) -> np.ndarray | None:
        """Return the rows in the order of their records, (N,); None if that is 0, 1, 2, ..."""
        return None if self.is_in_file_order() else np.lexsort((self.offsets, self.file))

    def by_file(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Return (file index, indices into ``rows`` of the images in it) for each file."""
        if len(self.files) == 1:
            return [(0, np.arange(len(rows)))]
        file = self.file[rows]
        return [(int(index), np.flatnonzero(file == index)) for index in np.unique(file)]

    def checksums(self) -> dict[str, int]:
        """Return checksums that identify the images, under names that begin with ``crc_``.

        They ignore the folders of the files.  They also ignore the bytes of the images, which would
        all have to be read.
        """
        found = {}
        for name in ("file", "keys", "offsets", "labels"):
            crc = 0
            for part in row_slices(len(self)):  # as int64, since a column may be int32
                crc = zlib.crc32(getattr(self, name)[part].astype(np.int64), crc)
            found[f"crc_{name}"] = crc
        return found

    def image_name(self, row: int) -> str:
        """Return the subject of a message about an image: its file and key."""
        return f"{self.files[self.file[row]]}: the image of key {self.keys[row]}"

    def image_error(self, row: int, problem: str) -> RecordError:
        """Return the error for an image; ``problem`` continues a sentence about it."""
        return RecordError(
            f"{self.image_name(row)} {problem}; fix the record or leave its key out of the .idx"
        )
