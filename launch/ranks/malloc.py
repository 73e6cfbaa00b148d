# SPDX-License-Identifier: Apache-2.0
"""How a rank holds the memory of its arrays.

MXNet has no pool for the CPU: every array comes from malloc and goes back to it.  glibc gives large
pieces back to the system at once, and each page of the next array is fetched and set to zero again,
which costs more than writing a batch of images does.
"""

from __future__ import annotations

import ctypes
import os

# Numbers of mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> bool:
    """Have freed memory used again rather than given back; return whether it could be done.

    The process then stays as large as it once was.  One arena for all threads, because those of
    threads hold no piece above 64 MiB.  Call it before threads start; the user's own MALLOC_
    variables win, and C libraries other than glibc are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    most = 2**31 - 1
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, most), mallopt(_ARENA_MAX, 1)])
