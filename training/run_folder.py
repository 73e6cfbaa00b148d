# SPDX-License-Identifier: Apache-2.0
"""Choose the folder of a run, and decide whether to resume a run or start a new one.

Run folders are ``<dir>/<name>-001``, ``<dir>/<name>-002`` and so on.  If the newest run is
unfinished, it is resumed.  If the newest run is finished, a new run starts in the next folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from atomic_write import atomic_write
from plain_yaml import PlainYamlError, parse_yaml
from training.checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    remove_unfinished,
)
from training.run_lock import RunLock

_MAX_TEXT_BYTES = 1 << 24
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_NEW_RUN = "start a new run with run.resume=false"


class RunFolderError(ValueError):
    """A run folder cannot be read or written, or its run does not fit this configuration."""


@dataclass(frozen=True)
class RunFolder:
    """Run folder that this process has locked."""

    folder: Path
    checkpoint: Checkpoint | None
    """Checkpoint that the run resumes from; None for a new run."""
    lock: RunLock
    notices: tuple[str, ...] = ()
    """Lines for the log, such as warnings about locks and damaged checkpoints."""


def choose_run(
    parent: Path,
    name: str,
    *,
    resume: bool,
    config: Mapping[str, Any],
    differences: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
    data: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Create or find the folder of this run, lock it, and find the checkpoint to resume from.

    Parameters
    ----------
    parent, name
        ``run.dir`` and ``run.name``.
    resume
        ``run.resume``; False always starts a new run.
    config
        Resolved configuration of this process.
    differences
        Function that gets the saved configuration and ``config``, and returns one text per
        difference.
    data
        Sizes and checksums of the training data, which checkpoints store under ``data``; None: do
        not compare the data.

    Raises
    ------
    RunFolderError
        If the folder cannot be read or written, if the unfinished run has a different configuration
        or different data, or if all checkpoints of the unfinished run are damaged.
    RunLocked
        If another process trains in the folder.
    """
    while True:
        number = _newest_number(parent, name)
        newest = parent / f"{name}-{number:03d}"
        if number and resume and status(newest) != "finished":
            lock = _lock(newest)
            # Check again: the run may have finished between the first check and the lock.
            if status(newest) != "finished":
                return _resume(newest, lock, config, differences, data)
            lock.release()
            continue
        folder = parent / f"{name}-{number + 1:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another process has just created this folder
        except OSError as error:
            raise _unwritable(parent, error) from None
        lock = _lock(folder)
        return RunFolder(folder, None, lock, _notices(lock))


def _resume(
    folder: Path,
    lock: RunLock,
    config: Mapping[str, Any],
    differences: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
    data: Mapping[str, Any] | None,
) -> RunFolder:
    remove_unfinished(folder / "checkpoints")
    try:
        checkpoint = latest_checkpoint(folder / "checkpoints")
    except CheckpointError as error:
        raise RunFolderError(f"{error}, or {_NEW_RUN}") from None
    if checkpoint is None:
        # The unfinished run has no checkpoint, so training starts from step 0 in its folder.
        return RunFolder(folder, None, lock, _notices(lock))
    changed = differences(_read_config(folder / "config.yaml"), config)
    if changed:
        raise RunFolderError(
            f"{folder}: the configuration must be that of the unfinished run, got the changes "
            f"({'; '.join(changed)}); restore the values of the run, or {_NEW_RUN}"
        )
    changed = _data_differences(checkpoint.state.get("data"), data)
    if changed:
        raise RunFolderError(
            f"{folder}: the unfinished run was trained on different data, got the changes "
            f"({'; '.join(changed)}); restore the data, or {_NEW_RUN} "
            f"(train.pretrained={folder} keeps the weights)"
        )
    skipped = tuple(f"skipped a damaged checkpoint: {x}" for x in checkpoint.damaged)
    return RunFolder(folder, checkpoint, lock, _notices(lock) + skipped)


def _data_differences(saved: Mapping[str, Any] | None, data: Mapping[str, Any] | None) -> list[str]:
    """Return one text for each difference between two fingerprints of training data.

    The list is empty if a fingerprint is missing.
    """
    if saved is None or data is None:
        return []
    found = []
    for key in sorted({*saved, *data}):
        old, new = saved.get(key), data.get(key)
        if old == new:
            continue
        if key.startswith("crc_"):
            found.append(f"different {key.removeprefix('crc_')}")
        else:
            found.append(f"{key}: {old} -> {new}")
    # If counts differ, checksums differ too: report only the counts.
    return [text for text in found if ":" in text] or found


