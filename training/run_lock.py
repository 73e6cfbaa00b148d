# SPDX-License-Identifier: Apache-2.0
"""One run folder, one run: a lock that the kernel holds and that ends with the process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

NAME = "run.lock"
_HELD = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class RunLocked(ValueError):
    """Another process trains in this run folder."""


class RunLock:
    """A held lock; the process holds it until it ends or calls ``release``.

    A lock of POSIX (fcntl), not of flock: worker processes that are forked do not inherit it, and
    NFS passes it on to other hosts.

    Parameters
    ----------
    folder
        The run folder.

    Raises
    ------
    RunLocked
        If another process holds it; the sentence names its host and process.
    OSError
        If the file of the lock cannot be made.
    """

    def __init__(self, folder: Path):
        self.notice = ""
        """What the log should say: that the file system has no locks, else nothing."""
        path = folder / NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_holder(self._file)
            if error.errno in _HELD:
                os.close(self._file)
                raise RunLocked(
                    f"{folder}: another process trains in this run folder, got "
                    f"{_describe(holder)}; wait for it, stop it, or begin a new run with "
                    "run.resume=false"
                ) from None
            if error.errno not in _NO_LOCKS:
                os.close(self._file)
                raise
            self.notice = (
                f"{folder}: the file system has no locks ({error.strerror}); start this run only "
                "once at a time"
            )
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": int(time.time())}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, (json.dumps(holder) + "\n").encode(), 0)

    def release(self) -> None:
        """Give the lock up; the process must not write into the folder any more."""
        os.close(self._file)


def _read_holder(file: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return holder if isinstance(holder, dict) else {}
    except ValueError:
        return {}  # it has the lock and has not written its name yet


def _describe(holder: dict[str, Any]) -> str:
    if not holder:
        return "one that has just started"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("since", 0)))
    return f"process {holder.get('process')} on host {holder.get('host')}, since {since}"
