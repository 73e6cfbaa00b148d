# SPDX-License-Identifier: Apache-2.0
"""Files of a checkpoint: their errors and fingerprints, and flushing them to the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

ABSENT = (errno.ENOENT, errno.ENOTDIR)
"""Error numbers of a file that does not exist."""


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

    In contrast to `DamagedCheckpoint`, training does not use an older checkpoint instead: the shard
    may exist elsewhere, for example on the disk of another host.
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
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise file_error(path, error) from None
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; raise CheckpointError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise file_error(path, error) from None
