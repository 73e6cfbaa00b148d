# SPDX-License-Identifier: Apache-2.0
"""InsightFace record sets as they are: record file, index, header records, property, labels.

A set is ``train.rec`` (RecordIO), ``train.idx`` (``key<TAB>offset`` lines) and ``property``
(``num_classes,height,width``, more lines allowed).  Sets from InsightFace begin with a header
record at key 0 that has no picture, only two numbers: the first and the last-plus-one key of the
identity records, which stand after the images, have no picture either, and give the first and
last-plus-one image key of one person.  Sets from im2rec have neither.  Nothing is rewritten: only
the index rows of pictures are kept.

One record: magic number, length with a continuation flag, then ``flag, label, id, id2`` (IRHeader);
if flag is above 0, that many float labels follow (the first one counts); then the JPEG; padding
to 4 bytes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

MAGIC = 0xCED7230A
_HEADER_BYTES = 40  # magic, length, IRHeader (24), two float labels
_CHUNK = 1 << 16  # records whose headers are gathered at a time


class RecordError(ValueError):
    """A record set that cannot be read; the message names the file and the key."""


@dataclass(frozen=True)
class RecordSet:
    """The pictures of a record set, in the order of their keys.

    Row i of the arrays is one picture: ``keys`` (N,) int64, its key in the .idx; ``offsets`` (N,)
    int64, its place in the .rec in bytes; ``labels`` (N,) int32, its person.
    """

    rec: Path
    keys: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    num_classes: int
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Headers:
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


def open_records(path: str | Path, scan_folder: str | Path, num_classes: int = 0) -> RecordSet:
    """Read the index and the labels of a record set.

    Parameters
    ----------
    path
        A folder with train.rec (or one .rec), or a .rec file; the .idx lies beside it.
    scan_folder
        Where the labels are kept if they need a scan of the whole .rec; made if missing.
    num_classes
        Number of people C; 0 takes it from the property file, else from the largest label.

    Raises
    ------
    RecordError
        If a file is missing, truncated, does not belong to the others, or a label is not in
        ``[0, num_classes)``.
    """
    rec, idx = _find(Path(path))
    keys, offsets = _read_index(idx)
    data = _map(rec)
    _check_index(rec, idx, data, keys, offsets)
    classes, image_size = _read_property(rec.with_name("property"))

    images, labels = _labels_from_identities(data, keys, offsets)
    if images is None or labels is None:
        images, labels = _labels_from_scan(data, rec, keys, offsets, images, Path(scan_folder))
    if not len(images):
        raise RecordError(f"{rec}: holds no picture, got {len(keys)} records without one")
    keys, offsets = keys[images], offsets[images]
    num_classes = num_classes or classes or int(labels.max()) + 1
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(bad):
        raise RecordError(
            f"{rec}: label {labels[bad[0]]:g} in the record of key {keys[bad[0]]} is out of range, "
            f"got num_classes={num_classes}; labels must be 0..{num_classes - 1}"
        )
    records = RecordSet(
        rec, keys, offsets, labels.astype(np.int32), num_classes, image_size or (0, 0)
    )
    return records if image_size else _measure(records)


class RecordReader:
    """Pictures of a record set by row, through a memory map of the .rec."""

    def __init__(self, records: RecordSet):
        self._records = records
        self._data = _map(records.rec)

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the JPEG bytes of the rows, each a uint8 array (n,).

        Most are views of the memory map; nothing is read from disk before its bytes are touched.

        Raises
        ------
        RecordError
            If no whole record starts at the offset of a row.
        """
        offsets = self._records.offsets[rows]
        headers = _read_headers(self._data, offsets)
        start = offsets + 32 + 4 * headers.flag.astype(np.int64)
        end = offsets + 8 + headers.length
        bad = (headers.magic != MAGIC) | (start >= end) | (end > len(self._data))
        if bad.any():
            raise self._error(int(rows[np.flatnonzero(bad)[0]]), "holds no whole record")
        data = self._data
        pictures = [data[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)]
        for i in np.flatnonzero(headers.continued):
            pictures[i] = self._join(int(rows[i]), int(offsets[i]))[start[i] - offsets[i] - 8 :]
        return pictures

    def _join(self, row: int, offset: int) -> np.ndarray:
        """Return the payload of a record in parts.

        A picture that holds the magic number at a multiple of 4 is cut there by the writer, which
        leaves the number out; the reader puts it back.
        """
        parts: list[np.ndarray] = []
        while True:
            if offset + 8 > len(self._data):
                raise self._error(row, "ends in the middle of a record in parts")
            magic, length = self._data[offset : offset + 8].view("<u4").tolist()
            part, length = length >> 29, length & (1 << 29) - 1
            if magic != MAGIC or part not in ((1,) if not parts else (2, 3)):
                raise self._error(row, "holds a broken record in parts")
            if parts:
                parts.append(np.frombuffer(MAGIC.to_bytes(4, "little"), np.uint8))
            parts.append(self._data[offset + 8 : offset + 8 + length])
            if part == 3:
                return np.concatenate(parts)
            offset += 8 + (length + 3) // 4 * 4

    def _error(self, row: int, what: str) -> RecordError:
        records = self._records
        return RecordError(
            f"{records.rec}: {what} at the place of key {records.keys[row]}, got offset "
            f"{records.offsets[row]}; the .rec has changed or is damaged, make or copy it again"
        )


