# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders on disk: verify them, find the newest, remove old ones.

A folder ``step-<8 digits>`` is a valid checkpoint only if every file has the size and the SHA-256
of its manifest.json.  A missing folder, a damaged one and a read error have different effects.
Without a folder a new run starts.  A damaged folder is reported and an older one is used.  A read
error ends the run, because the checkpoint may be valid.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomic_write import sync_folder

ASIDE_PREFIX = ".aside-"
_REPLACED_PREFIX = f"{ASIDE_PREFIX}old-"
MANIFEST = "manifest.json"
STATE = "state.json"
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read or loaded into this net."""


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is missing or has changed.

    The message is ``fault``, what is wrong, and ``cure``, what to do.
    """

    def __init__(self, fault: str, cure: str = "use another checkpoint"):
        super().__init__(f"{fault}; {cure}")
        self.fault = fault


class UnreadableCheckpoint(CheckpointError):
    """Reading a checkpoint failed; the checkpoint may be valid."""


@dataclass(frozen=True)
class NewestCheckpoint:
    """Newest valid checkpoint of a folder of checkpoints.

    ``folder`` is None if there is no valid checkpoint.  ``state`` is the content of state.json.
    ``damaged`` holds one message for each damaged checkpoint that is newer.
    """

    folder: Path | None
    state: dict[str, Any]
    damaged: tuple[str, ...]


def step_folders(parent: Path) -> list[Path]:
    """Return the folders ``step-<8 digits>`` of a parent, sorted by step.

    Raises
    ------
    UnreadableCheckpoint
        If the parent exists and cannot be listed.
    """
    try:
        names = os.listdir(parent)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise _unreadable(parent, error) from None
    found = [name for name in names if re.fullmatch(r"step-\d{8,}", name)]
    return [parent / name for name in sorted(found, key=lambda name: (len(name), name))]


def verify(folder: Path) -> dict[str, Any]:
    """Verify a checkpoint folder against its manifest; return the content of state.json.

    Raises
    ------
    DamagedCheckpoint
        If a file is missing or has changed.
    UnreadableCheckpoint
        If reading a file fails.
    """
    try:
        manifest = json.loads(_read(folder / MANIFEST))
        files = dict(manifest["files"])
        if STATE not in files:
            raise KeyError(STATE)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise DamagedCheckpoint(
            f"{folder / MANIFEST}: is damaged, got {type(error).__name__} {error}"
        ) from None
    for name, expected in files.items():
        if fingerprint(folder / name) != expected:
            raise DamagedCheckpoint(
                f"{folder / name}: has changed since it was saved, got another size or SHA-256 "
                f"than in {MANIFEST}"
            )
    state: dict[str, Any] = json.loads(_read(folder / STATE))
    _verified[folder] = _identity(folder)
    return state


def find_newest(parent: Path) -> NewestCheckpoint:
    """Return the newest valid checkpoint of a parent, with messages for newer, damaged ones.

    Raises
    ------
    UnreadableCheckpoint
        If reading a checkpoint fails before a valid one is found.
    """
    damaged: list[str] = []
    for folder in reversed(step_folders(parent)):
        try:
            return NewestCheckpoint(folder, verify(folder), tuple(damaged))
        except DamagedCheckpoint as error:
            if folder.exists():  # a running process may have removed it
                damaged.append(error.fault)
    return NewestCheckpoint(None, {}, tuple(damaged))


def remove_old(parent: Path, keep: int) -> None:
    """Remove the checkpoints that are older than the newest ``keep`` valid ones.

    Damaged checkpoints do not count, so they never displace valid ones.
    """
    valid = 0
    for folder in reversed(step_folders(parent)):
        if valid >= keep:
            shutil.rmtree(folder, ignore_errors=True)
        elif _is_valid(folder):
            valid += 1


def remove_unfinished(parent: Path) -> None:
    """Remove the incomplete checkpoints of a killed run.

    A checkpoint that the run was about to replace gets its name back.
    """
    for aside in parent.glob(f"{ASIDE_PREFIX}*"):
        folder = parent / aside.name.removeprefix(_REPLACED_PREFIX)
        if aside.name.startswith(_REPLACED_PREFIX) and not folder.exists():
            os.rename(aside, folder)
        else:
            shutil.rmtree(aside, ignore_errors=True)


def put_in_place(aside: Path, folder: Path) -> None:
    """Rename a complete folder to its final name; replace an existing folder of that name."""
    replaced = folder.with_name(f"{_REPLACED_PREFIX}{folder.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():  # a resumed run saves the same step again
        os.rename(folder, replaced)
    os.rename(aside, folder)
    sync_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    _verified[folder] = _identity(folder)  # save_checkpoint has flushed and read its files


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
        raise _fault(path, error) from None
    return {"bytes": size, "sha256": digest.hexdigest()}


# Folders that this process has verified, with the identities of their files at that time.  Without
# this cache, every call of remove_old would read all checkpoints.
_verified: dict[Path, tuple[Any, ...]] = {}


def _is_valid(folder: Path) -> bool:
    try:
        if folder not in _verified or _verified[folder] != _identity(folder):
            verify(folder)
        return True
    except (CheckpointError, OSError):
        return False  # remove_old does not count it


def _identity(folder: Path) -> tuple[Any, ...]:
    """Return inode, size and times of all files; they change when a file is written."""
    with os.scandir(folder) as entries:
        states = [(entry.name, entry.stat()) for entry in entries]
    return tuple(sorted((n, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for n, s in states))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _fault(path, error) from None


def _fault(path: Path, error: OSError) -> CheckpointError:
    if error.errno in _ABSENT:
        return DamagedCheckpoint(f"{path}: is missing, got {error.strerror}")
    return _unreadable(path, error)


def _unreadable(path: Path, error: OSError) -> UnreadableCheckpoint:
    return UnreadableCheckpoint(
        f"{path}: cannot be read, got {error.strerror} (errno {error.errno}); nothing was changed, "
        "run the same command again when the file is readable"
    )
