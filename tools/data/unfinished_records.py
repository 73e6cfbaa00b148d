# SPDX-License-Identifier: Apache-2.0
"""Write a record set piece by piece, so that interrupted work resumes after its last piece.

A journal has one line per piece.  The line states the sizes of the files after the piece and a
checksum of the bytes of the piece.  The next process cuts everything off that the journal does not
confirm.  The checksum also reveals that a crash of the machine lost pages of a file.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tools.data.record_blocks import RecordBlock, number_records, record_bytes

_FINISHED = "finished"
_READ_BYTES = 1 << 22


class Piece(NamedTuple):
    """Line of the journal about one piece of the work."""

    part: str
    """Name of the set that the piece belongs to, such as "train"."""
    rec_bytes: int
    """Size of the .rec after the piece."""
    idx_bytes: int
    """Size of the .idx after the piece."""
    checksum: int
    """Result of ``_add`` for the bytes that the piece added to the .rec and the .idx."""
    runs: list[tuple[int, int]]
    """Pairs (identity, number of images) of the images in the piece, in their order."""
    changes: dict[str, int]
    """Number of images by what was done to them."""
    rejected: list[tuple[int, str]]
    """Pairs (index in ``ImageSources.paths``, reason) of the files that are no usable images."""


HEADER_BYTES = len(record_bytes(0, [0.0, 0.0]))


class UnfinishedRecords:
    """Record set in progress: NAME.rec and NAME.idx, with header record and identity records.

    Parameters
    ----------
    folder
        Folder of the files.
    name
        Name of the .rec and the .idx without extension, and of the part in the journal.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.rec, self.idx = folder / f"{name}.rec", folder / f"{name}.idx"
        self.identities: list[int] = []
        """Identity of each label."""
        self._ranges: list[list[int]] = []
        self._next_key = 1
        self._files = [_open(path) for path in (self.rec, self.idx)]
        self._sizes = [HEADER_BYTES, len(b"0\t0\n")]

    @property
    def count(self) -> int:
        """Number of images."""
        return self._next_key - 1

    def restore(self, piece: Piece) -> bool:
        """Count a piece of the journal as written; return False if the files do not hold it."""
        sizes = [piece.rec_bytes, piece.idx_bytes]
        checksum = 0
        for file, start, end in zip(self._files, self._sizes, sizes, strict=True):
            if end < start or os.fstat(file).st_size < end:
                return False
            for at in range(start, end, _READ_BYTES):
                data = os.pread(file, min(_READ_BYTES, end - at), at)
                checksum = _add(checksum, data)
        if checksum != piece.checksum:
            return False
        self._take(piece)
        return True

    def cut(self) -> None:
        """Truncate the files after the last piece; write a missing header record and its line."""
        header = [record_bytes(0, [0.0, 0.0]), b"0\t0\n"]
        for file, size, start in zip(self._files, self._sizes, header, strict=True):
            if os.fstat(file).st_size < size:
                os.ftruncate(file, 0)
                _write(file, start)
            os.ftruncate(file, size)

    def append(
        self,
        identities: np.ndarray,
        block: RecordBlock,
        changes: dict[str, int],
        rejected: list[tuple[int, str]],
    ) -> Piece:
        """Append images; return the line of the journal.

        Parameters
        ----------
        identities
            Identity of each image, int64 (n,), at least 0.
        block
            Records of the images.  The method fills in their keys and labels.
        changes, rejected
            Entries with these names in the line.
        """
        previous = self.identities[-1] if self.identities else -1
        is_first = np.diff(identities, prepend=previous) != 0
        number_records(block, self._next_key, len(self.identities) - 1 + np.cumsum(is_first))
        offsets = (self._sizes[0] + block.starts()).tolist()
        lines = [f"{key}\t{at}\n" for key, at in enumerate(offsets, self._next_key)]
        data = [block.data.data, memoryview("".join(lines).encode())]
        checksum = 0
        for file, part in zip(self._files, data, strict=True):
            checksum = _add(checksum, part)
            _write(file, part)
        rec_bytes, idx_bytes = (
            size + len(part) for size, part in zip(self._sizes, data, strict=True)
        )
        runs = find_runs(identities)
        piece = Piece(self.name, rec_bytes, idx_bytes, checksum, runs, changes, rejected)
        self._take(piece)
        return piece

    def _take(self, piece: Piece) -> None:
        for identity, count in piece.runs:
            if not self.identities or self.identities[-1] != identity:
                self.identities.append(identity)
                self._ranges.append([self._next_key, self._next_key])
            self._next_key += count
            self._ranges[-1][1] = self._next_key
        self._sizes = [piece.rec_bytes, piece.idx_bytes]

    def finish(self) -> None:
        """Append the identity records, complete the header record, and flush the files."""
        first, offset = self._next_key, self._sizes[0]
        records, lines = [], []
        for person, keys in enumerate(self._ranges):
            record = record_bytes(first + person, [float(key) for key in keys])
            records.append(record)
            lines.append(f"{first + person}\t{offset}\n")
            offset += len(record)
        tail = (b"".join(records), "".join(lines).encode())
        for file, data in zip(self._files, tail, strict=True):
            _write(file, data)
        header = record_bytes(0, [float(first), float(first + len(self._ranges))])
        with open(self.rec, "r+b") as start:  # opened again: O_APPEND would write at the end
            start.write(header)
        for file in self._files:
            os.fsync(file)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())


