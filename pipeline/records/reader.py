# SPDX-License-Identifier: Apache-2.0
"""RecordReader: read the JPEG bytes of a record set's rows through memory maps of .rec files."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from encoded_images import has_end, may_turn, upright
from image_headers import has_size, stored_size
from pipeline.records import mapped, recordio
from pipeline.records.mapped import check_file, read_piece
from pipeline.records.record_set import ImageError
from pipeline.records.recordio import MAGIC, empty_record_error, frames, map_rec, read_headers

if TYPE_CHECKING:
    from ops.feed import LoaderKernels
    from pipeline.records.record_set import RecordSet

CUT_OFF_IMAGE = "is cut off, got an end-of-image marker before its last pixels"
# Largest size of an image in an array of images, as a multiple of the mean size.  All rows of the
# array are as long as its largest image.
MAX_SIZE_OVER_MEAN = 16
_MIN_MEAN_BYTES = 4096  # MAX_SIZE_OVER_MEAN multiplies the mean size, or this size if it is larger


class BufferRing:
    """Ring of reusable byte buffers; each stays valid during the next ``kept`` calls of ``take``.

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
    """Reads the JPEG bytes of a record set by row.

    ``kernels`` are the compiled functions.  ``find`` requires them, and without them ``gather``
    always returns a list.
    """

    def __init__(self, records: RecordSet, kernels: LoaderKernels | None = None):
        self.records, self.kernels = records, kernels
        self.maps = [map_rec(rec) for rec in records.files]
        """Memory-mapped bytes of each .rec file, uint8 (n,)."""
        columns = (records.keys, records.offsets, records.labels, records.file)
        self.files = mapped.mapped_files([*self.maps, *columns])
        """Bytes of each mapped file, uint8 (n,): the .rec files and the cached index."""
        # Total size and number of the images read so far.  The initial values stand for one image.
        # Its size is estimated as the total size of the files, divided by the number of images in
        # the set.  This estimate is too large if the set omits records of the files.
        self._bytes, self._count = sum(data.size for data in self.maps) // len(records), 1

    @property
    def mean_bytes(self) -> int:
        """Mean size in bytes of the images read so far."""
        return self._bytes // self._count

    @property
    def is_guarded(self) -> bool:
        """Return whether every map of a .rec is safe to read even if the file becomes shorter.

        Only then may other readers, such as DALI's, map the same files.
        """
        return all(map(mapped.is_guarded, self.maps))

    def check_files(self) -> None:
        """Raise RecordError if a mapped file became shorter or cannot be read.

        Bytes that were read from such a file may be zeros.  The check takes a microsecond per file.
        """
        for data in self.files:
            check_file(data)

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return a list with the JPEG bytes of each row, uint8 (n,).

        If the maps are guarded (``pipeline.records.mapped``), most arrays of the list are views of
        the maps, and the kernel reads the file only when the bytes are used.  Call ``check_files``
        after you have decoded or copied the bytes, and before you use the result.

        Raises
        ------
        RecordError
            If no complete record starts at the offset of a row, or if a file became shorter.
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
        """Return the memory address and the size in bytes of each row's image, both int64 (B,).

        The size is 0 if the record is damaged or consists of several frames.  ``read``
        distinguishes these two cases.
        """
        addresses, sizes = self._find(rows)
        self._update_mean(int(sizes.sum()), int(np.count_nonzero(sizes)))
        return addresses, sizes

    def _find(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.kernels is not None
        offsets = self.records.offsets[rows]
        addresses, sizes = np.empty((2, len(rows)), dtype=np.int64)
        for file, places in self.records.by_file(rows):
            addresses[places], sizes[places] = self.kernels.find_images(
                self.maps[file], offsets[places]
            )
        np.maximum(sizes, 0, out=sizes)
        return addresses, sizes

    def gather(
        self, rows: np.ndarray, buffers: BufferRing | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Return the JPEG bytes of the rows in one array from ``buffers``, uint8 (B, S).

        In the array, an end-of-image marker and zeros, which decoders ignore, follow each image.
        No Python code runs per image.

        The result is a list, as from ``read``, in these cases: there are no buffers or no compiled
        functions; a record has several frames; an image has an Exif orientation that rotates or
        flips it; or one image is so large that the array would be mostly zeros.  In the list, an
        upright copy without Exif replaces each image that the Exif orientation rotates or flips,
        because DALI ignores Exif.

        Raises
        ------
        RecordError
            In the cases of ``read`` and ``check_sizes``; also if an image is truncated, or if an
            upright copy is needed but the image cannot be decoded.
        """
        if self.kernels is not None:
            self.check_sizes(rows)
        array = None if buffers is None else self._gather(rows, buffers)
        if array is not None:
            return array
        images = self.read(rows)
        if self.kernels is None:
            self._check_sizes(rows, images)
        copies = self._replace_turned(rows, images)
        self._update_mean(sum(map(len, images)), len(rows))
        return copies or images

    def check(self, rows: np.ndarray) -> list[np.ndarray] | None:
        """Check the images of rows that another reader, such as DALI's, reads.

        If the Exif orientation rotates or flips one of the images, the result is the list that
        ``gather`` would return; otherwise it is None.  Raises the same errors as ``gather``, except
        those of ``check_sizes``.
        """
        return self._replace_turned(rows, self.read(rows))

    def check_sizes(self, rows: np.ndarray) -> None:
        """Check the sizes that the headers of the images state, before anything decodes them.

        A decoder allocates memory for the stated size, which may be gigabytes for a small image.

        Raises
        ------
        RecordError
            If an image has neither the image size of the record set nor that size with height and
            width exchanged, or if the header of an image states no size.
        """
        if self.kernels is not None:
            addresses, sizes = self._find(rows)
            rows = rows[self.kernels.find_other_sizes(addresses, sizes, self.records.image_size)]
        if len(rows):
            self._check_sizes(rows, self.read(rows))

    def _check_sizes(self, rows: np.ndarray, images: list[np.ndarray]) -> None:
        expected = self.records.image_size
        for row, jpeg in zip(rows.tolist(), images, strict=True):
            image = jpeg.tobytes()
            if has_size(image, expected):
                continue
            self.check_files()
            size, problem = stored_size(image), "cannot be decoded"
            if size is not None:
                problem = "is {}x{} pixels, not {}x{}".format(*size, *expected)
            raise self.records.image_error(row, problem)

    def _gather(self, rows: np.ndarray, buffers: BufferRing) -> np.ndarray | None:
        """Return the array of ``gather``; None if ``gather`` must return a list instead."""
        if self.kernels is None:
            return None
        addresses, sizes = self.find(rows)
        longest = int(sizes.max())
        if not sizes.min() or longest > MAX_SIZE_OVER_MEAN * max(sizes.mean(), _MIN_MEAN_BYTES):
            return None
        if self.kernels.find_turned(addresses, sizes).any():
            return None
        array = buffers.take(len(rows), longest + 2)
        if self.kernels.gather(addresses, sizes, array):  # number of images without end marker
            images = [row[:size] for row, size in zip(array, sizes.tolist(), strict=True)]
            self._check_ends(rows, images)
        return array

    def _check_ends(self, rows: np.ndarray, images: list[np.ndarray]) -> None:
        """Raise RecordError if a JPEG has no end-of-image marker.

        Decoders would invent the missing pixels of such a truncated image.
        """
        for row, image in zip(rows.tolist(), images, strict=True):
            if not has_end(image):
                self.check_files()
                raise self.records.image_error(row, "cannot be decoded")

    def _replace_turned(
        self, rows: np.ndarray, images: list[np.ndarray]
    ) -> list[np.ndarray] | None:
        """Check the images; replace those that Exif rotates or flips by upright copies.

        Return the new list, or None if no image needs a copy.
        """
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
        """Return a list with the JPEG bytes of rows whose records are all in the file ``data``."""
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
            problem, _, cure = str(empty_record_error(rec, key, length, flag)).rpartition("; ")
            raise ImageError(row, problem, cure)
        images = mapped.read_pieces(data, start, end)
        for i in np.flatnonzero(headers.cflag):
            payload = self._join_frames(data, int(rows[i]), int(offsets[i]))
            images[i] = payload[start[i] - offsets[i] - 8 :]
        return images

    def _join_frames(self, data: np.ndarray, row: int, offset: int) -> np.ndarray:
        """Return the payload of a record that consists of several frames.

        The magic number is inserted between the frames, because the writer removed it there.
        """
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

    def _record_error(self, row: int, problem: str) -> ImageError:
        self.check_files()
        records = self.records
        return ImageError(
            row,
            f"{records.files[records.file[row]]}: {problem} for key {records.keys[row]}, "
            f"got offset {records.offsets[row]}",
            "the .rec has changed or is damaged, make or copy it again",
        )
