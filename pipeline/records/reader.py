# SPDX-License-Identifier: Apache-2.0
"""RecordReader: JPEG bytes of a record set by row, through memory maps of the .rec files."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from encoded_images import has_end, may_turn, upright
from pipeline.records import mapped, recordio
from pipeline.records.mapped import RecordError, check_file, read_piece
from pipeline.records.recordio import MAGIC, empty_record_error, frames, map_rec, read_headers

if TYPE_CHECKING:
    from ops.feed import LoaderKernels  # imports MXNet
    from pipeline.records.record_set import RecordSet

CUT_OFF_IMAGE = "is cut off, got an end-of-image marker before its last pixels"
MAX_SIZE_OVER_MEAN = 16  # the largest image of an array sets the length of all of its rows
_MIN_MEAN_BYTES = 4096  # used instead of a smaller mean size


class BufferRing:
    """Reusable byte buffers (B, S); a buffer stays valid during the next ``kept`` calls.

    Allocating new memory for each batch would take as long as filling it.
    """

    def __init__(self, kept: int):
        self._buffers = deque([np.empty(0, dtype=np.uint8)] * (kept + 1))

    def take(self, count: int, size: int) -> np.ndarray:
        """Return an uninitialised array, uint8 (count, size)."""
        self._buffers.rotate()
        if self._buffers[0].size < count * size:
            self._buffers[0] = np.empty(count * size * 5 // 4, dtype=np.uint8)
        return self._buffers[0][: count * size].reshape(count, size)


class RecordReader:
    """JPEG bytes of a record set by row.

    ``find`` needs ``kernels``, the compiled functions; so does the array that ``gather`` returns.
    """

    def __init__(self, records: RecordSet, kernels: LoaderKernels | None = None):
        self.records, self.kernels = records, kernels
        self.maps = [map_rec(rec) for rec in records.files]
        """Bytes of each .rec, uint8 (n,)."""
        columns = (records.keys, records.offsets, records.labels, records.file)
        self.files = mapped.mapped_files([*self.maps, *columns])
        """One array per mapped file: the .rec files and the cached index."""
        # Bytes and number of the images read so far, for their mean.  The initial image has the
        # mean size of the records in the files, or more if the set leaves records out.
        self._bytes, self._count = sum(data.size for data in self.maps) // len(records), 1

    @property
    def mean_bytes(self) -> int:
        """Mean size in bytes of the images read so far."""
        return self._bytes // self._count

    @property
    def is_guarded(self) -> bool:
        """Return whether other readers may map the .rec files although they may become shorter."""
        return all(map(mapped.is_guarded, self.maps))

    def check_files(self) -> None:
        """Raise RecordError if a mapped file became shorter, or cannot be read.

        The bytes read from it may then be zeros.  It takes a microsecond per file.
        """
        for data in self.files:
            check_file(data)

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the JPEG bytes of each row, uint8 (n,).

        If the maps are guarded (``pipeline.records.mapped``), most arrays are views of them, and
        the kernel reads the file only when their bytes are used.  Call ``check_files`` after that.

        Raises
        ------
        RecordError
            If no whole record starts at the offset of a row, or a file became shorter.
        """
        if len(self.maps) == 1:
            return self._read(self.maps[0], rows)
        images: list[np.ndarray] = [np.empty(0, np.uint8)] * len(rows)
        for file, places in self.records.by_file(rows):
            found = self._read(self.maps[file], rows[places])
            for place, image in zip(places.tolist(), found, strict=True):
                images[place] = image
        return images

    def find(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the memory addresses of the images of rows and their sizes in bytes, int64 (B,).

        The size is 0 for a record that is damaged and for one in several frames; ``read``
        distinguishes them.
        """
        assert self.kernels is not None
        offsets = self.records.offsets[rows]
        addresses, sizes = np.empty((2, len(rows)), dtype=np.int64)
        for file, places in self.records.by_file(rows):
            addresses[places], sizes[places] = self.kernels.find_images(
                self.maps[file], offsets[places]
            )
        np.maximum(sizes, 0, out=sizes)
        self._update_mean(int(sizes.sum()), int(np.count_nonzero(sizes)))
        return addresses, sizes

    def gather(
        self, rows: np.ndarray, buffers: BufferRing | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Return the JPEG bytes of the rows in one array from ``buffers``, uint8 (B, S).

        An end-of-image marker and zeros, which decoders ignore, follow each image.  No Python code
        runs per image.

        The result is a list like that of ``read`` if there are no buffers or no compiled functions,
        if a record has several frames, if Exif turns an image, or if one image is so large that
        the array would be mostly zeros.  The list holds an upright copy without Exif of each image
        that Exif turns, because DALI ignores Exif.

        Raises
        ------
        RecordError
            As ``read``, and if an image is truncated, or one that Exif turns cannot be decoded.
        """
        array = None if buffers is None else self._gather(rows, buffers)
        if array is not None:
            return array
        images = self.read(rows)
        copies = self._replace_turned(rows, images)
        self._update_mean(sum(map(len, images)), len(rows))
        return copies or images

    def check(self, rows: np.ndarray) -> list[np.ndarray] | None:
        """Return the list of ``gather`` if Exif turns one of its images, else None.

        For rows that another reader, such as DALI's, reads.  Raises as ``gather`` does.
        """
        return self._replace_turned(rows, self.read(rows))

    def _gather(self, rows: np.ndarray, buffers: BufferRing) -> np.ndarray | None:
        """Return the array of ``gather``; None if ``gather`` has to return a list."""
        if self.kernels is None:
            return None
        addresses, sizes = self.find(rows)
        longest = int(sizes.max())
        if not sizes.min() or longest > MAX_SIZE_OVER_MEAN * max(sizes.mean(), _MIN_MEAN_BYTES):
            return None
        if self.kernels.find_turned(addresses, sizes).any():
            return None
        array = buffers.take(len(rows), longest + 2)
        if self.kernels.gather(addresses, sizes, array):  # some image has no end-of-image marker
            images = [row[:size] for row, size in zip(array, sizes.tolist(), strict=True)]
            self._check_ends(rows, images)
        return array

    def _check_ends(self, rows: np.ndarray, images: list[np.ndarray]) -> None:
        """Raise RecordError for a JPEG without an end: decoders invent the missing pixels."""
        for row, image in zip(rows.tolist(), images, strict=True):
            if not has_end(image):
                self.check_files()
                raise self.records.image_error(row, "cannot be decoded")

    def _replace_turned(
        self, rows: np.ndarray, images: list[np.ndarray]
    ) -> list[np.ndarray] | None:
        """Check the images and replace those that Exif turns; return None if there are none."""
        self._check_ends(rows, images)
        turned = [place for place, image in enumerate(images) if may_turn(image)]
        if not turned:
            return None
        images = list(images)
        for place in turned:
            row, image = int(rows[place]), images[place]
            if self.kernels is not None and self.kernels.is_cut_off(image):
                raise self.records.image_error(row, CUT_OFF_IMAGE)
            copy = upright(image)
            if copy is None:
                raise self.records.image_error(row, "cannot be decoded")
            images[place] = copy
        return images

    def _update_mean(self, size: int, count: int) -> None:
        self._bytes += size
        self._count += count

    def _read(self, data: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
        """Return the JPEG bytes of rows that lie in one file."""
        offsets = self.records.offsets[rows]
        headers = read_headers(data, offsets)
        start = offsets + 32 + 4 * headers.flag.astype(np.int64)
        end = offsets + 8 + headers.length
        bad = np.flatnonzero((headers.magic != MAGIC) | (start >= end) | (end > len(data)))
        if len(bad):
            place = int(bad[0])
            row = int(rows[place])
            if headers.magic[place] != MAGIC or end[place] > len(data):
                raise self._record_error(row, "holds no complete record")
            self.check_files()
            rec, key = self.records.files[self.records.file[row]], int(self.records.keys[row])
            length, flag = int(headers.length[place]), int(headers.flag[place])
            raise empty_record_error(rec, key, length, flag)
        images = mapped.read_pieces(data, start, end)
        for i in np.flatnonzero(headers.cflag):
            payload = self._join_frames(data, int(rows[i]), int(offsets[i]))
            images[i] = payload[start[i] - offsets[i] - 8 :]
        return images

    def _join_frames(self, data: np.ndarray, row: int, offset: int) -> np.ndarray:
        """Return the payload of a record in several frames, with the magic number between them."""
        magic = np.frombuffer(MAGIC.to_bytes(4, "little"), np.uint8)
        parts: list[np.ndarray] = []
        for cflag, start, length, end in frames(data, offset):
            if cflag not in ((recordio.MIDDLE, recordio.LAST) if parts else (recordio.FIRST,)):
                break
            parts += [magic, read_piece(data, start, length)]
            if cflag == recordio.LAST:
                return np.concatenate(parts[1:])
            offset = end
        problem = "ends inside a" if offset + 8 > len(data) else "holds a damaged"
        raise self._record_error(row, f"{problem} record of several frames")

    def _record_error(self, row: int, problem: str) -> RecordError:
        self.check_files()
        records = self.records
        return RecordError(
            f"{records.files[records.file[row]]}: {problem} for key {records.keys[row]}, "
            f"got offset {records.offsets[row]}; the .rec has changed or is damaged, make or copy "
            "it again"
        )