def write_image_index(records: RecordSet, path: Path) -> None:
    """Write an .idx that lists the pictures alone, for readers that decode every line of it."""
    lines = [f"{k}\t{o}\n" for k, o in zip(records.keys, records.offsets, strict=True)]
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text("".join(lines))
    os.replace(aside, path)


def _find(path: Path) -> tuple[Path, Path]:
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


def _map(rec: Path) -> np.ndarray:
    if not rec.stat().st_size:
        raise RecordError(f"{rec}: is empty, got 0 bytes; make or copy it again")
    try:
        return np.memmap(rec, dtype=np.uint8, mode="r").view(np.ndarray)
    except OSError as error:
        raise RecordError(f"{rec}: cannot be read, got {error.strerror}") from None


def _read_index(idx: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        text = idx.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = np.fromstring(text, dtype=np.int64, sep=" ")
    except OSError as error:
        raise RecordError(f"{idx}: cannot be read, got {error.strerror}") from None
    except (ValueError, DeprecationWarning):
        table = np.empty(0, dtype=np.int64)
    if not len(table) or len(table) != 2 * len(text.splitlines()):
        raise RecordError(
            f"{idx}: expected lines of key, tab, offset, got {text[:40]!r}...; it is damaged or "
            "no index, make or copy it again"
        )
    table = table.reshape(-1, 2)
    table = table[np.argsort(table[:, 0], kind="stable")]
    keys = np.ascontiguousarray(table[:, 0])
    twice = np.flatnonzero(np.diff(keys) == 0)
    if len(twice):
        raise RecordError(f"{idx}: key {keys[twice[0]]} stands twice; make the index again")
    return keys, np.ascontiguousarray(table[:, 1])


def _check_index(
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
    wrong = sample[_read_headers(data, offsets[sample]).magic != MAGIC]
    if len(wrong):
        raise RecordError(
            f"{idx}: no record starts at offset {offsets[wrong[0]]} of {rec.name}, where key "
            f"{keys[wrong[0]]} should be; the .idx belongs to another .rec"
        )
    end = int(offsets[last] + 8 + _read_headers(data, offsets[last : last + 1]).length[0])
    if end > len(data):
        raise RecordError(
            f"{rec}: ends inside the record of key {keys[last]}, got {len(data)} bytes where "
            f"{end} are needed; the .rec is truncated, copy it again"
        )


def _read_headers(data: np.ndarray, offsets: np.ndarray) -> _Headers:
    raw = np.zeros((len(offsets), _HEADER_BYTES), dtype=np.uint8)
    columns = np.arange(_HEADER_BYTES)
    for start in range(0, len(offsets), _CHUNK):
        where = offsets[start : start + _CHUNK, None] + columns
        # The last record of a file may be shorter than 40 bytes; what is read there is not used.
        raw[start : start + _CHUNK] = data[np.minimum(where, len(data) - 1)]
    words = raw.view("<u4")
    floats = raw.view("<f4")
    flag = words[:, 2]
    return _Headers(
        magic=words[:, 0],
        continued=words[:, 1] >> 29,
        length=(words[:, 1] & (1 << 29) - 1).astype(np.int64),
        flag=flag,
        label=np.where(flag > 0, floats[:, 8], floats[:, 3]).astype(np.float64),
        second=np.where(flag > 1, floats[:, 9], 0).astype(np.float64),
    )


def _read_property(path: Path) -> tuple[int, tuple[int, int] | None]:
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


def _labels_from_identities(
    data: np.ndarray, keys: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return (rows of pictures, their labels) from the header and identity records.

    The labels are None where the identity records do not settle them, both where there is no
    header record.
    """
    if keys[0] != 0:
        return None, None
    header = _read_headers(data, offsets[:1])
    if header.flag[0] < 2 or header.body[0] > 0:
        return None, None
    begin, end = int(header.label[0]), int(header.second[0])
    if end > 1 << 24:  # float32 does not hold the keys of larger sets exactly
        return None, None
    images = np.flatnonzero((keys > 0) & (keys < begin))
    people = np.flatnonzero((keys >= begin) & (keys < end))
    if not len(images) or len(people) != end - begin:
        return images, None
    identity = _read_headers(data, offsets[people])
    first, stop = identity.label.astype(np.int64), identity.second.astype(np.int64)
    some = np.flatnonzero(stop > first)
    first, stop = first[some], stop[some]
    order = np.argsort(first)
    first, stop = first[order], stop[order]
    # The ranges must tile the picture keys, and both ends of each carry the same label.
    if not len(first) or (first[1:] != stop[:-1]).any():
        return images, None
    if first[0] != keys[images[0]] or stop[-1] != keys[images[-1]] + 1:
        return images, None
    if len(images) != stop[-1] - first[0]:
        return images, None
    head = _read_headers(data, offsets[images[first - first[0]]])
    tail = _read_headers(data, offsets[images[stop - 1 - first[0]]])
    if (head.magic != MAGIC).any() or (head.label != tail.label).any():
        return images, None
    return images, np.repeat(head.label, stop - first)


def _labels_from_scan(
    data: np.ndarray,
    rec: Path,
    keys: np.ndarray,
    offsets: np.ndarray,
    images: np.ndarray | None,
    scan_folder: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows of pictures, their labels) from one pass over all records, kept in a file."""
    stat = rec.stat()
    mark = f"{rec.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{len(keys)}"
    kept = scan_folder / f"labels-{hashlib.sha256(mark.encode()).hexdigest()[:16]}.npy"
    if kept.is_file():
        try:
            rows, labels = np.load(kept, allow_pickle=False)
            return rows.astype(np.int64), labels
        except (ValueError, OSError, EOFError):
            kept.unlink(missing_ok=True)  # half written by a crash of the host: scan again
    headers = _read_headers(data, offsets)
    wrong = np.flatnonzero(headers.magic != MAGIC)
    if len(wrong):
        raise RecordError(
            f"{rec}: no record starts at offset {offsets[wrong[0]]}, where key "
            f"{keys[wrong[0]]} should be; the .idx belongs to another .rec"
        )
    rows = np.flatnonzero(headers.body > 0) if images is None else images
    labels = headers.label[rows]
    try:
        scan_folder.mkdir(parents=True, exist_ok=True)
        aside = kept.with_name(f".{os.getpid()}-{kept.name}")
        np.save(aside, np.stack([rows.astype(np.float64), labels]))
        os.replace(aside, kept)
    except OSError as error:
        raise RecordError(f"{scan_folder}: cannot be written, got {error.strerror}") from None
    return rows, labels


def _measure(records: RecordSet) -> RecordSet:
    """Return the set with the size of its first picture, for sets without a property file."""
    import cv2

    image = cv2.imdecode(RecordReader(records).read(np.arange(1))[0], cv2.IMREAD_COLOR)
    if image is None:
        raise RecordError(f"{records.rec}: the picture of key {records.keys[0]} is no JPEG")
    return replace(records, image_size=(image.shape[0], image.shape[1]))
