# SPDX-License-Identifier: Apache-2.0
"""Open regular files only: a pipe would wait for a writer, and a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; return at once for every kind of file.

    Raises
    ------
    OSError
        If the file cannot be opened, or is a folder, pipe, socket or device.  ``strerror`` says
        which.
    """
    path = Path(path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    if not stat.S_ISREG(path.stat().st_mode):  # opening a device may already have an effect
        raise _other_kind(path)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _other_kind(path)
    return os.fdopen(descriptor, "rb")


def _other_kind(path: Path) -> OSError:
    if path.is_dir():
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return OSError(errno.EINVAL, "A special file (pipe, socket or device)", str(path))
