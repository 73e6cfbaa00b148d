# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders on disk: verify them, find the newest one, remove old ones.

A folder ``step-<8 digits>`` is a valid checkpoint only if every file has the size and the SHA-256
that the folder's manifest.json states.  If no checkpoint folder exists, training starts from step
0.  If a checkpoint folder is damaged, training reports the damage and uses an older checkpoint.  If
a checkpoint folder cannot be read, the run ends, because the checkpoint may be valid.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomic_write import sync_folder
from training.checkpoint_files import (
    ABSENT,
    CheckpointError,
    DamagedCheckpoint,
    UnreadableCheckpoint,
    file_error,
    fingerprint,
    flush,
    read_json,
    unreadable,
    write_json,
)
from training.shard_set import MANIFEST_KEY, open_shards

__all__ = [
    "CheckpointError",
    "DamagedCheckpoint",
    "UnreadableCheckpoint",
    "file_error",
    "fingerprint",
    "flush",
    "write_json",
]

ASIDE_PREFIX = ".aside-"
_REPLACED_PREFIX = f"{ASIDE_PREFIX}old-"
MANIFEST = "manifest.json"
STATE = "state.json"
FORMAT = 1
"""Version of the layout of a checkpoint folder; manifest.json states it under ``format``."""


@dataclass(frozen=True)
class NewestCheckpoint:
    """Newest valid checkpoint of a folder of checkpoints.

    ``folder`` is None if there is no valid checkpoint.  ``state`` is the content of state.json.
    ``damaged`` holds one message for each damaged checkpoint that is newer than ``folder``.
    """

    folder: Path | None
    state: dict[str, Any]
    damaged: tuple[str, ...]


def step_folder(parent: Path, step: int) -> Path:
    """Return the path of the checkpoint folder of a step in ``parent``."""
    return parent / f"step-{step:08d}"


def step_folders(parent: Path) -> list[Path]:
    """Return the checkpoint folders ``step-<8 digits>`` in ``parent``, sorted by step.

    The list is empty if ``parent`` does not exist.

    Raises
    ------
    UnreadableCheckpoint
        If ``parent`` exists and cannot be listed.
    """
    try:
        names = os.listdir(parent)
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise unreadable(parent, error) from None
    found = [name for name in names if re.fullmatch(r"step-\d{8,}", name)]
    return [parent / name for name in sorted(found, key=lambda name: (len(name), name))]


