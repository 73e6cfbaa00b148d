# SPDX-License-Identifier: Apache-2.0
"""Files that are read through memory maps, and may become shorter meanwhile.

A thread that touches a mapped page which the file no longer has gets SIGBUS. With the compiled
library such pages read as zeros (``ops.guard``), and ``fault_of`` has to be asked before anything
is used that was read. Without it ``copied`` reads: the kernel copies, and says where it cannot.
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
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ops.guard import Guard  # which brings MXNet

_PIECES = 1024  # of one system call: IOV_MAX
_CALL_BYTES = 1 << 30  # of one system call, which takes no more than 2 GiB
LOOK_S = 0.02  # between two looks at the length of a file
_guard: Guard | None = None


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

    def fault(self) -> str:
        try:
            size = self.size()  # of the file that was mapped, though another has its name now
        except OSError as error:
            return self.unreadable(error.strerror or str(error))
        if size < len(self):
            return (
                f"{self.path}: became shorter while it was read, got {size} bytes where "
                f"{len(self)} were mapped; {self.cure}"
            )
        if self.number is not None and _guard and _guard.faults(self.number) != self.seen:
            return self.unreadable("SIGBUS: an I/O error, or it was shorter for a while")
        return ""

    def unreadable(self, what: str) -> str:
        return f"{self.path}: cannot be read, got {what}; check the disk, {self.cure}"


def map_file(path: Path, cure: str = "copy it again and give the same command") -> np.ndarray:
    """Return the bytes of a file, uint8 (n,), mapped and not read; it may not be empty.

    Parameters
    ----------
    cure
        What to do where it becomes shorter, the end of the sentence.

    Raises
    ------
    OSError
        If it cannot be opened or mapped.
    """
    with path.open("rb") as file:
        return _mapped(_Map(file.fileno(), 0, access=mmap.ACCESS_READ), path, cure)


def map_shared(file: int, size: int, path: Path, cure: str) -> np.ndarray:
    """Return the bytes of an open file, uint8 (size,), mapped to be written for all to see.

    Raises
    ------
    OSError
        If it cannot be mapped.
    """
    return _mapped(_Map(file, size), path, cure)


def _mapped(mapped: _Map, path: Path, cure: str) -> np.ndarray:
    mapped.path, mapped.cure = path, cure
    data = np.frombuffer(mapped, dtype=np.uint8)
    mapped.watch(data.ctypes.data)
    return data


def _map_of(data: np.ndarray | memoryview | mmap.mmap | None) -> _Map | None:
    found = data
    while isinstance(found, np.ndarray | memoryview):
        found = found.base if isinstance(found, np.ndarray) else found.obj  # type: ignore[assignment]
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


def fault_of(data: np.ndarray) -> str:
    """Return a sentence if the mapped file of an array became shorter or cannot be read, else "".

    Costs two system calls at most.
    """
    mapped = _map_of(data)
    return "" if mapped is None else mapped.fault()


class Watch:
    """Tells when mapped files should be asked for faults again, without a system call.

    Parameters
    ----------
    arrays
        One for each file.
    """

    def __init__(self, arrays: Iterable[np.ndarray]):
        self._numbers = [m.number for array in arrays if (m := _map_of(array)) is not None]
        self._faults: list[int] = []
        self._asked = 0.0

    def is_due(self) -> bool:
        """Return whether a file has had a fault since the last call, or LOOK_S have passed.

        A file that ends in the middle of a page gives zeros up to the page's end without a fault.
        """
        if _guard is None or None in self._numbers:
            return True
        faults = [_guard.faults(number) for number in self._numbers if number is not None]
        now = time.monotonic()
        if faults == self._faults and now < self._asked + LOOK_S:
            return False
        self._faults, self._asked = faults, now
        return True


def copied(data: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> np.ndarray | None:
    """Return pieces of an array one after the other, uint8 (sizes.sum(),).

    Parameters
    ----------
    begins, sizes
        Of each piece, int64 (n,) each; inside the array.

    Outputs
    -------
    None where a page cannot be read: the file has become shorter, ``fault_of`` says so.
    """
    out = np.empty(int(sizes.sum()), dtype=np.uint8)
    ends = np.cumsum(sizes)
    theirs = np.stack([data.ctypes.data + begins, sizes], axis=1).astype(np.uint64)
    ours = np.stack([out.ctypes.data + ends - sizes, sizes], axis=1).astype(np.uint64)
    first = 0
    while first < len(sizes):
        done = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, done + _CALL_BYTES, side="right"))
        last = min(max(last, first + 1), first + _PIECES)
        count, wanted = last - first, int(ends[last - 1] - done)
        got = _system().process_vm_readv(
            *(os.getpid(), ours[first:].ctypes.data, count, theirs[first:].ctypes.data, count, 0)
        )
        if got != wanted:
            if got >= 0 or ctypes.get_errno() == errno.EFAULT:
                return None
            # A sandbox that forbids the call.
            for k in range(first, last):
                out[ends[k] - sizes[k] : ends[k]] = data[begins[k] : begins[k] + sizes[k]]
        first = last
    return out


@functools.cache
def _system() -> ctypes.CDLL:
    system = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_ulong
    system.process_vm_readv.argtypes = [ctypes.c_int, pointer, size, pointer, size, size]
    system.process_vm_readv.restype = ctypes.c_ssize_t
    return system
