# SPDX-License-Identifier: Apache-2.0
"""Lock a run folder, so that only one process trains in it.

The kernel releases the lock when the process exits, even after a kill.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

FILE_NAME = "run.lock"
_OWNED_ERRNOS = (errno.EACCES, errno.EAGAIN)
_UNSUPPORTED_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class RunLocked(ValueError):
    """Another process trains in the run folder."""


class RunLock:
    """Lock of a run folder; the process owns the lock until it exits or calls ``release``.

    The lock is a POSIX lock (fcntl), not flock: forked worker processes do not inherit POSIX locks,
    and NFS enforces POSIX locks across hosts.

    Parameters
    ----------
    folder
        Run folder to lock.

    Raises
    ------
    RunLocked
        If another process owns the lock; the message names the owner's host and process.
    OSError
        If the lock file cannot be created.
    """

    def __init__(self, folder: Path):
        self.notice = ""
        """Warning for the log if the file system does not support locks, else empty."""
        path = folder / FILE_NAME
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _read_owner(self._file)
            if error.errno in _OWNED_ERRNOS:
                os.close(self._file)
                raise RunLocked(
                    f"{folder}: another process trains in this run folder, got "
                    f"{_describe(owner)}; wait for that process, stop that process, or start a new "
                    "run with run.resume=false"
                ) from None
            if error.errno not in _UNSUPPORTED_ERRNOS:
                os.close(self._file)
                raise
            self.notice = (
                f"{folder}: the file system does not support locks, got {error.strerror}; do not "
                "start this run twice at the same time"
            )
        owner = {"host": socket.gethostname(), "process": os.getpid(), "since": int(time.time())}
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, (json.dumps(owner) + "\n").encode(), 0)

    def release(self) -> None:
        """Release the lock; after this call the process must not write into the folder."""
        os.close(self._file)


def _read_owner(file: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        return owner if isinstance(owner, dict) else {}
    except (ValueError, RecursionError):
        return {}  # the owner has not written its host and process id yet


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "a process that has just started"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.get("since", 0)))
    return f"process {owner.get('process')} on host {owner.get('host')}, since {since}"
