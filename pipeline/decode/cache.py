# SPDX-License-Identifier: Apache-2.0
"""Cache of decoded images in shared memory, used by all ranks of a host.

The cache is one file.  The file holds the N images of a record set, uint8 (N, H, W, 3), and then N
valid bytes.  Valid byte i is 1 if image i is stored.  The first rank that needs an image decodes
and stores it.  If two ranks decode an image at the same time, they write identical bytes.  The
valid byte is written after the image, so an image that a killed rank wrote only in part is decoded
again.

The last rank to close the cache removes the file.  If all ranks were killed, the file remains.  The
next run reuses the file if the run has the same record set; otherwise the run removes the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import weakref
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import cv2
import numpy as np

from pipeline.records import RecordSet, mapped

__all__ = ["CacheError", "DecodedCache", "remove_stale_caches"]

# Default folder of the caches.  It must be on a file system in memory.
FOLDER = Path(os.environ.get("FACE_CACHE_FOLDER") or "/dev/shm")
PREFIX = "face-decoded-"
MIB = 1 << 20
# Version of the decoded pixels, a part of the hash in a cache's file name.  Change the version when
# the code decodes the same JPEGs to other pixels, so that old caches are not reused.
_CONTENT = "upright"
_WRONG_FILE_ERRNOS = (errno.EPERM, errno.EACCES, errno.ELOOP, errno.EISDIR)
"""Errors of a path that belongs to another user or is no regular file."""


class CacheError(ValueError):
    """Error for decoded images that need more memory than is free or than the budget allows."""


class DecodedCache:
    """Decoded images of a record set, uint8 (N, H, W, 3), in a file that all ranks of a host map.

    Raises CacheError if the images need more than ``budget_mib`` MiB, or more than is free on the
    file system of ``folder``.
    """

    def __init__(self, records: RecordSet, budget_mib: int, folder: Path = FOLDER):
        remove_stale_caches(records, budget_mib, folder)
        height, width = records.image_size
        count, size, total = len(records), height * width * 3, _size(records)
        if total > budget_mib * MIB:
            raise CacheError(
                f"data.decoded_cache_mib: the decoded images of {records.name} need "
                f"{-(-total // MIB)} MiB, got {budget_mib}; raise the value, or set 0 to run "
                "without a cache"
            )
        path = folder / _name(records)
        try:
            file = _open(path, total)
            memory = mapped.map_shared(file, total, path, "start the same run again")
        except OSError as error:
            # With EACCES, the folder may lack write access instead.
            if error.errno in _WRONG_FILE_ERRNOS and os.path.lexists(path):
                raise CacheError(
                    f"data.decoded_cache_mib: {path} must be a file of this user, got "
                    f"{error.strerror}; remove it, or set 0 to run without a cache"
                ) from None
            raise CacheError(
                f"data.decoded_cache_mib: {folder} cannot hold the {-(-total // MIB)} MiB of "
                f"decoded images of {records.name}, got {error.strerror}; free memory in {folder}, "
                "raise --shm-size of docker run, or set 0 to run without a cache"
            ) from None
        # A finalizer runs even if the process ends without a call of close().
        self._leave = weakref.finalize(self, _leave, path, file)
        self.images = memory[: count * size].reshape(count, height, width, 3)
        self._valid = memory[count * size :]

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return those ``rows`` whose images are not in the cache, sorted and without duplicates.

        If all images are in the cache, the result is empty.
        """
        absent = rows[self._valid[rows] == 0]
        return np.unique(absent) if len(absent) else absent

    def store(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Store the decoded images of n rows, uint8 (n, H, W, 3), and set their valid bytes."""
        self.images[rows] = images
        # Write the images first, and only then set their valid bytes.  x86 does not reorder stores,
        # so every process that sees a valid byte also sees the image.
        self._valid[rows] = 1

    def close(self) -> None:
        """Close the cache, and remove its file if no other process uses the cache.

        Do not use ``images`` afterwards.
        """
        self._leave()


def remove_stale_caches(records: RecordSet | None, budget_mib: int, folder: Path = FOLDER) -> int:
    """Remove this user's cache files that no process uses; return the number of bytes freed.

    A cache of ``records`` of at most ``budget_mib`` MiB is kept, because the run will reuse it.
    """
    stale = list(folder.glob(f"{PREFIX}{os.getuid()}-*"))
    if stale and records and _size(records) <= budget_mib * MIB:
        keep = _name(records)
        stale = [path for path in stale if path.name != keep]
    freed = 0
    for path in stale:
        # os.open fails if another process has removed the file, or if the path is a folder or a
        # symbolic link.  Skip such a path.
        with contextlib.suppress(OSError):
            freed += _leave(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW))
    return freed


def _size(records: RecordSet) -> int:
    """Return the size of a cache in bytes: the decoded images, and one valid byte per image."""
    height, width = records.image_size
    return len(records) * (height * width * 3 + 1)


def _name(records: RecordSet) -> str:
    """Return the file name of a cache, which contains a hash of all that the pixels depend on.

    The hash covers the .rec files, the rows, the image size, and the versions of DALI and OpenCV.
    The hash does not cover the compiled decoder, which returns the same pixels as DALI.
    """
    digest = hashlib.sha256(repr((_CONTENT, cv2.__version__, _dali_packages())).encode())
    for rec in records.files:
        state = rec.stat()
        digest.update(repr((str(rec.resolve()), state.st_size, state.st_mtime_ns)).encode())
    for table in (records.file, records.offsets):
        digest.update(np.ascontiguousarray(table).data)
    digest.update(repr(tuple(records.image_size)).encode())
    return f"{PREFIX}{os.getuid()}-{digest.hexdigest()[:16]}"


@cache  # it reads the metadata of all installed packages
def _dali_packages() -> list[tuple[str, str]]:
    """Return the installed DALI packages as pairs (name, version).

    The name of a DALI package contains the CUDA version.
    """
    found = ((d.metadata["Name"] or "", d.version) for d in distributions())
    return sorted({(name, version) for name, version in found if name.startswith("nvidia-dali")})


def _open(path: Path, size: int) -> int:
    """Open or create a cache file of ``size`` bytes; return its file descriptor.

    A shared lock on the file keeps other processes from removing it.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        state = os.fstat(file)
        if state.st_uid != os.getuid() or not stat.S_ISREG(state.st_mode):
            os.close(file)
            raise OSError(errno.EPERM, "a file of another user or a special file")
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file).st_nlink:
                # Reserve the memory now, because it could run out later in the run.
                os.posix_fallocate(file, 0, size)
                return file
        except BaseException:
            _leave(path, file)
            raise
        # Another process removed the file before this one got the lock: create a new file.
        os.close(file)


def _leave(path: Path, file: int) -> int:
    """Close a cache file, and remove it if no other process uses it.

    Returns the number of bytes freed.
    """
    try:
        # Without this unlock, two processes that leave at the same time would keep each other from
        # getting the exclusive lock, and the file would remain.
        fcntl.flock(file, fcntl.LOCK_UN)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = os.fstat(file)
        if not state.st_nlink:
            return 0  # another process removed the file before this one got the lock
        path.unlink(missing_ok=True)
        return state.st_size
    except BlockingIOError:
        return 0
    finally:
        os.close(file)
