# SPDX-License-Identifier: Apache-2.0
"""Drop a file from Linux's page cache, and measure what is cached and what is read from disk."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

MAX_CACHED_FRACTION = 0.02  # The kernel may keep this fraction of a dropped file in memory.
MAX_ATTEMPTS, RETRY_S = 10, 0.1
MIB = 1 << 20

# mincore() returns a byte per page, of which only the lowest bit is defined.
_IN_CORE = bytes(page & 1 for page in range(256))


def drop(path: Path) -> None:
    """Drop a file's pages from the page cache.

    Raises
    ------
    RuntimeError
        If the kernel keeps the pages in memory.
    """
    for _ in range(MAX_ATTEMPTS):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if (fraction := cached_fraction(path)) <= MAX_CACHED_FRACTION:
            return
        time.sleep(RETRY_S)  # The kernel cannot drop pages while they are read or written.
    raise RuntimeError(
        f"{path.name}: the file must not be in the page cache, got {fraction:.0%} of its pages "
        "there; end the processes that map the file"
    )


def cached_fraction(path: Path) -> float:
    """Return the fraction of a file's pages that are in the page cache."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as data:
        pages = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
        address = ctypes.addressof(start := ctypes.c_char.from_buffer(data))
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(address), ctypes.c_size_t(len(data)), pages
        )
        del start  # The memory map cannot be closed while an object refers to it.
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
        return bytes(pages).translate(_IN_CORE).count(1) / len(pages)


def disk_mib() -> float:
    """Return the MiB that this process has read from disk so far."""
    with open("/proc/self/io") as lines:
        (count,) = (int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))
    return count / MIB
