# SPDX-License-Identifier: Apache-2.0
"""Read the bytes of one .rec and its .idx: offsets of the records and their headers.

A record file is a sequence of dmlc RecordIO frames:

    u32 magic, u32 (cflag << 29) + length, payload, zeros up to a multiple of 4 bytes

A payload is an image header, followed by the JPEG.  If ``flag`` is above 0, ``flag`` labels follow
the header, and the first of them replaces the label in the header:

    u32 flag, f32 label, u64 id, u64 id2, flag times f32 label

If a payload contains the magic number at a multiple of 4 bytes, the record is split there into
several frames, which do not contain that magic number.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from pipeline.records import mapped
from pipeline.records.mapped import RecordError, check_file, read_piece

MAGIC = 0xCED7230A
LENGTH_BITS = 29
MAX_LENGTH = (1 << LENGTH_BITS) - 1  # largest payload of a frame in bytes
WHOLE, FIRST, MIDDLE, LAST = range(4)  # values of cflag: which part of a record the frame is
# Bytes read per record: magic (4), length (4), image header (24), two labels (4 each).
_HEADER_BYTES = 40
_MIN_RECORD_BYTES = 32  # size of the smallest record: magic (4), length (4), image header (24)
_CHUNK_RECORDS = 1 << 16  # number of headers that are read at a time
_CHUNK_BYTES = 1 << 22  # size of the part of an .idx that is parsed at a time
_MAX_LINE_BYTES = 1 << 10  # largest number of bytes read to find the end of a line of an .idx
_BLANK_BYTES = 1 << 16  # size of the part of an .idx that is searched for blank lines at a time
_LINE = re.compile(rb"[ \t]*([0-9]+)[ \t]+([0-9]+)\s*")
_MAX_INT64 = (1 << 63) - 1
_LARGE_NUMBER = 1 << 62  # lines with this or a larger number are parsed one by one
_SHOWN_BYTES = 40  # number of bytes of a line that a message shows


class Headers(NamedTuple):
    """Headers of n records; each field is an array of shape (n,)."""

    magic: np.ndarray
    cflag: np.ndarray
    length: np.ndarray
    flag: np.ndarray
    label: np.ndarray
    second: np.ndarray  # second label; 0 if the record has only one label

    @property
    def body(self) -> np.ndarray:
        """Size in bytes of the image, or of the image's part in the first frame, int64 (n,)."""
        return self.length - 24 - 4 * self.flag.astype(np.int64)


class RecordFile(NamedTuple):
    """Memory-mapped .rec and its parsed .idx.

    ``keys`` and ``offsets`` are int64 (n,), sorted by key, with one entry per record.
    """

    rec: Path
    idx: Path
    data: np.ndarray
    keys: np.ndarray
    offsets: np.ndarray

    def headers(self, rows: np.ndarray | slice = slice(None)) -> Headers:
        """Read the headers of the records at ``rows`` of the index."""
        return read_headers(self.data, self.offsets[rows])


def find_files(path: Path, setting: str = "data.records") -> tuple[Path, Path]:
    """Return the paths of a .rec and its .idx.

    ``path`` is the .rec itself, or a folder with train.rec or with one .rec of another name.  Error
    messages name the setting or argument ``setting`` that holds ``path``.
    """
    rec = path / "train.rec" if path.is_dir() else path
    if path.is_dir() and not rec.exists():
        found = sorted(path.glob("*.rec"))
        if len(found) != 1:
            names = ", ".join(f.name for f in found) or "none"
            raise RecordError(
                f"{path}: has no train.rec, got .rec files: {names}; name the .rec itself in "
                f"{setting}"
            )
        rec = found[0]
    idx = rec.with_suffix(".idx")
    for file, why in ((rec, setting), (idx, f"needed beside {rec.name}")):
        if not file.is_file():
            raise RecordError(f"{file}: no such file ({why}), got '{path}'; check {setting}")
    return rec, idx


def map_rec(rec: Path) -> np.ndarray:
    """Memory-map a .rec without reading it; return its bytes, uint8 (n,)."""
    if not rec.stat().st_size:
        raise RecordError(f"{rec}: is empty, got 0 bytes; make or copy it again")
    try:
        return mapped.map_file(rec)
    except OSError as error:
        raise RecordError(
            f"{rec}: cannot be read, got {error.strerror}; make it readable"
        ) from None


