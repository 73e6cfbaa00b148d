# SPDX-License-Identifier: Apache-2.0
"""Pictures of a record set by row: JPEG bytes through memory maps of the .rec files."""

from __future__ import annotations

import mmap
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from encoded_images import has_end, may_turn, upright
from pipeline.records import mapped
from pipeline.records.open import RecordSet
from pipeline.records.read_ahead import advise, all_in_memory, pages_of, tells
from pipeline.records.recordio import (
    MAGIC,
    Headers,
    RecordError,
    check_file,
    copied,
    map_rec,
    no_image,
    piece,
    read_headers,
)

if TYPE_CHECKING:
    from ops.feed import LoaderKernels  # which brings MXNet

SAMPLE = 16  # records of a call to ``read_ahead`` whose pages are looked for
ASK_AGAIN = 64  # calls that ask for their records after the last one that found pages missing
LARGEST_OVER_MEAN = 16
CUT_OFF_IMAGE = "is cut off, got an end-of-image marker before its last pixels"
ASKED_OVER_MEAN = 4  # a longer gap between two records is taken for one that was left out


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
        The compiled functions, with which ``gather`` makes arrays and ``read_ahead`` is faster.
    """

    def __init__(self, records: RecordSet, feed: LoaderKernels | None = None):
        self._records, self._feed = records, feed
        self._data = [map_rec(rec) for rec in records.files]
        columns = (records.keys, records.offsets, records.labels, records.file)
        self._files = mapped.maps_of([*self._data, *columns])
        self._tells = [tells(rec) for rec in records.files]
        # Bytes and number of the pictures that were read, for their mean.  The first one stands for
        # the files, whose share per picture is too much where the set leaves records out.
        self._bytes, self._count = sum(data.size for data in self._data) // len(records), 1
        self._asking = 0  # calls of read_ahead that will still ask
        self._in_file_order: bool | None = None  # not known before anything is read ahead

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the JPEG bytes of the rows, each a uint8 array (n,).

        Most are views of the memory map, if it is guarded (``pipeline.records.mapped``); nothing is
        read from disk before its bytes are touched. ``check_files`` is to be called once they
        were used.

        Raises
        ------
        RecordError
            If no whole record starts at the offset of a row, or a file became shorter.
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

    def gather(
        self, rows: np.ndarray, memory: Memory | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Return the JPEG bytes of the rows as one array, uint8 (B, S).

        Each picture is followed by an end-of-image marker and zeros, which decoders pass over.
        Without a step of Python per picture.  A list like that of ``read`` where there are no
        compiled functions, a record is in parts, Exif turns an image, or one picture is so large
        that the others would be lost in zeros.  An image that Exif turns is replaced by an upright
        copy without Exif, since DALI turns none.

        Parameters
        ----------
        memory
            Where the array comes from; None for a list in any case.

        Raises
        ------
        RecordError
            If no whole record starts at the offset of a row, a picture was cut off, or one that
            Exif turns cannot be decoded.
        """
        found = None if memory is None else self._gathered(rows, memory)
        if found is None:
            pictures = self.read(rows)
            self._refuse_cut_off(rows, pictures)
            self._learn(sum(map(len, pictures)), len(rows))
            return self._upright(rows, pictures) or pictures
        return found

    @property
    def is_guarded(self) -> bool:
        """Whether whoever maps the .rec files may read them though they may become shorter."""
        return all(map(mapped.is_guarded, self._data))

    @property
    def files(self) -> list[np.ndarray]:
        """An array for each mapped file that is read."""
        return self._files

    def check_files(self) -> None:
        """Raise RecordError if a file became shorter since it was mapped, or cannot be read.

        What was read of it may then be zeros. Takes a microsecond for each file.
        """
        for data in self._files:
            check_file(data)

    def check(self, rows: np.ndarray) -> list[np.ndarray] | None:
        """Return what ``gather`` would, for rows that somebody else reads.

        None where that is what stands in the records.  Raises as ``gather`` does.
        """
        pictures = self.read(rows)
        self._refuse_cut_off(rows, pictures)
        return self._upright(rows, pictures)

    def read_ahead(self, rows: np.ndarray) -> None:
        """Have the records of rows that will be wanted soon fetched from the disk.

        A sample says whether they are in memory; nothing is asked for once all of it has been there
        for a while.  From the first call on the system takes the files to be read here and there: a
        page that is missing is fetched alone.
        """
        if self._in_file_order is None:
            self._in_file_order = self._records.is_in_file_order()
            for data in self._data:
                advise(data, np.array([0]), np.array([data.size]), mmap.MADV_RANDOM)
        if not len(rows):
            return
        if self._some_missing(rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)]):
            self._asking = ASK_AGAIN
        if not self._asking:
            return
        self._asking -= 1
        for file, begin, size in self._pages(rows):
            if self._feed is None:
                advise(self._data[file], begin, size, mmap.MADV_WILLNEED)
            else:
                self._feed.read_ahead(self._data[file], begin, size)

    def find(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where in memory the pictures of rows begin and their bytes, int64 (B,) and (B,).

        With the compiled functions only.  0 bytes where no whole record stands, and for a record in
        parts: ``read`` tells them apart.
        """
        assert self._feed is not None
        offsets = self._records.offsets[rows]
        addresses, sizes = np.empty((2, len(rows)), dtype=np.int64)
        for file, places in self._by_file(rows):
            addresses[places], sizes[places] = self._feed.find_images(
                self._data[file], offsets[places]
            )
        np.maximum(sizes, 0, out=sizes)
        self._learn(int(sizes.sum()), int(np.count_nonzero(sizes)))
        return addresses, sizes

    def _gathered(self, rows: np.ndarray, memory: Memory) -> np.ndarray | None:
        """Return what ``gather`` does; None where a list is needed."""
        if self._feed is None:
            return None
        addresses, sizes = self.find(rows)
        longest = int(sizes.max())
        if not sizes.min() or longest > LARGEST_OVER_MEAN * max(sizes.mean(), 4096):
            return None
        if self._feed.find_turned(addresses, sizes).any():
            return None
        array = memory.take(len(rows), longest + 2)
        if self._feed.gather(addresses, sizes, array):
            pictures = [row[:size] for row, size in zip(array, sizes.tolist(), strict=True)]
            self._refuse_cut_off(rows, pictures)
        return array

    def _refuse_cut_off(self, rows: np.ndarray, pictures: list[np.ndarray]) -> None:
        """Raise RecordError for a JPEG without its end.

        Decoders make up what is missing, each in its way, and few of them say so.
        """
        for row, picture in zip(rows.tolist(), pictures, strict=True):
            if not has_end(picture):
                self.check_files()
                raise RecordError(
                    f"{self._records.picture(row)} cannot be decoded; mend the record or leave its "
                    "key out of the .idx"
                )

    def _upright(self, rows: np.ndarray, images: list[np.ndarray]) -> list[np.ndarray] | None:
        """Return images with upright copies of those that Exif turns; None where it turns none."""
        turned = [place for place, image in enumerate(images) if may_turn(image)]
        if not turned:
            return None
        images = list(images)
        for place in turned:
            image, what = images[place], "cannot be decoded"
            if self._feed is not None and self._feed.is_cut_off(image):
                copy, what = None, CUT_OFF_IMAGE
            else:
                copy = upright(image)
            if copy is None:
                raise self.unusable(int(rows[place]), what)
            images[place] = copy
        return images

    def unusable(self, row: int, what: str) -> RecordError:
        """Return the error of an image with which something is wrong."""
        return RecordError(
            f"{self._records.picture(row)} {what}; fix the record or leave its key out of the .idx"
        )

    def _learn(self, size: int, count: int) -> None:
        self._bytes += size
        self._count += count

    def _some_missing(self, rows: np.ndarray) -> bool:
        """Return whether records of some rows are not in memory, as far as it can be told."""
        return not all(
            self._tells[file] and all_in_memory(self._data[file], begin, size)
            for file, begin, size in self._pages(rows)
        )

    def _pages(self, rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return (file, offsets, sizes) of the pages that hold the records of some rows."""
        offsets = self._records.offsets[rows]
        mean = self._bytes // self._count
        sizes = np.full(len(rows), 2 * mean)
        if self._in_file_order:  # a record ends where the next one begins
            following = np.minimum(rows + 1, len(self._records) - 1)
            gaps = self._records.offsets[following] - offsets
            sizes = np.where(gaps > 0, np.minimum(gaps, ASKED_OVER_MEAN * mean), sizes)
        return [
            (file, *pages_of(self._data[file], offsets[places], sizes[places]))
            for file, places in self._by_file(rows)
        ]

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
            raise self._no_image(rows, headers, int(np.flatnonzero(bad)[0]), end <= len(data))
        if mapped.is_guarded(data):
            pictures = [data[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)]
        else:
            whole, ends = copied(data, start, end - start), np.cumsum(end - start)
            begins = (ends - end + start).tolist()
            pictures = [whole[a:b] for a, b in zip(begins, ends.tolist(), strict=True)]
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
            magic, length = piece(data, offset, 8).view("<u4").tolist()
            part, length = length >> 29, length & (1 << 29) - 1
            if magic != MAGIC or part not in ((1,) if not parts else (2, 3)):
                raise self._error(row, "holds a broken record in parts")
            if parts:
                parts.append(np.frombuffer(MAGIC.to_bytes(4, "little"), np.uint8))
            parts.append(piece(data, offset + 8, length))
            if part == 3:
                return np.concatenate(parts)
            offset += 8 + (length + 3) // 4 * 4

    def _no_image(
        self, rows: np.ndarray, headers: Headers, place: int, ends: np.ndarray
    ) -> RecordError:
        """Return the error for a record that is not whole, or is whole and holds no image."""
        self.check_files()
        row = int(rows[place])
        if headers.magic[place] != MAGIC or not ends[place]:
            return self._error(row, "holds no whole record")
        records = self._records
        return no_image(
            records.files[records.file[row]],
            int(records.keys[row]),
            int(headers.length[place]),
            int(headers.flag[place]),
        )

    def _error(self, row: int, what: str) -> RecordError:
        self.check_files()
        records = self._records
        return RecordError(
            f"{records.files[records.file[row]]}: {what} at the place of key {records.keys[row]}, "
            f"got offset {records.offsets[row]}; the .rec has changed or is damaged, make or copy "
            "it again"
        )
