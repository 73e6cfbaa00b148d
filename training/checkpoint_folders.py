# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders on disk: which of them are whole, which is the newest, which may go.

A folder ``step-<8 digits>`` counts as a checkpoint only if every file in it has the size and the
SHA-256 that its manifest.json gives.  Absence, damage and a read error are three things: without a
folder a run begins, a damaged one is named and an older one taken, and a file that cannot be read
stops everything, since nobody knows what is in it.
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

ASIDE = ".aside-"
_REPLACED = f"{ASIDE}old-"
MANIFEST = "manifest.json"
STATE = "state.json"
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or put into this net."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint of which a file is missing or has changed.

    ``fault`` says what is wrong; the message adds ``cure``, what to do.
    """

    def __init__(self, fault: str, cure: str = "take another checkpoint"):
        super().__init__(f"{fault}; {cure}")
        self.fault = fault


class UnreadableCheckpoint(CheckpointError):
    """A checkpoint that the system fails to read; it may be whole."""


@dataclass(frozen=True)
class Found:
    """What a folder of checkpoints holds.

    ``folder`` is the newest whole checkpoint, None if there is none, and ``state`` what its
    state.json holds; ``damaged`` says what is wrong with each damaged folder that is newer.
    """

    folder: Path | None
    state: dict[str, Any]
    damaged: tuple[str, ...]


def step_folders(parent: Path) -> list[Path]:
    """Return the folders of a parent that are named like checkpoints, by step.

    Raises
    ------
    UnreadableCheckpoint
        If the parent is there and cannot be listed.
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
    """Check a checkpoint folder against its manifest; return what its state.json holds.

    Raises
    ------
    DamagedCheckpoint
        If a file is missing or has changed.
    UnreadableCheckpoint
        If the system fails to read one.
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
                f"than {MANIFEST} gives"
            )
    state: dict[str, Any] = json.loads(_read(folder / STATE))
    _verified[folder] = _identity(folder)
    return state


def find_newest(parent: Path) -> Found:
    """Return the newest whole checkpoint of a parent, and what is damaged among newer ones.

    Raises
    ------
    UnreadableCheckpoint
        If the system fails to read one that is as new.
    """
    damaged: list[str] = []
    for folder in reversed(step_folders(parent)):
        try:
            return Found(folder, verify(folder), tuple(damaged))
        except DamagedCheckpoint as error:
            if folder.exists():  # else the run that writes here has just removed it
                damaged.append(error.fault)
    return Found(None, {}, tuple(damaged))


def remove_old(parent: Path, keep: int) -> None:
    """Remove the checkpoints that are older than the newest ``keep`` whole ones.

    A damaged one does not count, so that it never drives out one that is whole.
    """
    whole = 0
    for folder in reversed(step_folders(parent)):
        if whole >= keep:
            shutil.rmtree(folder, ignore_errors=True)
        elif _is_whole(folder):
            whole += 1


def remove_unfinished(parent: Path) -> None:
    """Remove what a killed run left half written.

    A whole checkpoint that was about to be replaced gets its name back.
    """
    for aside in parent.glob(f"{ASIDE}*"):
        folder = parent / aside.name.removeprefix(_REPLACED)
        if aside.name.startswith(_REPLACED) and not folder.exists():
            os.rename(aside, folder)
        else:
            shutil.rmtree(aside, ignore_errors=True)


def put_in_place(aside: Path, folder: Path) -> None:
    """Give a folder that was written aside its name, in the place of one that has it already."""
    replaced = folder.with_name(f"{_REPLACED}{folder.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():  # a run that was sent back to an earlier step passes here again
        os.rename(folder, replaced)
    os.rename(aside, folder)
    sync_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    _verified[folder] = _identity(folder)  # its files were flushed and read back


def write_json(path: Path, value: Any) -> None:
    """Write a file of JSON and flush it to the disk."""
    path.write_text(json.dumps(value, indent=1) + "\n")
    flush(path)


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def fingerprint(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, as a manifest has them.

    Raises
    ------
    DamagedCheckpoint
        If it is not there.
    UnreadableCheckpoint
        If the system fails to read it.
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


# Folders that this process has verified, with what their files looked like then: every prune would
# otherwise read all checkpoints again.
_verified: dict[Path, tuple[Any, ...]] = {}


def _is_whole(folder: Path) -> bool:
    try:
        if folder not in _verified or _verified[folder] != _identity(folder):
            verify(folder)
        return True
    except (CheckpointError, OSError):
        return False  # it stays, and does not count


def _identity(folder: Path) -> tuple[Any, ...]:
    """Return what changes when a file of a folder is written: without reading it."""
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
        "give the same command again once the file can be read"
    )
