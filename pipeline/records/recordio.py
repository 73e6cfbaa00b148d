# SPDX-License-Identifier: Apache-2.0
"""One .rec with its .idx, as bytes: where records are, and what their headers say.

A record file is a chain of dmlc RecordIO frames:

    u32 magic | u32 cflag << 29 | length | payload | zeros up to a multiple of 4

A payload is an image header, then the JPEG; the first of the labels counts:

    u32 flag | f32 label | u64 id | u64 id2 | flag times f32 label

A payload that holds the magic number at a multiple of 4 is cut there into frames, and the number
left out.
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
from pipeline.records.mapped import RecordError, check_file, piece

MAGIC = 0xCED7230A
LENGTH_BITS = 29
MAX_LENGTH = (1 << LENGTH_BITS) - 1  # bytes of a frame
WHOLE, FIRST, MIDDLE, LAST = range(4)  # cflag: which part of its record a frame is
_HEADER_BYTES = 40  # magic, length, IRHeader (24), two float labels
_CHUNK = 1 << 16  # records whose headers are gathered at a time
_PIECE = 1 << 22  # bytes of an .idx that are parsed at a time
_LONGEST_LINE = 1 << 10  # bytes of an .idx, far more than a line has
_LINE = re.compile(rb"[ \t]*([0-9]+)[ \t]+([0-9]+)\s*")
_LARGEST = (1 << 63) - 1  # int64
_UNUSUAL = 1 << 62  # numbers from here on are looked at one by one
_SHOWN = 40  # bytes of a line that a message shows


class Headers(NamedTuple):
    """Headers of n records, each field of shape (n,)."""

    magic: np.ndarray
    cflag: np.ndarray
    length: np.ndarray
    flag: np.ndarray
    label: np.ndarray
    second: np.ndarray

    @property
    def body(self) -> np.ndarray:
        """Bytes of the image (of its first part)."""
        return self.length - 24 - 4 * self.flag.astype(np.int64)


class RecordFile(NamedTuple):
    """A .rec, mapped, and its .idx, parsed: keys and offsets are int64 (n,), by key."""

    rec: Path
    idx: Path
    data: np.ndarray
    keys: np.ndarray
    offsets: np.ndarray

    def headers(self, rows: np.ndarray | slice = slice(None)) -> Headers:
        """Return the headers of the records of some rows."""
        return read_headers(self.data, self.offsets[rows])


def find_files(path: Path) -> tuple[Path, Path]:
    """Return the .rec that a path names (itself, or the one in a folder) and its .idx."""
    rec = path / "train.rec" if path.is_dir() else path
    if path.is_dir() and not rec.exists():
        found = sorted(path.glob("*.rec"))
        if len(found) != 1:
            names = ", ".join(f.name for f in found) or "none"
            raise RecordError(
                f"{path}: train.rec is not there, got .rec files: {names}; name the .rec itself in "
                "data.records"
            )
        rec = found[0]
    idx = rec.with_suffix(".idx")
    for file, why in ((rec, "data.records"), (idx, f"needed beside {rec.name}")):
        if not file.is_file():
            raise RecordError(f"{file}: no such file ({why}); check data.records, got '{path}'")
    return rec, idx


def map_rec(rec: Path) -> np.ndarray:
    """Return the bytes of a .rec, uint8 (n,), mapped and not read."""
    if not rec.stat().st_size:
        raise RecordError(f"{rec}: is empty, got 0 bytes; make or copy it again")
    try:
        return mapped.map_file(rec)
    except OSError as error:
        raise RecordError(f"{rec}: cannot be read, got {error.strerror}") from None


def read_index(idx: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and offsets of an .idx by key, int64 (n,) each.

    Blank lines at its end are passed over; a damaged line is named by its number and its text.
    """
    parts: tuple[list[np.ndarray], ...] = ([np.empty(0, np.int64)], [np.empty(0, np.int64)])
    for start, text in _lines(idx):
        table = _numbers(text)
        if table is None:
            table = _numbers_by_line(idx, start, text)
        for part, column in zip(parts, table.T, strict=True):
            part.append(column.copy())
    keys = np.concatenate(parts[0])
    parts[0].clear()  # or both would be there twice
    offsets = np.concatenate(parts[1])
    parts[1].clear()
    if not len(keys):
        raise RecordError(
            f"{idx}: holds no line of key, tab, offset, got {idx.stat().st_size} bytes; make or "
            "copy it again"
        )
    if (keys[1:] <= keys[:-1]).any():
        for start, text in _lines(idx):  # perhaps a line of three numbers, and later one of one
            if text.translate(None, b"0123456789") != b"\t\n" * text.count(b"\n"):
                _numbers_by_line(idx, start, text)
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
    duplicates = np.flatnonzero(keys[1:] == keys[:-1])
    if len(duplicates):
        raise RecordError(f"{idx}: duplicate key {keys[duplicates[0]]}; rebuild the index")
    return keys, offsets


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a file in pieces of whole lines, each with the byte at which it starts.

    What is blank at the end of the file is left out, and the last line ends like the others.
    """
    try:
        with path.open("rb") as file:
            stop = _end_of_text(file)
            while (start := file.tell()) < stop:
                text = file.read(min(_PIECE, stop - start))
                # Not without a bound: a file that is no index may have no end of line at all.
                yield start, text + (file.readline(_LONGEST_LINE) if file.tell() < stop else b"\n")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read, got {error.strerror}") from None


def _end_of_text(file: BinaryIO) -> int:
    """Return the bytes of a file up to its last one that is not blank; leave it at its start."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _CHUNK)
        file.seek(start)
        text = file.read(end - start).rstrip()
        end = start + len(text)
        if text:
            break
    file.seek(0)
    return end


