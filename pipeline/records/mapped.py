# SPDX-License-Identifier: Apache-2.0
"""Read memory-mapped files that may become shorter while they are read.

A thread that touches a mapped page beyond the end of the file gets SIGBUS.  With the compiled
library such a page reads as zeros (``ops.guard``).  So call ``check_file`` after you have read
bytes, and before you use them.  Without the library, ``copy_pieces`` reads with a system call,
which returns an error instead.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ops.guard import Guard

CHECK_INTERVAL_S = 0.02
_MAX_CALL_PIECES = 1024  # largest number of pieces per process_vm_readv call; IOV_MAX of Linux
_MAX_CALL_BYTES = 1 << 30  # largest number of bytes per process_vm_readv call; Linux allows 2 GiB
_guard: Guard | None = None


class RecordError(ValueError):
    """Error about a record set that cannot be used; the message names the file or the setting."""


def guard_with(guard: Guard | None) -> None:
    """Set the guard of memory maps that are created or passed to ``mapped_files`` from now on.

    A guard makes missing pages of a shortened file read as zeros.  None: do not guard these maps.
    """
    global _guard
    _guard = guard


class _Map(mmap.mmap):
    """Memory map of a complete file."""

    path: Path
    advice: str
    number: int | None = None  # id of the mapped file in the guard; None: not guarded
    earlier_faults = 0  # number of faults in this file when the guard began to watch this map

    def guarded_bytes(self) -> np.ndarray:
        """Guard this map if a guard is set; return the bytes of the file, uint8 (n,)."""
        data = np.frombuffer(self, dtype=np.uint8)
        if self.number is None and _guard is not None:
            self.number = _guard.watch(data.ctypes.data)
            if self.number is not None:
                self.earlier_faults = _guard.faults(self.number)
        return data

    def check(self) -> None:
        try:
            size = self.size()  # size of the mapped file, even if it was renamed or replaced
        except OSError as error:
            raise self.read_error(error.strerror or str(error)) from None
        if size < len(self):
            raise RecordError(
                f"{self.path}: became shorter while it was read, got {size} bytes where "
                f"{len(self)} were mapped; {self.advice}"
            )
        if self.number is not None and _guard and _guard.faults(self.number) != self.earlier_faults:
            raise self.read_error("SIGBUS (an I/O error, or the file was shorter for a while)")

    def read_error(self, cause: str) -> RecordError:
        return RecordError(
            f"{self.path}: cannot be read, got {cause}; check the disk, then {self.advice}"
        )


def map_file(path: Path, advice: str = "copy the file again and rerun the command") -> np.ndarray:
    """Map a file without reading it; return its bytes, uint8 (n,). The file must not be empty.

    ``advice`` is the last clause of the error message if the file becomes shorter.
    """
    with path.open("rb") as file:
        mapped = _Map(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.path, mapped.advice = path, advice
    return mapped.guarded_bytes()


def map_shared(descriptor: int, size: int, path: Path, advice: str) -> np.ndarray:
    """Map an open file for writing, shared with other processes; return its bytes, uint8 (size,).

    ``advice`` has the same meaning as in ``map_file``.
    """
    mapped = _Map(descriptor, size)
    mapped.path, mapped.advice = path, advice
    return mapped.guarded_bytes()


def _find_map(data: np.ndarray) -> _Map | None:
    """Return the memory map that an array is a view of; None if the array is not such a view."""
    base: Any = data
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, _Map) else None


def mapped_files(arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Guard the mapped files that arrays are views of; return each file's bytes, uint8 (n,)."""
    maps = {id(mapped): mapped for array in arrays if (mapped := _find_map(array)) is not None}
    return [mapped.guarded_bytes() for mapped in maps.values()]


def is_guarded(data: np.ndarray) -> bool:
    """Return whether reading an array is safe even if its mapped file becomes shorter."""
    mapped = _find_map(data)
    return mapped is None or mapped.number is not None


