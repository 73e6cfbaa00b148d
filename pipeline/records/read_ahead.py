# SPDX-License-Identifier: Apache-2.0
"""Pages of mapped files: which hold some pieces, whether they are in memory, asking for them."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from pathlib import Path

import numpy as np


@functools.cache
def _system() -> ctypes.CDLL:
    system = ctypes.CDLL(None)
    system.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    system.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return system


def pages_of(
    data: np.ndarray, offsets: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (offsets, sizes) of the whole pages that hold some pieces of a mapped file.

    Pieces that follow each other become one.
    """
    begin = offsets // mmap.PAGESIZE * mmap.PAGESIZE
    end = np.minimum(offsets + sizes, data.size)
    begin, end = begin[begin < end], end[begin < end]
    if not len(begin):
        return begin, end
    apart = np.ones(len(begin), dtype=bool)
    apart[1:] = (begin[1:] < begin[:-1]) | (begin[1:] > end[:-1])
    first = np.flatnonzero(apart)
    return begin[first], np.maximum.reduceat(end, first) - begin[first]


def advise(data: np.ndarray, begin: np.ndarray, size: np.ndarray, advice: int) -> None:
    """Tell the system what whole pages of a mapped file will be used for."""
    address = data.ctypes.data
    for where, count in zip(begin.tolist(), size.tolist(), strict=True):
        _system().madvise(address + where, count, advice)


def all_in_memory(data: np.ndarray, begin: np.ndarray, size: np.ndarray) -> bool:
    """Return whether the system holds some whole pages of a mapped file; False if it fails to tell.

    Without fetching any.
    """
    pages = -(-size // mmap.PAGESIZE)
    held = np.zeros(int(pages.sum()), dtype=np.uint8)
    address, out = data.ctypes.data, held.ctypes.data
    for where, count, n in zip(begin.tolist(), size.tolist(), pages.tolist(), strict=True):
        if _system().mincore(address + where, count, out):
            return False
        out += n
    return bool((held & 1).all())


def tells(path: Path) -> bool:
    """Return whether the system tells this process which pages of a file it holds.

    Of a file of others, which it could not write, it says that it holds all of them.
    """
    try:
        return path.stat().st_uid == os.geteuid() or os.access(path, os.W_OK)
    except OSError:
        return False