def _numbers(text: bytes) -> np.ndarray | None:
    """Return the numbers of whole lines, int64 (n, 2); None if something about them is unusual."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    if len(table) != 2 * text.count(b"\n") or not len(table):
        return None
    if b"\0" in text[text.rfind(b"\n", 0, -1) + 1 :]:  # for NumPy the text ends there
        return None
    # A number that int64 does not hold comes as the largest one; records begin at multiples of 4.
    if not 0 <= np.bitwise_or.reduce(table) < _UNUSUAL or np.bitwise_or.reduce(table[1::2]) & 3:
        return None
    return table.reshape(-1, 2)


def _numbers_by_line(idx: Path, start: int, text: bytes) -> np.ndarray:
    """Return what ``_numbers`` does, or raise RecordError for the line that is damaged."""
    table = []
    for place, line in enumerate(text.removesuffix(b"\n").split(b"\n")):
        found = _LINE.fullmatch(line)
        numbers = [digits.lstrip(b"0") or b"0" for digits in found.groups()] if found else []
        if found and all(len(n) <= len(str(_LARGEST)) and int(n) <= _LARGEST for n in numbers):
            table.append([int(n) for n in numbers])
            continue
        number = 1 + place + sum(before.count(b"\n") for at, before in _lines(idx) if at < start)
        if not found:
            raise RecordError(
                f"{idx}: line {number} is not a key, a tab and an offset, got {shown(line)}; the "
                "file is damaged or no index, make or copy it again"
            )
        key, offset = map(_shorten, numbers)
        raise RecordError(
            f"{idx}: line {number} gives key {key} the offset {offset}, got a number above "
            f"{_LARGEST}; the file is damaged, make or copy it again"
        )
    return np.array(table, dtype=np.int64)


def shown(text: bytes) -> str:
    """Return a line in quotes as a message shows it: short, and printable everywhere."""
    return repr(text.rstrip(b"\r\n")[:_SHOWN])[1:] + ("..." if len(text) > _SHOWN else "")


def _shorten(digits: bytes) -> str:
    return digits[:_SHOWN].decode() + ("..." if len(digits) > _SHOWN else "")


def check_index(file: RecordFile) -> None:
    """Refuse a truncated .rec and the .idx of another .rec."""
    rec, idx, data, keys, offsets = file
    last = int(np.argmax(offsets))
    beyond = np.flatnonzero(offsets > len(data) - 32)  # offsets + 32 may be more than int64 holds
    if len(beyond):
        raise RecordError(
            f"{rec}: ends before the record of key {keys[beyond[0]]} (offset "
            f"{offsets[beyond[0]]}), got {len(data)} bytes; the .rec is truncated or {idx.name} "
            "belongs to another one"
        )
    # A thousand records spread over the file: touching all would read the whole file.
    sample = np.unique(np.linspace(0, len(keys) - 1, 1000).astype(np.int64))
    wrong = sample[file.headers(sample).magic != MAGIC]
    if len(wrong):
        raise RecordError(
            f"{idx}: no record starts at offset {offsets[wrong[0]]} of {rec.name}, where key "
            f"{keys[wrong[0]]} should be; the .idx belongs to another .rec"
        )
    end = int(offsets[last] + 8 + file.headers(slice(last, last + 1)).length[0])
    if end > len(data):
        raise RecordError(
            f"{rec}: ends inside the record of key {keys[last]}, got {len(data)} bytes where "
            f"{end} are needed; the .rec is truncated, copy it again"
        )


def frames(data: np.ndarray, offset: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (cflag, start, bytes, end with padding) of the frames of a record, while they last."""
    cflag = FIRST
    while cflag in (FIRST, MIDDLE) and offset + 8 <= len(data):
        magic, word = piece(data, offset, 8).view("<u4").tolist()
        if magic != MAGIC:
            return
        cflag, length, start = word >> LENGTH_BITS, word & MAX_LENGTH, offset + 8
        offset = start + (length + 3) // 4 * 4
        yield cflag, start, length, offset