def check_file(data: np.ndarray) -> None:
    """Raise RecordError if the mapped file of an array became shorter or cannot be read.

    Missing pages read as zeros.  So call this function after you have read bytes of the array, and
    before you use these bytes or report an error in them.  The check takes at most two system
    calls.
    """
    mapped = _find_map(data)
    if mapped is not None:
        mapped.check()


class FileWatch:
    """Tells, without system calls, when to repeat ``check_file`` for a list of mapped arrays."""

    def __init__(self, arrays: Iterable[np.ndarray]):
        self._numbers = [m.number for array in arrays if (m := _find_map(array)) is not None]
        self._faults: list[int] = []
        self._checked_at_s = 0.0

    def is_check_due(self) -> bool:
        """Return True if ``check_file`` must be called now.

        A check is due after a failed read of a page, and CHECK_INTERVAL_S after the last check.
        Without a guard a check is always due.  The checks at intervals are needed because a
        shortened file may end inside a page: the rest of that page then reads as zeros, and no read
        fails.
        """
        if _guard is None or None in self._numbers:
            return True
        faults = [_guard.faults(number) for number in self._numbers if number is not None]
        now = time.monotonic()
        if faults == self._faults and now < self._checked_at_s + CHECK_INTERVAL_S:
            return False
        self._faults, self._checked_at_s = faults, now
        return True


def copy_pieces(data: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Copy pieces of a mapped array, one after the other, into a new array, uint8 (sizes.sum(),).

    ``starts`` and ``sizes`` are int64 (n,), in bytes, for n pieces inside the array.  Raises
    RecordError if the file became shorter or cannot be read.
    """
    out = np.empty(int(sizes.sum()), dtype=np.uint8)
    ends = np.cumsum(sizes)
    sources = np.stack([data.ctypes.data + starts, sizes], axis=1).astype(np.uint64)
    targets = np.stack([out.ctypes.data + ends - sizes, sizes], axis=1).astype(np.uint64)
    first = 0
    while first < len(sizes):
        done = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, done + _MAX_CALL_BYTES, side="right"))
        last = min(max(last, first + 1), first + _MAX_CALL_PIECES)
        count, wanted = last - first, int(ends[last - 1] - done)
        target, source = targets[first:].ctypes.data, sources[first:].ctypes.data
        got = libc().process_vm_readv(os.getpid(), target, count, source, count, 0)
        if got != wanted:
            if got >= 0 or ctypes.get_errno() == errno.EFAULT:
                check_file(data)
                raise RecordError("memory-mapped file: cannot be read, got EFAULT; check the disk")
            # The system call is forbidden, for example by a sandbox: copy without it.
            for k in range(first, last):
                out[ends[k] - sizes[k] : ends[k]] = data[starts[k] : starts[k] + sizes[k]]
        first = last
    return out


def read_pieces(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Return the pieces ``data[starts[i]:ends[i]]`` of an array as a list.

    The pieces are views if the array is guarded, else copies.
    """
    if not is_guarded(data):
        sizes = ends - starts
        data, ends = copy_pieces(data, starts, sizes), np.cumsum(sizes)
        starts = ends - sizes
    return [data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def read_piece(data: np.ndarray, start: int, size: int) -> np.ndarray:
    """Return ``size`` bytes of an array from ``start`` on, or fewer if the array ends earlier."""
    return read_pieces(data, np.array([start]), np.array([min(start + size, len(data))]))[0]


@functools.cache
def libc() -> ctypes.CDLL:
    """Load the C library and declare the signatures of its memory-map functions."""
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_ulong
    library.process_vm_readv.argtypes = [ctypes.c_int, pointer, size, pointer, size, size]
    library.process_vm_readv.restype = ctypes.c_ssize_t
    library.mincore.argtypes = [pointer, size, pointer]
    library.madvise.argtypes = [pointer, size, ctypes.c_int]
    return library
