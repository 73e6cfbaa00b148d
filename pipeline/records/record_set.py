# SPDX-License-Identifier: Apache-2.0
"""RecordSet: keys, offsets and labels of the images of one or more record sets."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.records.mapped import RecordError

SLICE_ROWS = 1 << 14  # number of rows processed at a time, to keep temporary arrays small
_ID_KEY_BITS = 40  # the id of an image is its key + (file index << 40)


class ImageError(RecordError):
    """Error about one image that cannot be read or decoded; the other images may be good.

    Parameters
    ----------
    row
        Row of the image in its record set.
    problem
        Main clause of the message, which names the file, the key and the fault.
    cure
        What the user can do.
    """

    def __init__(self, row: int, problem: str, cure: str):
        super().__init__(f"{problem}; {cure}")
        self.row, self.problem, self._cure = row, problem, cure

    def __reduce__(self) -> tuple[type[ImageError], tuple[int, str, str]]:
        # Worker processes send errors as pickles.  By default pickle would call the constructor
        # with the message only.
        return type(self), (self.row, self.problem, self._cure)


def row_slices(count: int) -> list[slice]:
    """Split ``count`` rows into slices of at most SLICE_ROWS rows."""
    return [slice(start, start + SLICE_ROWS) for start in range(0, count, SLICE_ROWS)]


@dataclass(frozen=True)
class RecordSet:
    """Images of one or more record sets, sorted by set and then by key.

    Entry i of each array describes image i, also called row i.  N is the number of images.
    """

    files: tuple[Path, ...]  # the .rec files
    file: np.ndarray  # (N,) int16, index of the image's file in ``files``
    keys: np.ndarray  # (N,) int32 or int64, key in the .idx
    offsets: np.ndarray  # (N,) int64, offset of the record in its .rec in bytes
    labels: np.ndarray  # (N,) int32, class of the image
    num_classes: int
    image_size: tuple[int, int]  # (height, width) in pixels
    # (num_classes, 2) int64, or None if labels were neither stacked nor renumbered.  Each row is
    # the origin of one class: the index of its file in ``files``, and its label in that file.  If
    # a label means the same person in all files, the index is -1.
    origins: np.ndarray | None = None
    # For each file, a text that identifies the file's labels and images (class_record.py).
    fingerprints: tuple[str, ...] = ()
    # Sentences for the log, for example about records that the set leaves out.
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def name(self) -> str:
        """Paths of the .rec files, joined by commas for messages."""
        return ", ".join(map(str, self.files))

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """Return a unique number for each row, int64; with one .rec the number is the key."""
        return self.keys[rows] + (self.file[rows].astype(np.int64) << _ID_KEY_BITS)

    def is_in_file_order(self) -> bool:
        """Return whether the rows are sorted by file and then by offset in the file."""
        for part in row_slices(len(self)):
            part = slice(part.start, part.stop + 1)
            file, offsets = self.file[part], self.offsets[part]
            if not ((offsets[1:] > offsets[:-1]) | (file[1:] != file[:-1])).all():
                return False
        return True

    def file_order(self) -> np.ndarray | None:
        """Return the rows (N,) sorted by file and offset; None if they already have that order."""
        return None if self.is_in_file_order() else np.lexsort((self.offsets, self.file))

    def by_file(self, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Group rows by file; return a list of pairs (file index, places).

        ``places`` are the indices, within the array ``rows``, of the rows of that file.
        """
        if len(self.files) == 1:
            return [(0, np.arange(len(rows)))]
        file = self.file[rows]
        return [(int(index), np.flatnonzero(file == index)) for index in np.unique(file)]

    def checksums(self) -> dict[str, int]:
        """Return checksums that identify the images, under names that begin with ``crc_``.

        The checksums cover the file number, key, offset and label of each image.  They do not cover
        the folders, so a moved set keeps its checksums.  They do not cover the bytes of the images,
        because reading all images would take too long.
        """
        found = {}
        for name in ("file", "keys", "offsets", "labels"):
            crc = 0
            for part in row_slices(len(self)):  # as int64, because a column may be int32 or int64
                crc = zlib.crc32(getattr(self, name)[part].astype(np.int64), crc)
            found[f"crc_{name}"] = crc
        return found

    def image_name(self, row: int) -> str:
        """Return the name of an image for messages: its file and its key."""
        return f"{self.files[self.file[row]]}: the image of key {self.keys[row]}"

    def image_error(self, row: int, problem: str) -> ImageError:
        """Return an error about one image.

        ``problem`` is the predicate of the message, for example "cannot be decoded".
        """
        cure = "fix the record or leave its key out of the .idx"
        return ImageError(row, f"{self.image_name(row)} {problem}", cure)
