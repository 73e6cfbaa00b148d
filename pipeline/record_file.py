# SPDX-License-Identifier: Apache-2.0
"""One .rec with its .idx, as bytes: where records stand, and what their headers say.

One record: magic number, length with a continuation flag, then ``flag, label, id, id2`` (IRHeader);
if flag is above 0, that many float labels follow (the first one counts); then the JPEG; padding
to 4 bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import mapped

MAGIC = 0xCED7230A
_HEADER_BYTES = 40  # magic, length, IRHeader (24), two float labels
_CHUNK = 1 << 16  # records whose headers are gathered at a time
_PIECE = 1 << 22  # bytes of an .idx that are parsed at a time


class RecordError(ValueError):
    """A record set that cannot be read; the message names the file and the key."""


@dataclass(frozen=True)
class Headers:
    """Headers of n records, each field of shape (n,)."""

    magic: np.ndarray
    continued: np.ndarray
    length: np.ndarray
    flag: np.ndarray
    label: np.ndarray
    second: np.ndarray

    @property
    def body(self) -> np.ndarray:
        """Bytes of the picture (of its first part)."""
        return self.length - 24 - 4 * self.flag.astype(np.int64)


def find_files(path: Path) -> tuple[Path, Path]:
    """Return the .rec that a path names (itself, or the one in a folder) and its .idx."""
    if path.is_dir():
        found = sorted(path.glob("*.rec"))
        rec = path / "train.rec"
        if not rec.exists():
            if len(found) != 1:
                names = ", ".join(f.name for f in found) or "none"
                raise RecordError(
                    f"{path}: train.rec is not there, got .rec files: {names}; "
                    "name the .rec itself in data.records"
                )
            rec = found[0]
    else:
        rec = path
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


def check_file(data: np.ndarray) -> None:
    """Raise RecordError if the mapped file of an array became shorter or cannot be read.

    To be called before anything is used that was read from it, and before anything else is said of
    it: a page that is gone reads as zeros (``pipeline.mapped``).
    """
    if sentence := mapped.fault_of(data):
        raise RecordError(sentence)


def read_index(idx: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and offsets of an .idx by key, int64 (n,) each."""
    parts: tuple[list[np.ndarray], ...] = ([np.empty(0, np.int64)], [np.empty(0, np.int64)])
    for text in _lines(idx):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                table = np.fromstring(text, dtype=np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            table = np.empty(0, dtype=np.int64)
        if len(table) != 2 * (text.count(b"\n") + (not text.endswith(b"\n"))):
            raise _no_index(idx, text)
        for part, column in zip(parts, table.reshape(-1, 2).T, strict=True):
            part.append(column.copy())
    keys, offsets = (_joined(part) for part in parts)
    if not len(keys):
        raise _no_index(idx, b"")
    if (keys[1:] <= keys[:-1]).any():
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise RecordError(f"{idx}: key {keys[twice[0]]} stands twice; make the index again")
    return keys, offsets


def _lines(path: Path) -> Iterator[bytes]:
    """Yield a file in pieces of whole lines."""
    try:
        with path.open("rb") as file:
            while text := file.read(_PIECE):
                yield text + file.readline()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read, got {error.strerror}") from None


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _no_index(idx: Path, text: bytes) -> RecordError:
    return RecordError(
        f"{idx}: expected lines of key, tab, offset, got {text[:40]!r}...; it is damaged or no "
        "index, make or copy it again"
    )


def check_index(
    rec: Path, idx: Path, data: np.ndarray, keys: np.ndarray, offsets: np.ndarray
) -> None:
    """Refuse a truncated .rec and the .idx of another .rec."""
    last = int(np.argmax(offsets))
    beyond = np.flatnonzero((offsets < 0) | (offsets + 32 > len(data)))
    if len(beyond):
        raise RecordError(
            f"{rec}: ends before the record of key {keys[beyond[0]]} (offset "
            f"{offsets[beyond[0]]}), got {len(data)} bytes; the .rec is truncated or {idx.name} "
            "belongs to another one"
        )
    # A thousand records spread over the file: touching all would read the whole file.
    sample = np.unique(np.linspace(0, len(keys) - 1, 1000).astype(np.int64))
    wrong = sample[read_headers(data, offsets[sample]).magic != MAGIC]
    if len(wrong):
        raise RecordError(
            f"{idx}: no record starts at offset {offsets[wrong[0]]} of {rec.name}, where key "
            f"{keys[wrong[0]]} should be; the .idx belongs to another .rec"
        )
    end = int(offsets[last] + 8 + read_headers(data, offsets[last : last + 1]).length[0])
    if end > len(data):
        raise RecordError(
            f"{rec}: ends inside the record of key {keys[last]}, got {len(data)} bytes where "
            f"{end} are needed; the .rec is truncated, copy it again"
        )


def copied(data: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return pieces of an array one after the other, as `pipeline.mapped.copied` does.

    Raises
    ------
    RecordError
        If its mapped file became shorter or cannot be read.
    """
    found = mapped.copied(data, begins, sizes)
    if found is None:
        check_file(data)
        raise RecordError("a mapped file cannot be read, got EFAULT; check the disk")
    return found


def read_headers(data: np.ndarray, offsets: np.ndarray) -> Headers:
    """Return the headers of the records that begin at some offsets.

    Raises
    ------
    RecordError
        If the file became shorter meanwhile.
    """
    raw = np.zeros((len(offsets), _HEADER_BYTES), dtype=np.uint8)
    columns = np.arange(_HEADER_BYTES)
    for start in range(0, len(offsets), _CHUNK):
        part = offsets[start : start + _CHUNK]
        # The last record of a file may be shorter than 40 bytes; what is read there is not used.
        if mapped.is_guarded(data):
            where = part[:, None] + columns
            raw[start : start + _CHUNK] = data[np.minimum(where, len(data) - 1)]
        else:
            begins = np.clip(part, 0, len(data))
            sizes = np.minimum(len(data) - begins, _HEADER_BYTES)
            there = columns < sizes[:, None]
            raw[start : start + _CHUNK][there] = copied(data, begins, sizes)
    check_file(data)
    words = raw.view("<u4")
    floats = raw.view("<f4")
    flag = words[:, 2]
    return Headers(
        magic=words[:, 0],
        continued=words[:, 1] >> 29,
        length=(words[:, 1] & (1 << 29) - 1).astype(np.int64),
        flag=flag,
        label=np.where(flag > 0, floats[:, 8], floats[:, 3]).astype(np.float64),
        second=np.where(flag > 1, floats[:, 9], 0).astype(np.float64),
    )


def read_property(path: Path) -> tuple[int, tuple[int, int] | None]:
    """Return (num_classes, (height, width)); (0, None) if there is no property file."""
    try:
        first = path.read_text().strip().splitlines()[0]
        classes, height, width = (int(n) for n in first.split(","))
    except FileNotFoundError:
        return 0, None
    except (OSError, ValueError, IndexError, UnicodeDecodeError):
        raise RecordError(
            f"{path}: expected num_classes,height,width in the first line; mend or remove it"
        ) from None
    return classes, (height, width)
