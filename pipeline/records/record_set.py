# SPDX-License-Identifier: Apache-2.0
"""RecordSet: which images there are, whose they are and where each lies."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records.mapped import RecordError

LINES = 1 << 14  # rows worked on at a time: what they take beside the columns stays small
_FILE_BITS = 40  # an id is the key, and from here on the place of the file


def parts(count: int) -> list[slice]:
    """Return the slices in which so many rows are worked on."""
    return [slice(start, start + LINES) for start in range(0, count, LINES)]


@dataclass(frozen=True)
class RecordSet:
    """The images of one record set or of several, set by set in the order of their keys.

    Row i of the arrays is one image: ``keys`` (N,) int32 or int64, its key in its .idx;
    ``offsets`` (N,) int64, its place in its .rec in bytes; ``labels`` (N,) int32, its person;
    ``file`` (N,) int16, which of ``files`` it is in.  ``origins`` (num_classes, 2) int64 says
    which person each class is, as (place in ``files``, label there), where labels were stacked or
    renumbered; the place is -1 where the sets share their labels.  ``notices`` are sentences on
    what the files leave out, for the log.
    """

    files: tuple[Path, ...]
    file: np.ndarray
    keys: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    num_classes: int
    image_size: tuple[int, int]
    origins: np.ndarray | None = None
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def name(self) -> str:
        """The files, for messages."""
        return ", ".join(str(rec) for rec in self.files)

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """Return a number for each row that no other image has; in one set it is the key."""
        return self.keys[rows] + (self.file[rows].astype(np.int64) << _FILE_BITS)

    def is_in_file_order(self) -> bool:
        """Return whether the rows are in the order of their records, set by set."""
        for part in parts(len(self)):
            part = slice(part.start, part.stop + 1)
            file, offsets = self.file[part], self.offsets[part]
            if not ((offsets[1:] > offsets[:-1]) | (file[1:] != file[:-1])).all():
                return False
        return True

    def in_file_order(self) -> np.ndarray | None:
        """Return the rows in the order of their records, (N,); None where that is 0, 1, 2, ..."""
        return None if self.is_in_file_order() else np.lexsort((self.offsets, self.file))

    def by_file(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Return (file, places in ``rows`` of its images) for each file that rows lie in."""
        if len(self.files) == 1:
            return [(0, np.arange(len(rows)))]
        file = self.file[rows]
        return [(int(one), np.flatnonzero(file == one)) for one in np.unique(file)]

    def checksums(self) -> dict[str, int]:
        """Return checksums of what says which images these are, under names that begin with crc_.

        Where the files lie does not count.  Neither do the bytes of the images: all would have to
        be read.
        """
        found = {}
        for name in ("file", "keys", "offsets", "labels"):
            crc = 0
            for part in parts(len(self)):  # as int64, whichever type the column was kept in
                crc = zlib.crc32(getattr(self, name)[part].astype(np.int64), crc)
            found[f"crc_{name}"] = crc
        return found

    def image_name(self, row: int) -> str:
        """Return the words that name an image in a message."""
        return f"{self.files[self.file[row]]}: the image of key {self.keys[row]}"

    def image_error(self, row: int, what: str) -> RecordError:
        """Return the error of an image with which something is wrong, wherever it is found."""
        return RecordError(
            f"{self.image_name(row)} {what}; fix the record or leave its key out of the .idx"
        )
