# SPDX-License-Identifier: Apache-2.0
"""Cache of decoded images in shared memory, for all ranks of a host.

The cache is a file that holds all images, uint8 (N, H, W, 3), and one valid byte per image.  The
first rank that needs an image decodes it; two ranks that do so at once write the same bytes.  The
valid byte is written last, so an image that a killed rank wrote in part is decoded again.  The last
rank to close the cache removes the file.  If all ranks were killed, the next run reuses the file
for the same record set, or else removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import weakref
from importlib.metadata import distributions
from pathlib import Path

import cv2
import numpy as np

from pipeline.records import RecordSet, mapped

__all__ = ["CacheError", "DecodedCache", "remove_stale_caches"]

FOLDER = Path(os.environ.get("FACE_CACHE_FOLDER") or "/dev/shm")  # on a file system in memory
PREFIX = "face-decoded-"
MIB = 1 << 20
_CONTENT = "upright"  # part of the file name: change it if the same JPEGs give other pixels


class CacheError(ValueError):
    """The decoded images do not fit into the memory."""


class DecodedCache:
    """Decoded images of a record set, uint8 (N, H, W, 3), in a file that all ranks of a host map.

    Raises CacheError if the images need more than ``budget_mib`` MiB, or more than the file system
    of ``folder`` has free.
    """

    def __init__(self, records: RecordSet, budget_mib: int, folder: Path = FOLDER):
        remove_stale_caches(records, budget_mib, folder)
        height, width = records.image_size
        count, size, total = len(records), height * width * 3, _size(records)
        if total > budget_mib * MIB:
            raise CacheError(
                f"data.decoded_cache_mib: the images of {records.name} need "
                f"{-(-total // MIB)} MiB decoded, got {budget_mib}; raise it, or set it to 0"
            )
        path = folder / _name(records)
        try:
            file = _open(path, total)
            memory = mapped.map_shared(file, total, path, "give the same command")
        except OSError as error:
            raise CacheError(
                f"data.decoded_cache_mib: {folder} has no space for the {-(-total // MIB)} MiB of "
                f"{records.name}, got {error.strerror}; free memory there (docker run --shm-size), "
                "or set it to 0"
            ) from None
        # A finalizer, because it also runs when the process ends without close().
        self._leave = weakref.finalize(self, _leave, path, file)
        self.images = memory[: count * size].reshape(count, height, width, 3)
        self._valid = memory[count * size :]

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows that the cache does not hold yet, without duplicates."""
        absent = rows[self._valid[rows] == 0]
        return np.unique(absent) if len(absent) else absent

    def store(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Add images, uint8 (n, H, W, 3)."""
        self.images[rows] = images
        self._valid[rows] = 1  # after the images: x86 does not reorder stores

    def close(self) -> None:
        """Close the cache.  Do not use ``images`` afterwards."""
        self._leave()


def remove_stale_caches(records: RecordSet | None, budget_mib: int, folder: Path = FOLDER) -> int:
    """Remove this user's caches that no process uses; return the number of bytes freed.

    The cache of ``records`` remains if the images fit into ``budget_mib``: the run will reuse it.
    """
    stale = list(folder.glob(f"{PREFIX}{os.getuid()}-*"))
    if stale and records and _size(records) <= budget_mib * MIB:
        keep = _name(records)
        stale = [path for path in stale if path.name != keep]
    freed = 0
    for path in stale:
        with contextlib.suppress(OSError):  # another process removed it, or it is no cache
            freed += _leave(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW))
    return freed


def _size(records: RecordSet) -> int:
    """Return the number of bytes of a cache: the images, and a valid byte for each."""
    height, width = records.image_size
    return len(records) * (height * width * 3 + 1)


def _name(records: RecordSet) -> str:
    """Return the file name of a cache: a hash of the record set, its rows and the decoders.

    Another version of DALI or OpenCV may give other pixels.  The compiled decoder gives DALI's.
    """
    digest = hashlib.sha256(repr((_CONTENT, cv2.__version__, _dali_packages())).encode())
    for rec in records.files:
        state = rec.stat()
        digest.update(repr((str(rec.resolve()), state.st_size, state.st_mtime_ns)).encode())
    for table in (records.file, records.offsets):
        digest.update(np.ascontiguousarray(table).data)
    digest.update(repr(tuple(records.image_size)).encode())
    return f"{PREFIX}{os.getuid()}-{digest.hexdigest()[:16]}"


def _dali_packages() -> list[tuple[str, str]]:
    """Return (name, version) of the installed DALI; the CUDA version is part of the name."""
    found = ((d.metadata["Name"] or "", d.version) for d in distributions())
    return sorted({(name, version) for name, version in found if name.startswith("nvidia-dali")})


def _open(path: Path, size: int) -> int:
    """Open or create a cache with a shared lock, so that no process removes it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            state = os.fstat(file)
            if state.st_uid != os.getuid() or not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EPERM, f"{path} belongs to another user")
            if state.st_nlink:
                os.posix_fallocate(file, 0, size)  # else memory could run out during the run
                return file
        except BaseException:
            _leave(path, file)
            raise
        os.close(file)  # another process removed it before the lock: create a new one


def _leave(path: Path, file: int) -> int:
    """Close a cache and remove it if no other process uses it; return the bytes freed."""
    try:
        fcntl.flock(file, fcntl.LOCK_UN)  # else two processes that leave at once block each other
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = os.fstat(file)
        if not state.st_nlink:
            return 0  # another process removed it before the lock
        path.unlink(missing_ok=True)
        return state.st_size
    except BlockingIOError:
        return 0
    finally:
        os.close(file)
