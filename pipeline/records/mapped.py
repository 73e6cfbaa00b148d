# SPDX-License-Identifier: Apache-2.0
"""Files that are read through memory maps, and may become shorter meanwhile.

A thread that touches a mapped page which the file no longer has gets SIGBUS. With the compiled
library such pages read as zeros (``ops.guard``), and ``check_file`` has to be called before
anything is used that was read. Without it ``copied`` reads: the kernel copies, and says where it
cannot.
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
    from ops.guard import Guard  # which brings MXNet

CHECK_INTERVAL_S = 0.02  # between two checks of the length of a file
_MAX_PIECES = 1024  # of one system call: IOV_MAX
_CALL_BYTES = 1 << 30  # of one system call, which takes no more than 2 GiB
_guard: Guard | None = None


class RecordError(ValueError):
    """A record set that cannot be read; the message names the file and the key."""


def guard_with(guard: Guard | None) -> None:
    """Choose what guards the maps that are made, or asked about, from now on; None for nothing."""
    global _guard
    _guard = guard


class _Map(mmap.mmap):
    """The whole of a file, mapped."""

    path: Path
    cure: str
    number: int | None = None  # of the guard
    seen = 0  # faults of the file before it was mapped

    def watch(self, address: int) -> None:
        if self.number is None and _guard is not None:
            self.number = _guard.watch(address)
            if self.number is not None:
                self.seen = _guard.faults(self.number)

    def check(self) -> None:
        try:
            size = self.size()  # of the file that was mapped, though another has its name now
        except OSError as error:
            raise self.unreadable(error.strerror or str(error)) from None
        if size < len(self):
            raise RecordError(
                f"{self.path}: became shorter while it was read, got {size} bytes where "
                f"{len(self)} were mapped; {self.cure}"
            )
        if self.number is not None and _guard and _guard.faults(self.number) != self.seen:
            raise self.unreadable("SIGBUS: an I/O error, or it was shorter for a while")

    def unreadable(self, what: str) -> RecordError:
        return RecordError(f"{self.path}: cannot be read, got {what}; check the disk, {self.cure}")


def map_file(path: Path, cure: str = "copy it again and give the same command") -> np.ndarray:
    """Return the bytes of a file, uint8 (n,), mapped and not read; it may not be empty.

    ``cure`` is what to do where it becomes shorter, the end of the sentence.
    """
    with path.open("rb") as file:
        return _mapped(_Map(file.fileno(), 0, access=mmap.ACCESS_READ), path, cure)


def map_shared(file: int, size: int, path: Path, cure: str) -> np.ndarray:
    """Return the bytes of an open file, uint8 (size,), mapped to be written for all to see."""
    return _mapped(_Map(file, size), path, cure)


def _mapped(mapped: _Map, path: Path, cure: str) -> np.ndarray:
    mapped.path, mapped.cure = path, cure
    data = np.frombuffer(mapped, dtype=np.uint8)
    mapped.watch(data.ctypes.data)
    return data


def _map_of(data: np.ndarray) -> _Map | None:
    found: Any = data
    while isinstance(found, np.ndarray | memoryview):
        found = found.base if isinstance(found, np.ndarray) else found.obj
    return found if isinstance(found, _Map) else None


def maps_of(arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Return an array for each mapped file that lies behind some arrays, and have it guarded."""
    found: dict[int, np.ndarray] = {}
    for array in arrays:
        mapped = _map_of(array)
        if mapped is not None and id(mapped) not in found:
            whole = found[id(mapped)] = np.frombuffer(mapped, dtype=np.uint8)
            mapped.watch(whole.ctypes.data)
    return list(found.values())


def is_guarded(data: np.ndarray) -> bool:
    """Return whether an array can be read though its mapped file may become shorter."""
    mapped = _map_of(data)
    return mapped is None or mapped.number is not None


def check_file(data: np.ndarray) -> None:
    """Raise RecordError if the mapped file of an array became shorter or cannot be read.

    To be called before anything is used that was read from it, and before anything else is said of
    it: a page that is gone reads as zeros.  Costs two system calls at most.
    """
    mapped = _map_of(data)
    if mapped is not None:
        mapped.check()


class Watch:
    """Tells when mapped files, one for each array, are to be checked again; no system calls."""

    def __init__(self, arrays: Iterable[np.ndarray]):
        self._numbers = [m.number for array in arrays if (m := _map_of(array)) is not None]
        self._faults: list[int] = []
        self._checked = 0.0

    def is_due(self) -> bool:
        """Return whether there was a fault since the last call, or CHECK_INTERVAL_S have passed.

        A file that ends in the middle of a page gives zeros up to the page's end without a fault.
        """
        if _guard is None or None in self._numbers:
            return True
        faults = [_guard.faults(number) for number in self._numbers if number is not None]
        now = time.monotonic()
        if faults == self._faults and now < self._checked + CHECK_INTERVAL_S:
            return False
        self._faults, self._checked = faults, now
        return True


def copied(data: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return pieces of an array one after the other, uint8 (sizes.sum(),).

    ``begins`` and ``sizes`` are int64 (n,); the pieces lie inside the array.  Raises RecordError
    as ``check_file`` does.
    """
    out = np.empty(int(sizes.sum()), dtype=np.uint8)
    ends = np.cumsum(sizes)
    theirs = np.stack([data.ctypes.data + begins, sizes], axis=1).astype(np.uint64)
    ours = np.stack([out.ctypes.data + ends - sizes, sizes], axis=1).astype(np.uint64)
    first = 0
    while first < len(sizes):
        done = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, done + _CALL_BYTES, side="right"))
        last = min(max(last, first + 1), first + _MAX_PIECES)
        count, wanted = last - first, int(ends[last - 1] - done)
        to, where = ours[first:].ctypes.data, theirs[first:].ctypes.data
        got = libc().process_vm_readv(os.getpid(), to, count, where, count, 0)
        if got != wanted:
            if got >= 0 or ctypes.get_errno() == errno.EFAULT:
                check_file(data)
                raise RecordError("a mapped file cannot be read, got EFAULT; check the disk")
            # A sandbox that forbids the call.
            for k in range(first, last):
                out[ends[k] - sizes[k] : ends[k]] = data[begins[k] : begins[k] + sizes[k]]
        first = last
    return out


def pieces(data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Return pieces of an array: views of it, or copies where its file may become shorter."""
    if not is_guarded(data):
        data, sizes = copied(data, begins, ends - begins), ends - begins
        ends = np.cumsum(sizes)
        begins = ends - sizes
    return [data[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]


def piece(data: np.ndarray, begin: int, size: int) -> np.ndarray:
    """Return one piece of an array, as far as it goes."""
    return pieces(data, np.array([begin]), np.array([min(begin + size, len(data))]))[0]


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library, with the calls on mapped memory declared."""
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_ulong
    library.process_vm_readv.argtypes = [ctypes.c_int, pointer, size, pointer, size, size]
    library.process_vm_readv.restype = ctypes.c_ssize_t
    library.mincore.argtypes = [pointer, size, pointer]
    library.madvise.argtypes = [pointer, size, ctypes.c_int]
    return library
