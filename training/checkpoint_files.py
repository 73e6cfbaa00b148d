# SPDX-License-Identifier: Apache-2.0
"""Files of a checkpoint: their errors and fingerprints, and flushing them to the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import IO, Any

ABSENT = (errno.ENOENT, errno.ENOTDIR)
"""Error numbers of a file that does not exist."""
MAX_JSON_BYTES = 1 << 26
"""Largest size of a JSON file of a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read, or loaded into the net or the head."""


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is missing or has changed.

    The message is ``fault`` (what is wrong) followed by ``cure`` (what to do).
    """

    def __init__(self, fault: str, cure: str = "use another checkpoint"):
        super().__init__(f"{fault}; {cure}")
        self.fault = fault


class UnreadableCheckpoint(CheckpointError):
    """Reading a checkpoint failed; the checkpoint may be valid."""


class ShardError(CheckpointError):
    """A shard of the class centres is missing, damaged, or belongs to another checkpoint.

    After `DamagedCheckpoint` training uses an older checkpoint.  After this error the run ends
    instead, because the shard may exist elsewhere, for example on the disk of another host.
    """


def file_error(path: Path, error: OSError) -> CheckpointError:
    """Return the error for a file of a checkpoint that cannot be read."""
    if error.errno in ABSENT:
        return DamagedCheckpoint(f"{path}: is missing, got {error.strerror}")
    return unreadable(path, error)


def unreadable(path: Path, error: OSError) -> UnreadableCheckpoint:
    """Return the error for a file that exists, but cannot be read."""
    return UnreadableCheckpoint(
        f"{path}: cannot be read, got {error.strerror} (errno {error.errno}); nothing was changed, "
        "run the same command again when the file is readable"
    )


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file and flush it to disk."""
    path.write_text(json.dumps(value, indent=1) + "\n")
    flush(path)


def flush(path: Path) -> None:
    """Flush a file to disk with fsync."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def fingerprint(path: Path) -> dict[str, Any]:
    """Return the manifest entry of a file: its size in bytes and its SHA-256.

    Raises
    ------
    DamagedCheckpoint
        If the file is missing.
    UnreadableCheckpoint
        If reading the file fails.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise file_error(path, error) from None
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of at most MAX_JSON_BYTES.

    Raises
    ------
    DamagedCheckpoint
        If the file is missing, too large, or holds no JSON object.
    UnreadableCheckpoint
        If reading the file fails.
    """
    try:
        with open_regular(path) as file:
            # `read` allocates as many bytes as it is asked for, so ask for the size of the file and
            # not always for MAX_JSON_BYTES.  One more byte shows whether the file is too large.
            size = min(os.fstat(file.fileno()).st_size, MAX_JSON_BYTES)
            content = file.read(size + 1)
    except OSError as error:
        raise file_error(path, error) from None
    if len(content) > size:
        raise DamagedCheckpoint(f"{path}: is damaged, got more than {size} bytes")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpoint(
            f"{path}: is damaged, got {type(error).__name__} {str(error)[:120]}"
        ) from None
    if not isinstance(value, dict):
        raise DamagedCheckpoint(f"{path}: is damaged, got a JSON {type(value).__name__}")
    return value


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file; raise DamagedCheckpoint for a special file, such as a named pipe.

    Opening a named pipe would wait for a writer.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DamagedCheckpoint(f"{path}: is damaged, got a special file")
    return path.open("rb")
