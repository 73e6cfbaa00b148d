# SPDX-License-Identifier: Apache-2.0
"""Index files that a run writes: the parsed index of a set, and an .idx of its images alone.

They are made in pieces: an index of 5.8 million lines as Python text takes 700 MB.  A file that
cannot be written is a RecordError, and nothing is left of it.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from atomic_write import atomic_write
from pipeline.records import mapped
from pipeline.records.mapped import RecordError
from pipeline.records.record_set import RecordSet, parts


def narrow(numbers: np.ndarray) -> np.ndarray:
    """Return numbers as int32 where they all are such: that is half of the memory."""
    with np.errstate(invalid="ignore"):
        small = numbers.astype(np.int32)
    return small if (small == numbers).all() else numbers


def keep_columns(path: Path, *columns: np.ndarray) -> None:
    """Write columns (N,) of numbers one after the other, unless another rank just has."""
    with _alone(path.parent):
        if not path.is_file():
            with atomic_write(path) as file:
                for column in columns:
                    np.save(file, column, allow_pickle=False)


def kept_columns(path: Path, count: int) -> list[np.ndarray]:
    """Return columns that were kept as maps of the file, which the ranks of a host share.

    Raises
    ------
    ValueError, OSError, EOFError
        If the file is not whole.
    """
    columns = []
    data = mapped.map_file(path, "give the same command, which makes it again")
    with path.open("rb") as file:
        for _ in range(count):
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            size = math.prod(shape) * dtype.itemsize
            if start + size > len(data):
                raise ValueError(f"{path}: ends in the middle of a column, got {len(data)} bytes")
            columns.append(data[start : start + size].view(dtype).reshape(shape))
            file.seek(size, os.SEEK_CUR)
    return columns


def release_freed_memory() -> None:
    """Return freed memory to the system: a run keeps it (launch/ranks/malloc.py)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


def image_index(records: RecordSet, folder: Path) -> Path:
    """Return an .idx in a folder that lists the images alone; written unless it is there.

    Its name comes from what it says, so a resumed run finds it, and all ranks share one.
    """
    digest = hashlib.sha256()
    for part in parts(len(records)):
        digest.update(records.keys[part].tobytes())
        digest.update(records.offsets[part].tobytes())
    path = folder / f"images-{digest.hexdigest()[:16]}.idx"
    with _alone(folder):
        if not path.is_file():
            write_image_index(records, path)
    return path


def write_image_index(records: RecordSet, path: Path) -> None:
    """Write an .idx that lists the images alone, for readers that decode every line of it."""
    with _writing(path.parent), atomic_write(path) as file:
        for part in parts(len(records)):
            keys, offsets = _digits(records.keys[part]), _digits(records.offsets[part])
            marks = np.broadcast_to(np.frombuffer(b"\t\n", np.uint8), (len(keys), 2))
            lines = np.concatenate([keys, marks[:, :1], offsets, marks[:, 1:]], axis=1)
            file.write(lines[lines > 0].data)


def _digits(numbers: np.ndarray) -> np.ndarray:
    """Return numbers from 0 on in ASCII, uint8 (n, digits of the largest), 0 before the first."""
    quotient = numbers.astype(np.int64)
    digits = np.zeros((len(quotient), len(str(quotient.max()))), dtype=np.uint8)
    last = digits.shape[1] - 1
    for place in range(last, -1, -1):
        digit = quotient % 10 + ord("0")
        digits[:, place] = np.where((quotient > 0) | (place == last), digit, 0)
        quotient //= 10
    return digits


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make a folder that is written into, and name it where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or error  # NumPy's own have no number
        raise RecordError(
            f"{folder}: cannot be written, got {reason}; make room or choose another run.dir"
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have one rank of a host at a time in a folder, which is made; the others wait.

    Where the file system has no locks on folders (NFS) all continue, and each writes the same.
    """
    with _writing(folder):
        held = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)  # Horovod: a rank that dies releases it
            yield
        finally:
            os.close(held)