def verify(folder: Path) -> dict[str, Any]:
    """Verify a checkpoint folder against its manifest; return the content of state.json.

    Of the shards of the class centres, only the headers are verified, because the contents may be
    too large for one process.  `training.shard_set.ShardSet.verify` verifies the contents.

    Raises
    ------
    DamagedCheckpoint
        If a file of the checkpoint is missing, or has changed since the checkpoint was saved.
    ShardError
        If a shard of the class centres is missing, has a damaged header, or belongs to another
        checkpoint.
    UnreadableCheckpoint
        If reading a file fails.
    """
    manifest = _read_manifest(folder / MANIFEST)
    for name, expected in manifest["files"].items():
        if fingerprint(folder / name) != expected:
            raise DamagedCheckpoint(
                f"{folder / name}: has changed since it was saved, got a size or SHA-256 that "
                f"differs from {MANIFEST}"
            )
    if manifest.get(MANIFEST_KEY):
        open_shards(folder, manifest[MANIFEST_KEY])
    state = read_json(folder / STATE)
    _verified[folder] = _identity(folder)
    return state


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest, whose ``files`` map plain file names to their entries."""
    manifest = read_json(path)
    if "format" not in manifest or "files" not in manifest:
        raise DamagedCheckpoint(
            f"{path}: is damaged, got no 'format' or no 'files' among the keys "
            f"{str(list(manifest))[:80]}"
        )
    found = manifest["format"]
    if found != FORMAT or isinstance(found, bool):
        raise UnreadableCheckpoint(
            f"{path}: has another format than this version reads ({FORMAT}), got "
            f"{str(found)[:40]!r}; nothing was changed, use the version that saved the checkpoint"
        )
    files = manifest["files"]
    if not isinstance(files, dict) or STATE not in files:
        raise DamagedCheckpoint(f"{path}: is damaged, got no list of files that contains {STATE}")
    for name in files:
        if Path(name).name != name or name in ("", ".", "..") or "\0" in name:
            raise DamagedCheckpoint(
                f"{path}: is damaged, got {name[:80]!r}, which is no plain file name"
            )
    return manifest


def find_newest(parent: Path) -> NewestCheckpoint:
    """Find the newest valid checkpoint in ``parent``, and the damaged checkpoints that are newer.

    Raises
    ------
    UnreadableCheckpoint
        If reading a checkpoint fails before a valid checkpoint is found.
    """
    damaged: list[str] = []
    for folder in reversed(step_folders(parent)):
        try:
            return NewestCheckpoint(folder, verify(folder), tuple(damaged))
        except DamagedCheckpoint as error:
            if folder.exists():  # another process may just have removed the folder
                damaged.append(error.fault)
    return NewestCheckpoint(None, {}, tuple(damaged))


def remove_old(parent: Path, keep: int) -> None:
    """Keep the newest ``keep`` valid checkpoints in ``parent``; remove all older checkpoints.

    Damaged checkpoints do not count toward ``keep``, so they never displace valid checkpoints.
    """
    valid = 0
    for folder in reversed(step_folders(parent)):
        if valid >= keep:
            shutil.rmtree(folder, ignore_errors=True)
        elif _is_valid(folder):
            valid += 1


def remove_unfinished(parent: Path) -> None:
    """Remove the incomplete checkpoints that a killed process has written in ``parent``.

    If the process was killed while it replaced a complete checkpoint, that checkpoint is renamed
    back to its ``step-<8 digits>``.
    """
    for aside in parent.glob(f"{ASIDE_PREFIX}*"):
        folder = parent / aside.name.removeprefix(_REPLACED_PREFIX)
        if aside.name.startswith(_REPLACED_PREFIX) and not folder.exists():
            os.rename(aside, folder)
        else:
            shutil.rmtree(aside, ignore_errors=True)


def aside_folder(folder: Path) -> Path:
    """Return the temporary folder in which the checkpoint ``folder`` is written."""
    return folder.with_name(f"{ASIDE_PREFIX}{folder.name}")


def write_manifest(
    folder: Path, fingerprints: Mapping[str, Any], shards: Mapping[str, Any] | None
) -> None:
    """Write manifest.json, the last file of a checkpoint, and flush the folder to the disk.

    Parameters
    ----------
    fingerprints
        Result of `fingerprint` for each file except the shards.
    shards
        Section about the shards (`training.shard_set.manifest_section`), or None.
    """
    section = {MANIFEST_KEY: dict(shards)} if shards else {}
    write_json(folder / MANIFEST, {"format": FORMAT, "files": dict(fingerprints), **section})
    sync_folder(folder)


def put_in_place(aside: Path, folder: Path) -> None:
    """Rename the temporary folder ``aside`` to ``folder``; replace ``folder`` if it exists."""
    replaced = folder.with_name(f"{_REPLACED_PREFIX}{folder.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():  # a resumed run may save a step for the second time
        os.rename(folder, replaced)
    os.rename(aside, folder)
    sync_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    # The folder needs no verification: save_checkpoint has flushed and hashed all of its files.
    _verified[folder] = _identity(folder)


# Result of _identity for each checkpoint folder, at the time when this process verified the folder.
# Without this cache, every call of remove_old would read all files of all checkpoints.
_verified: dict[Path, tuple[Any, ...]] = {}


def _is_valid(folder: Path) -> bool:
    try:
        if folder not in _verified or _verified[folder] != _identity(folder):
            verify(folder)
        return True
    except (CheckpointError, OSError):
        return False


def _identity(folder: Path) -> tuple[Any, ...]:
    """Return name, inode, size and times of each file in a folder, to detect changed files."""
    with os.scandir(folder) as entries:
        states = [(entry.name, entry.stat()) for entry in entries]
    return tuple(sorted((n, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for n, s in states))