def unfinished_config(parent: Path, name: str) -> dict[str, Any] | None:
    """Return the saved configuration of the newest run, if that run has a checkpoint to resume.

    Return None if there is no run, or if the newest run is finished or has no checkpoint.  Nothing
    is locked or changed.

    Raises
    ------
    RunFolderError
        If a file of the run is missing, damaged or unreadable.
    """
    numbers = _run_numbers(name, os.listdir(parent)) if parent.is_dir() else []
    if not numbers:
        return None
    newest = parent / f"{name}-{max(numbers):03d}"
    if status(newest) == "finished" or not any((newest / "checkpoints").glob("step-*")):
        return None
    return _read_config(newest / "config.yaml")


def _run_numbers(name: str, entries: Sequence[str]) -> list[int]:
    """Return the numbers N of the entries ``<name>-N`` among the names of files in a folder."""
    pattern = re.compile(re.escape(name) + r"-(\d{3,})")
    return [int(m[1]) for entry in entries if (m := pattern.fullmatch(entry))]


def _newest_number(parent: Path, name: str) -> int:
    """Return the highest number of the folders ``<name>-<number>`` in ``parent``, or 0.

    Create ``parent`` if it does not exist.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        found = os.listdir(parent)
    except OSError as error:
        raise _unwritable(parent, error) from None
    return max(_run_numbers(name, found), default=0)


def _lock(folder: Path) -> RunLock:
    try:
        return RunLock(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _notices(lock: RunLock) -> tuple[str, ...]:
    return (lock.notice,) if lock.notice else ()


def _unwritable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"{folder}: the run folder cannot be written, got {error.strerror}; choose another folder "
        "with run.dir=FOLDER"
    )


def write_config(folder: Path, config: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write config.yaml: the resolved configuration, then ``notes`` (versions and commit)."""
    _write(folder, "config.yaml", yaml.safe_dump({**config, "notes": dict(notes)}, sort_keys=False))


def write_classes(folder: Path, files: Sequence[Path], origins: Any) -> None:
    """Write classes.json: the source file and label of each class.

    Parameters
    ----------
    files
        The .rec files of the training data.
    origins
        Origin of each of the C classes, int64 (C, 2): the index in ``files`` of the file with its
        images, and its label in that file.  If a label means the same person in every file, the
        index is -1 and the label holds for all files.
    """
    record, label = origins.T.tolist()
    names = [str(file) for file in files]
    _write(folder, "classes.json", json.dumps({"records": names, "record": record, "label": label}))


def _write(folder: Path, name: str, text: str) -> None:
    try:
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    except OSError as error:
        raise _unwritable(folder, error) from None


def status(folder: Path) -> str:
    """Return the status of a run from its summary.json, "unfinished" if the file is missing.

    Raises
    ------
    RunFolderError
        If summary.json is damaged or cannot be read.
    """
    path = folder / "summary.json"
    text = _read(path)
    if text is None:
        return "unfinished"
    try:
        return str(json.loads(text)["status"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(path, "remove the file to resume the run") from None


def _read_config(path: Path) -> dict[str, Any]:
    """Return the saved configuration of a run, without its notes."""
    text = _read(path)
    if text is None:
        raise RunFolderError(
            f"{path}: the file is missing, got a run with checkpoints; restore the file, or "
            f"{_NEW_RUN}"
        )
    try:
        saved = parse_yaml(text)
    except PlainYamlError:
        saved = None
    if not isinstance(saved, dict) or not all(
        isinstance(name, str) and isinstance(section, dict) for name, section in saved.items()
    ):
        raise _damaged(path, "restore the file")
    saved.pop("notes", None)
    return saved


def _read(path: Path) -> str | None:
    """Return the text of a file in a run folder, None if the file is missing."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TEXT_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise RunFolderError(
            f"{path}: cannot be read, got {error.strerror} (errno {error.errno}); nothing was "
            "changed, run the same command again when the file is readable"
        ) from None


def _damaged(path: Path, cure: str) -> RunFolderError:
    text = _read(path) or ""
    return RunFolderError(f"{path}: is damaged, got {text[:60]!r}; {cure}, or {_NEW_RUN}")
