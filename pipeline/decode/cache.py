# SPDX-License-Identifier: Apache-2.0
"""Decoded images in memory that the ranks of a host share.

A file in the host's shared memory, named after the record set and the decoder: images as uint8
(N, H, W, 3), and a mark for each that is there.  The rank that first needs an image decodes it; two
that do so at once write the same bytes.  The mark is written after the image, so an image that a
killed rank wrote in part is decoded again.  The last rank to leave removes the file.  The next run,
with a cache or without, removes the file of a killed run, or uses it for the same set.
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

__all__ = ["CacheError", "DecodedCache", "remove_left_caches"]

FOLDER = Path(os.environ.get("FACE_CACHE_FOLDER") or "/dev/shm")
"""File system in memory that holds the caches of all runs of this host."""
PREFIX = "face-decoded-"
MIB = 1 << 20
_PIXELS = "upright"  # caches that older code has left hold other ones


class CacheError(ValueError):
    """The images cannot be kept in memory as asked."""


class DecodedCache:
    """The decoded images of a set.

    Parameters
    ----------
    budget_mib
        Limit of their memory, for all ranks of the host together.
    folder
        A file system in memory.

    Raises
    ------
    CacheError
        If they need more than that, or more than the file system has.
    """

    def __init__(self, records: RecordSet, budget_mib: int, folder: Path = FOLDER):
        remove_left_caches(records, budget_mib, folder)
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
                f"data.decoded_cache_mib: {folder} cannot take the {-(-total // MIB)} MiB of "
                f"{records.name}, got {error.strerror}; free memory there (docker run --shm-size), "
                "or set it to 0"
            ) from None
        # Also when the process ends without closing it.
        self._leave = weakref.finalize(self, _leave, path, file)
        self.images = memory[: count * size].reshape(count, height, width, 3)
        self._there = memory[count * size :]

    @property
    def address(self) -> int:
        """Where the first image lies."""
        return int(self.images.ctypes.data)

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return those of some rows that are not there yet, each once."""
        absent = rows[self._there[rows] == 0]
        return np.unique(absent) if len(absent) else absent

    def store(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Add images, uint8 (n, H, W, 3)."""
        self.images[rows] = images
        self._there[rows] = 1  # after the images: x86 lets no store overtake another

    def close(self) -> None:
        """Leave the cache; nothing may use its images any more."""
        self._leave()


def remove_left_caches(records: RecordSet | None, budget_mib: int, folder: Path = FOLDER) -> int:
    """Remove the caches of this user that no process holds; return the bytes that they took.

    That of ``records`` stays if the images fit into ``budget_mib``: it will be used again.
    """
    left = list(folder.glob(f"{PREFIX}{os.getuid()}-*"))
    if left and records and _size(records) <= budget_mib * MIB:
        keep = _name(records)
        left = [path for path in left if path.name != keep]
    freed = 0
    for path in left:
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours
            freed += _leave(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW))
    return freed


def _size(records: RecordSet) -> int:
    """Return the bytes of a set's cache: its images, and a mark for each."""
    height, width = records.image_size
    return len(records) * (height * width * 3 + 1)


def _name(records: RecordSet) -> str:
    """Return the name of a set's cache: of this user, this set, this selection of its rows.

    The decoders count too: another version of DALI or OpenCV may give other pixels.  Ours gives the
    same as DALI's.
    """
    digest = hashlib.sha256(repr((_PIXELS, cv2.__version__, _decoder())).encode())
    for rec in records.files:
        state = rec.stat()
        digest.update(repr((str(rec.resolve()), state.st_size, state.st_mtime_ns)).encode())
    for table in (records.file, records.offsets):
        digest.update(np.ascontiguousarray(table).data)
    digest.update(repr(tuple(records.image_size)).encode())
    return f"{PREFIX}{os.getuid()}-{digest.hexdigest()[:16]}"


def _decoder() -> list[tuple[str, str]]:
    """Return name and version of the installed DALI: its packages are named by the CUDA version."""
    found = ((d.metadata["Name"] or "", d.version) for d in distributions())
    return sorted({(name, version) for name, version in found if name.startswith("nvidia-dali")})


def _open(path: Path, size: int) -> int:
    """Return the file of a cache, made if need be, held so that nobody removes it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            state = os.fstat(file)
            if state.st_uid != os.getuid() or not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EPERM, f"{path} is somebody else's")
            if state.st_nlink:
                os.posix_fallocate(file, 0, size)  # now, or it fails in the middle of the run
                return file
        except BaseException:
            _remove_unused(path, file)
            os.close(file)
            raise
        os.close(file)  # removed between the two calls: make another


def _leave(path: Path, file: int) -> int:
    """Release a cache and close its file; return the bytes that this freed."""
    try:
        return _remove_unused(path, file)
    finally:
        os.close(file)


def _remove_unused(path: Path, file: int) -> int:
    """Release a cache; remove it unless another process holds it.  Return the bytes freed."""
    fcntl.flock(file, fcntl.LOCK_UN)  # or two that leave at once would each see the other
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    state = os.fstat(file)
    if not state.st_nlink:
        return 0  # by another process, between the two calls
    path.unlink(missing_ok=True)
    return state.st_size