def read_index(idx: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an .idx; return its keys and its offsets, int64 (n,) each, sorted by key.

    Blank lines at the end of the file are ignored.  For a damaged line the function raises
    RecordError, which quotes the line.
    """
    columns: tuple[list[np.ndarray], ...] = ([np.empty(0, np.int64)], [np.empty(0, np.int64)])
    for start, text in _read_lines(idx):
        table = _parse_fast(text)
        if table is None:
            table = _parse_lines(idx, start, text)
        for column, numbers in zip(columns, table.T, strict=True):
            column.append(numbers.copy())
    keys = np.concatenate(columns[0])
    columns[0].clear()  # frees half of the memory before the next copy
    offsets = np.concatenate(columns[1])
    columns[1].clear()
    if not len(keys):
        raise RecordError(
            f"{idx}: holds no line of key, tab, offset, got {idx.stat().st_size} bytes; make or "
            "copy it again"
        )
    if (keys[1:] <= keys[:-1]).any():
        # Unsorted keys may be a sign of damage, so check every line.  A line of three numbers makes
        # _parse_fast exchange the keys and offsets of the lines after it.
        for start, text in _read_lines(idx):
            if text.translate(None, b"0123456789") != b"\t\n" * text.count(b"\n"):
                _parse_lines(idx, start, text)
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
    duplicates = np.flatnonzero(keys[1:] == keys[:-1])
    if len(duplicates):
        raise RecordError(f"{idx}: duplicate key {keys[duplicates[0]]}; rebuild the index")
    return keys, offsets


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of an .idx in chunks of complete lines, as pairs (offset in bytes, text).

    Blank lines at the end of the file are omitted.  If the last line has no line break, the
    function adds one.
    """
    try:
        with path.open("rb") as file:
            stop = _find_end_of_text(file)
            while (start := file.tell()) < stop:
                text = file.read(min(_CHUNK_BYTES, stop - start))
                # Limit the length, because a file that is not an index may have no line break.
                rest = file.readline(_MAX_LINE_BYTES) if file.tell() < stop else b"\n"
                yield start, text + rest
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read, got {error.strerror}; make it readable"
        ) from None


def _find_end_of_text(file: BinaryIO) -> int:
    """Return the offset after the last non-blank byte of a file; rewind the file."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLANK_BYTES)
        file.seek(start)
        text = file.read(end - start).rstrip()
        end = start + len(text)
        if text:
            break
    file.seek(0)
    return end


def _parse_fast(text: bytes) -> np.ndarray | None:
    """Parse complete lines with NumPy; return their numbers, int64 (n, 2).

    Return None if the lines may be damaged or hold large numbers; then ``_parse_lines`` must parse
    them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    if len(table) != 2 * text.count(b"\n") or not len(table):
        return None
    # NumPy stops at a zero byte, and accepts a number that is on the wrong line.  Neither need show
    # in the count of the numbers or in the order of the keys if it concerns the last line.
    if not _LINE.fullmatch(text[text.rfind(b"\n", 0, -1) + 1 : -1]):
        return None
    # Refuse large numbers, because NumPy replaces numbers above the largest int64 by that int64.
    # Also refuse offsets that are not multiples of 4, because no record begins at such an offset.
    if (
        not 0 <= np.bitwise_or.reduce(table) < _LARGE_NUMBER
        or np.bitwise_or.reduce(table[1::2]) & 3
    ):
        return None
    return table.reshape(-1, 2)


def _parse_lines(idx: Path, start: int, text: bytes) -> np.ndarray:
    """Parse complete lines one by one; return their numbers, int64 (n, 2).

    Raises RecordError for a damaged line.
    """
    table = []
    for index, line in enumerate(text.removesuffix(b"\n").split(b"\n")):
        found = _LINE.fullmatch(line)
        numbers = [digits.lstrip(b"0") or b"0" for digits in found.groups()] if found else []
        if found and all(len(n) <= len(str(_MAX_INT64)) and int(n) <= _MAX_INT64 for n in numbers):
            table.append([int(n) for n in numbers])
            continue
        before = sum(chunk.count(b"\n") for at, chunk in _read_lines(idx) if at < start)
        where = f"{idx}: line {before + index + 1}"
        if not found:
            raise RecordError(
                f"{where} is not a key, a tab and an offset, got {quote_line(line)}; the file is "
                "damaged or is not an index, make or copy it again"
            )
        key, offset = (n[:_SHOWN_BYTES].decode() + "..." * (len(n) > _SHOWN_BYTES) for n in numbers)
        raise RecordError(
            f"{where} has key {key} and offset {offset}, got a number above {_MAX_INT64}; the "
            "file is damaged, make or copy it again"
        )
    return np.array(table, dtype=np.int64)


def quote_line(text: bytes) -> str:
    """Return a line in quotes for a message: shortened, and with escapes for unprintable bytes."""
    return repr(text.rstrip(b"\r\n")[:_SHOWN_BYTES])[1:] + "..." * (len(text) > _SHOWN_BYTES)


