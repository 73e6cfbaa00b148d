# SPDX-License-Identifier: Apache-2.0
"""Drop a file from the page cache, and measure its cached fraction and the reads from disk."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

MAX_CACHED_FRACTION = 0.02  # largest fraction of a dropped file that may stay cached
MAX_ATTEMPTS, RETRY_S = 10, 0.1
MIB = 1 << 20

_IN_CORE = bytes(page & 1 for page in range(256))  # mincore defines only the lowest bit of a byte


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
        time.sleep(RETRY_S)  # the kernel cannot drop pages during I/O
    raise RuntimeError(
        f"{path.name}: the kernel keeps the file in memory, got {fraction:.0%} of its pages; "
        "end the processes that map the file"
    )


def cached_fraction(path: Path) -> float:
    """Return the fraction of a file's pages that are in the page cache."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as data:
        pages = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
        address = ctypes.addressof(start := ctypes.c_char.from_buffer(data))
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(address), ctypes.c_size_t(len(data)), pages
        )
        del start  # the mapping cannot close while an object refers to it
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
        return bytes(pages).translate(_IN_CORE).count(1) / len(pages)


def disk_mib() -> float:
    """Return the MiB that this process has read from disk so far."""
    with open("/proc/self/io") as lines:
        (count,) = (int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))
    return count / MIB
