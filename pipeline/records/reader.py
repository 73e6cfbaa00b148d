# SPDX-License-Identifier: Apache-2.0
"""Images of a record set by row: JPEG bytes through memory maps of the .rec files."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from encoded_images import has_end, may_turn, upright
from pipeline.records import mapped, recordio
from pipeline.records.mapped import RecordError, check_file, piece
from pipeline.records.recordio import MAGIC, frames, map_rec, no_image, read_headers

if TYPE_CHECKING:
    from ops.feed import LoaderKernels  # which brings MXNet
    from pipeline.records.record_set import RecordSet

CUT_OFF_IMAGE = "is cut off, got an end-of-image marker before its last pixels"
MAX_SIZE_OVER_MEAN = 16  # of an image in an array of images; its row sets the length of all
_MIN_MEAN_BYTES = 4096  # that the mean is taken for there


class BufferRing:
    """Reusable byte buffers (B, S); a buffer is valid for the next ``kept`` calls.

    New memory for each batch costs as much as filling it.
    """

    def __init__(self, kept: int):
        self._buffers = deque([np.empty(0, dtype=np.uint8)] * (kept + 1))

    def take(self, count: int, size: int) -> np.ndarray:
        """Return an array (count, size), not initialised."""
        self._buffers.rotate()
        if self._buffers[0].size < count * size:
            self._buffers[0] = np.empty(count * size * 5 // 4, dtype=np.uint8)
        return self._buffers[0][: count * size].reshape(count, size)


class RecordReader:
    """Images of a record set by row, through memory maps of the .rec files.

    With ``kernels``, ``gather`` makes arrays and ``find`` works.
    """

    def __init__(self, records: RecordSet, kernels: LoaderKernels | None = None):
        self.records, self.kernels = records, kernels
        self.maps = [map_rec(rec) for rec in records.files]
        """The bytes of each .rec, uint8 (n,)."""
        columns = (records.keys, records.offsets, records.labels, records.file)
        self.files = mapped.maps_of([*self.maps, *columns])
        """An array for each mapped file that is read."""
        # Bytes and number of the images that were read, for their mean.  The first one stands for
        # the files, whose share per image is too much where the set leaves records out.
        self._bytes, self._count = sum(data.size for data in self.maps) // len(records), 1

    @property
    def mean_bytes(self) -> int:
        """The mean size of an image, as far as they were read."""
        return self._bytes // self._count

    @property
    def is_guarded(self) -> bool:
        """Whether whoever maps the .rec files may read them though they may become shorter."""
        return all(map(mapped.is_guarded, self.maps))

    def check_files(self) -> None:
        """Raise RecordError if a file became shorter since it was mapped, or cannot be read.

        What was read of it may then be zeros. Takes a microsecond for each file.
        """
        for data in self.files:
            check_file(data)

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the JPEG bytes of the rows, each a uint8 array (n,).

        Most are views of the memory map, if it is guarded (``pipeline.records.mapped``); nothing is
        read from disk before its bytes are touched.  Call ``check_files`` once they were used.

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
        """Return where in memory the images of rows begin and their bytes, int64 (B,) and (B,).

        With the compiled functions only.  0 bytes where no whole record lies, and for a record in
        parts: ``read`` tells them apart.
        """
        assert self.kernels is not None
        offsets = self.records.offsets[rows]
        addresses, sizes = np.empty((2, len(rows)), dtype=np.int64)
        for file, places in self.records.by_file(rows):
            addresses[places], sizes[places] = self.kernels.find_images(
                self.maps[file], offsets[places]
            )
        np.maximum(sizes, 0, out=sizes)
        self._learn(int(sizes.sum()), int(np.count_nonzero(sizes)))
        return addresses, sizes

    def gather(
        self, rows: np.ndarray, buffers: BufferRing | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Return the JPEG bytes of the rows as one array out of ``buffers``, uint8 (B, S).

        Each image is followed by an end-of-image marker and zeros, which decoders pass over.
        Without a step of Python per image.  A list like that of ``read`` where there are no
        buffers or compiled functions, a record is in parts, Exif turns an image, or one image is so
        large that the others would be lost in zeros.  An image that Exif turns is replaced by an
        upright copy without Exif, since DALI turns none.

        Raises
        ------
        RecordError
            As ``read``, and if an image was cut off, or one that Exif turns cannot be decoded.
        """
        array = None if buffers is None else self._gather(rows, buffers)
        if array is not None:
            return array
        images = self.read(rows)
        copies = self._checked(rows, images)
        self._learn(sum(map(len, images)), len(rows))
        return copies or images

    def check(self, rows: np.ndarray) -> list[np.ndarray] | None:
        """Return what ``gather`` would, for rows that somebody else reads.

        None where that is what the records hold.  Raises as ``gather`` does.
        """
        return self._checked(rows, self.read(rows))

    def _gather(self, rows: np.ndarray, buffers: BufferRing) -> np.ndarray | None:
        """Return the array of ``gather``; None where a list is needed."""
        if self.kernels is None:
            return None
        addresses, sizes = self.find(rows)
        longest = int(sizes.max())
        if not sizes.min() or longest > MAX_SIZE_OVER_MEAN * max(sizes.mean(), _MIN_MEAN_BYTES):
            return None
        if self.kernels.find_turned(addresses, sizes).any():
            return None
        array = buffers.take(len(rows), longest + 2)
        if self.kernels.gather(addresses, sizes, array):
            images = [row[:size] for row, size in zip(array, sizes.tolist(), strict=True)]
            self._refuse_cut_off(rows, images)
        return array

    def _refuse_cut_off(self, rows: np.ndarray, images: list[np.ndarray]) -> None:
        """Refuse a JPEG without its end: decoders make up what is missing, and few say so."""
        for row, image in zip(rows.tolist(), images, strict=True):
            if not has_end(image):
                self.check_files()
                raise self.records.image_error(row, "cannot be decoded")

    def _checked(self, rows: np.ndarray, images: list[np.ndarray]) -> list[np.ndarray] | None:
        """Return images with upright copies of those that Exif turns; None where it turns none."""
        self._refuse_cut_off(rows, images)
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

    def _learn(self, size: int, count: int) -> None:
        self._bytes += size
        self._count += count

    def _read(self, data: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
        offsets = self.records.offsets[rows]
        headers = read_headers(data, offsets)
        start = offsets + 32 + 4 * headers.flag.astype(np.int64)
        end = offsets + 8 + headers.length
        bad = (headers.magic != MAGIC) | (start >= end) | (end > len(data))
        if bad.any():
            place = int(np.flatnonzero(bad)[0])
            row = int(rows[place])
            if headers.magic[place] != MAGIC or end[place] > len(data):
                raise self._error(row, "holds no whole record")
            self.check_files()
            rec, key = self.records.files[self.records.file[row]], int(self.records.keys[row])
            raise no_image(rec, key, int(headers.length[place]), int(headers.flag[place]))
        images = mapped.pieces(data, start, end)
        for i in np.flatnonzero(headers.cflag):
            whole = self._join(data, int(rows[i]), int(offsets[i]))
            images[i] = whole[start[i] - offsets[i] - 8 :]
        return images

    def _join(self, data: np.ndarray, row: int, offset: int) -> np.ndarray:
        """Return the payload of a record in parts, with the magic number between them."""
        magic = np.frombuffer(MAGIC.to_bytes(4, "little"), np.uint8)
        parts: list[np.ndarray] = []
        for cflag, start, length, end in frames(data, offset):
            if cflag not in ((recordio.MIDDLE, recordio.LAST) if parts else (recordio.FIRST,)):
                break
            parts += [magic, piece(data, start, length)]
            if cflag == recordio.LAST:
                return np.concatenate(parts[1:])
            offset = end
        fault = "ends in the middle of a" if offset + 8 > len(data) else "holds a broken"
        raise self._error(row, f"{fault} record in parts")

    def _error(self, row: int, what: str) -> RecordError:
        self.check_files()
        records = self.records
        return RecordError(
            f"{records.files[records.file[row]]}: {what} at the place of key {records.keys[row]}, "
            f"got offset {records.offsets[row]}; the .rec has changed or is damaged, make or copy "
            "it again"
        )