def check_index(file: RecordFile) -> None:
    """Raise RecordError if the .rec is truncated, or if the .idx belongs to another .rec."""
    rec, idx, data, keys, offsets = file
    last = int(np.argmax(offsets))
    beyond = np.flatnonzero(
        offsets > len(data) - _MIN_RECORD_BYTES
    )  # `offsets + 32` could overflow
    if len(beyond):
        raise RecordError(
            f"{rec}: ends before the record of key {keys[beyond[0]]} (offset "
            f"{offsets[beyond[0]]}), got {len(data)} bytes; the .rec is truncated or {idx.name} "
            "belongs to another .rec"
        )
    # Check only a sample of 1000 records: checking every record would read the complete file.
    sample = np.unique(np.linspace(0, len(keys) - 1, 1000).astype(np.int64))
    check_magic(file, sample, file.headers(sample))
    end = int(offsets[last] + 8 + file.headers(slice(last, last + 1)).length[0])
    if end > len(data):
        raise RecordError(
            f"{rec}: ends inside the record of key {keys[last]}, got {len(data)} bytes where "
            f"{end} are needed; the .rec is truncated, copy it again"
        )


def check_magic(file: RecordFile, rows: np.ndarray, headers: Headers) -> None:
    """Raise RecordError if one of the records does not begin with the magic number.

    ``rows`` are the index rows of the records, and ``headers`` are their headers.
    """
    wrong = rows[headers.magic != MAGIC]
    if len(wrong):
        found = int(headers.magic[headers.magic != MAGIC][0])
        raise RecordError(
            f"{file.idx}: no record starts at offset {file.offsets[wrong[0]]} of {file.rec.name}, "
            f"where key {file.keys[wrong[0]]} should be, got {found:#010x} in place of "
            f"{MAGIC:#010x}; the .idx belongs to another .rec"
        )


def frames(data: np.ndarray, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the frames of a record as (cflag, start, bytes, end).

    ``start`` is the offset of the payload in the .rec, ``bytes`` its size, and ``end`` the offset
    after its padding.  The function stops at the last frame of the record or at the first damaged
    frame.
    """
    cflag = FIRST
    while cflag in (FIRST, MIDDLE) and offset + 8 <= len(data):
        magic, word = read_piece(data, offset, 8).view("<u4").tolist()
        if magic != MAGIC:
            return
        cflag, length, start = word >> LENGTH_BITS, word & MAX_LENGTH, offset + 8
        offset = start + (length + 3) // 4 * 4
        yield cflag, start, length, offset


def count_bytes_after(data: np.ndarray, offset: int) -> int:
    """Return the number of bytes of a .rec that follow the record at ``offset``."""
    ends = [offset, *(end for *_, end in frames(data, offset))]
    return len(data) - ends[-1]


def read_headers(data: np.ndarray, offsets: np.ndarray) -> Headers:
    """Read the headers of the records at some offsets of a .rec."""
    raw = np.zeros((len(offsets), _HEADER_BYTES), dtype=np.uint8)
    columns = np.arange(_HEADER_BYTES)
    for first in range(0, len(offsets), _CHUNK_RECORDS):
        chunk = slice(first, first + _CHUNK_RECORDS)
        starts = offsets[chunk]
        # The last record of a file may have fewer than 40 bytes.  Nothing uses the rest of its row
        # of ``raw``.
        if mapped.is_guarded(data):
            raw[chunk] = data[np.minimum(starts[:, None] + columns, len(data) - 1)]
        else:
            starts = np.clip(starts, 0, len(data))
            sizes = np.minimum(len(data) - starts, _HEADER_BYTES)
            raw[chunk][columns < sizes[:, None]] = mapped.copy_pieces(data, starts, sizes)
    check_file(data)
    words, floats = raw.view("<u4"), raw.view("<f4")
    flag = words[:, 2]
    with np.errstate(invalid="ignore"):  # NumPy warns about signalling NaN
        label = np.where(flag > 0, floats[:, 8], floats[:, 3]).astype(np.float64)
        second = np.where(flag > 1, floats[:, 9], 0).astype(np.float64)
    length = (words[:, 1] & MAX_LENGTH).astype(np.int64)
    return Headers(words[:, 0], words[:, 1] >> LENGTH_BITS, length, flag, label, second)


def empty_record_error(rec: Path, key: int, length: int, flag: int) -> RecordError:
    """Return an error which says that an image record holds no image.

    ``length`` is the size of the payload in bytes, and ``flag`` is the number of labels after the
    header.
    """
    return RecordError(
        f"{rec}: the record of key {key} holds no image, got {length} bytes of which header and "
        f"labels take {24 + 4 * flag}; fix the record or leave its key out of the .idx"
    )
