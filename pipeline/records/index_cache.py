# SPDX-License-Identifier: Apache-2.0
"""Save and load a run's index files: the parsed index of a set, and an .idx that lists only images.

If a file cannot be written, the function that writes it raises RecordError and leaves no part of
the file.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from atomic_write import atomic_write
from pipeline.records import mapped
from pipeline.records.mapped import RecordError
from pipeline.records.record_set import RecordSet, row_slices

_CRC_BYTES, _CRC_SUFFIX = 4, ".crc"
_PIECE_BYTES = 1 << 20


def narrow(numbers: np.ndarray) -> np.ndarray:
    """Return numbers as int32, or unchanged if int32 cannot represent all of them exactly."""
    with np.errstate(invalid="ignore"):
        small = numbers.astype(np.int32)
    return small if (small == numbers).all() else numbers


class DamagedIndex(ValueError):
    """Error for a cached index whose bytes are not those that were written."""


class _Checksummed:
    """Writable file that computes the CRC-32 of the bytes written so far."""

    def __init__(self, file: IO[bytes]):
        self._file, self.crc = file, 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self._file.write(data)


def save_columns(path: Path, *columns: np.ndarray) -> None:
    """Write arrays of shape (N,) to one file, unless another rank has already written the file.

    The last four bytes of the file are the CRC-32 of the bytes before them.
    """
    with _lock_folder(path.parent):
        if not path.is_file():
            with atomic_write(path) as file:
                checked = _Checksummed(file)
                for column in columns:
                    np.save(checked, column, allow_pickle=False)
                file.write(checked.crc.to_bytes(_CRC_BYTES, "little"))


def load_columns(path: Path, count: int) -> list[np.ndarray]:
    """Return the first ``count`` arrays of a file that ``save_columns`` wrote.

    The arrays are views of the mapped file, so all ranks of a host share the memory.

    Raises
    ------
    DamagedIndex, OSError
        If the file is incomplete, or if its bytes do not match its checksum.
    """
    columns = []
    data = mapped.map_file(path, "rerun the command, which writes the file again")
    stored = int.from_bytes(data[-_CRC_BYTES:].tobytes(), "little")
    if zlib.crc32(data[:-_CRC_BYTES].data) != stored:
        raise DamagedIndex(f"{path}: is damaged, got a wrong checksum; remove the file")
    with path.open("rb") as file:
        for _ in range(count):
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            size = math.prod(shape) * dtype.itemsize
            columns.append(data[start : start + size].view(dtype).reshape(shape))
            file.seek(size, os.SEEK_CUR)
    return columns


def release_freed_memory() -> None:
    """Release to the operating system the freed memory that malloc still holds.

    The settings in launch/ranks/malloc.py keep malloc from releasing this memory automatically.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # musl has no malloc_trim
        trim(0)


def image_index(records: RecordSet, folder: Path) -> Path:
    """Return the path of an .idx in ``folder`` that lists only images; write the file if missing.

    The file name contains a hash of the content, so all ranks and resumed runs share one file.  A
    second file, with the suffix ``.crc``, holds the CRC-32 of the .idx.  If the CRC-32 does not
    match, the function writes both files again.
    """
    digest = hashlib.sha256()
    for part in row_slices(len(records)):
        digest.update(records.keys[part].tobytes())
        digest.update(records.offsets[part].tobytes())
    path = folder / f"images-{digest.hexdigest()[:16]}.idx"
    with _lock_folder(folder):
        if not _has_checksum(path):
            write_image_index(records, path)
            with atomic_write(path.with_suffix(_CRC_SUFFIX)) as file:
                file.write(b"%08x" % _checksum(path))
    return path


def _has_checksum(path: Path) -> bool:
    """Return whether an .idx exists and has the CRC-32 that its .crc file states."""
    try:
        return path.with_suffix(_CRC_SUFFIX).read_bytes() == b"%08x" % _checksum(path)
    except OSError:
        return False


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            crc = zlib.crc32(piece, crc)
    return crc


def write_image_index(records: RecordSet, path: Path) -> None:
    """Write an .idx that lists only images, for readers that decode every record of an .idx.

    The function writes the lines in parts: 5.8 million lines as Python strings would take 700 MB.
    """
    with _explain_write_errors(path.parent), atomic_write(path) as file:
        for part in row_slices(len(records)):
            keys, offsets = _to_digits(records.keys[part]), _to_digits(records.offsets[part])
            marks = np.broadcast_to(np.frombuffer(b"\t\n", np.uint8), (len(keys), 2))
            lines = np.concatenate([keys, marks[:, :1], offsets, marks[:, 1:]], axis=1)
            file.write(lines[lines > 0].data)


def _to_digits(numbers: np.ndarray) -> np.ndarray:
    """Convert n numbers, each at least 0, to ASCII digits.

    The result is uint8 (n, digits), where each row is padded with zero bytes on the left.
    """
    quotient = numbers.astype(np.int64)
    digits = np.zeros((len(quotient), len(str(quotient.max()))), dtype=np.uint8)
    last = digits.shape[1] - 1
    for column in range(last, -1, -1):
        digit = quotient % 10 + ord("0")
        digits[:, column] = np.where((quotient > 0) | (column == last), digit, 0)
        quotient //= 10
    return digits


@contextmanager
def _explain_write_errors(folder: Path) -> Iterator[None]:
    """Create a folder; raise RecordError if the folder or a file in it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or error  # NumPy's OSError has no errno and no strerror
        raise RecordError(
            f"{folder}: cannot be written, got {reason}; free disk space or choose another run.dir"
        ) from None


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Create a folder and lock it for this rank; the other ranks of the host wait for the lock.

    On file systems that cannot lock folders (NFS) no rank waits, and each rank writes the same
    file.
    """
    with _explain_write_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # a killed rank holds no lock
            yield
        finally:
            os.close(descriptor)