class Journal:
    """Append-only file that lists the finished pieces of one task; a lock admits one process.

    Parameters
    ----------
    path
        File of the journal; created if missing.
    plan
        Text that identifies the work.

    Raises
    ------
    ValueError
        If another process has locked the journal, or if the journal belongs to another plan.
    """

    def __init__(self, path: Path, plan: str):
        self._file = _open(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ValueError(
                f"{path.parent}: another process writes to this folder, got a locked journal; wait "
                "until that process ends"
            ) from None
        self._lines = self._read()
        if not self._lines:
            self._append({"plan": plan})
        elif self._lines[0].get("plan") != plan:
            os.close(self._file)
            raise ValueError(
                f"{path.parent.parent}: holds interrupted work with other images or options, got "
                f"{path.parent.name}; repeat the interrupted command, or remove "
                f"the folder {path.parent.name}"
            )

    def _read(self) -> list[dict[str, Any]]:
        """Return the lines before the first damaged one; truncate the file after them."""
        lines: list[dict[str, Any]] = []
        self._ends = [0]
        data = b"".join(iter(lambda: os.read(self._file, _READ_BYTES), b""))
        for line in data.splitlines(keepends=True):
            try:
                found = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                break
            lines.append(found)
            self._ends.append(self._ends[-1] + len(line))
        os.ftruncate(self._file, self._ends[-1])
        return lines

    @property
    def is_finished(self) -> bool:
        """Return whether an earlier process has completed and flushed all files."""
        return _FINISHED in self._lines[-1] if self._lines else False

    def pieces(self) -> list[Piece]:
        """Return the pieces that the journal lists."""
        return [
            Piece(**{**line, "runs": [tuple(run) for run in line["runs"]]})
            for line in self._lines[1:]
            if _FINISHED not in line
        ]

    def keep(self, count: int) -> None:
        """Remove all pieces but the first ``count`` from the journal."""
        del self._ends[count + 2 :]
        os.ftruncate(self._file, self._ends[-1])

    def add(self, piece: Piece) -> None:
        """Append a piece."""
        self._append(piece._asdict())

    def finish(self) -> None:
        """Note that all files are complete."""
        self._append({_FINISHED: True})
        os.fsync(self._file)

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        _write(self._file, data)
        self._ends.append(self._ends[-1] + len(data))

    def close(self) -> None:
        """Close the file and release the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _open(path: Path) -> int:
    """Open a file for reading and appending; create it if missing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.open(path, flags, 0o666)


def find_runs(identities: np.ndarray) -> list[tuple[int, int]]:
    """Return a pair (identity, number of images) for each run of images of the same identity."""
    firsts = np.flatnonzero(np.diff(identities, prepend=-1))
    counts = np.diff(firsts, append=len(identities))
    return list(zip(identities[firsts].tolist(), counts.tolist(), strict=True))


def _write(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _add(checksum: int, data: bytes | memoryview) -> int:
    """Add the 32-bit words of bytes to a checksum of 64 bits.

    The sum finds lost pages, and takes a tenth of the time of a CRC.
    """
    whole = len(data) // 4 * 4
    words = np.frombuffer(data, dtype="<u4", count=whole // 4)
    return (checksum + int(words.sum(dtype=np.uint64)) + sum(data[whole:])) % (1 << 64)
