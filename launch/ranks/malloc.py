# SPDX-License-Identifier: Apache-2.0
"""Configure glibc's malloc for large arrays.

MXNet has no memory pool for the CPU: it allocates every array with malloc.  glibc returns large
blocks to the kernel when they are freed, so the next array causes page faults and the kernel zeroes
each page again.  For a batch of images these page faults take longer than writing the images.
"""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> bool:
    """Configure glibc to reuse freed memory instead of returning it to the kernel.

    The memory of the process then never shrinks.  All threads share one arena, because arenas of
    threads are limited to 64 MiB.  Call this function before any thread starts.

    Outputs
    -------
    True if glibc was configured.  False if the user has set an environment variable MALLOC_*, or
    if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    largest = 2**31 - 1
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, largest), mallopt(_ARENA_MAX, 1)])