def bytes_after(data: np.ndarray, offset: int) -> int:
    """Return the bytes of a .rec that follow a record with its padding and all of its frames."""
    ends = [offset, *(end for *_, end in frames(data, offset))]
    return len(data) - ends[-1]


def read_headers(data: np.ndarray, offsets: np.ndarray) -> Headers:
    """Return the headers of the records that begin at some offsets."""
    raw = np.zeros((len(offsets), _HEADER_BYTES), dtype=np.uint8)
    columns = np.arange(_HEADER_BYTES)
    for start in range(0, len(offsets), _CHUNK):
        part = offsets[start : start + _CHUNK]
        # The last record of a file may be shorter than 40 bytes; what is read there is not used.
        if mapped.is_guarded(data):
            raw[start : start + _CHUNK] = data[np.minimum(part[:, None] + columns, len(data) - 1)]
        else:
            begins = np.clip(part, 0, len(data))
            sizes = np.minimum(len(data) - begins, _HEADER_BYTES)
            there = columns < sizes[:, None]
            raw[start : start + _CHUNK][there] = mapped.copied(data, begins, sizes)
    check_file(data)
    words, floats = raw.view("<u4"), raw.view("<f4")
    flag = words[:, 2]
    with np.errstate(invalid="ignore"):  # signalling NaN, of which NumPy would warn
        label = np.where(flag > 0, floats[:, 8], floats[:, 3]).astype(np.float64)
        second = np.where(flag > 1, floats[:, 9], 0).astype(np.float64)
    lengths = (words[:, 1] & MAX_LENGTH).astype(np.int64)
    return Headers(words[:, 0], words[:, 1] >> LENGTH_BITS, lengths, flag, label, second)


def no_image(rec: Path, key: int, length: int, flag: int) -> RecordError:
    """Return the error for an image record that holds none, wherever it is met."""
    return RecordError(
        f"{rec}: the record of key {key} holds no image, got {length} bytes of which header and "
        f"labels take {24 + 4 * flag}; fix the record or leave its key out of the .idx"
    )
