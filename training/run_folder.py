# SPDX-License-Identifier: Apache-2.0
"""Which folder a run lives in, and whether it goes on or begins.

``<dir>/<name>-001``, ``-002`` and so on.  The newest one goes on if it has not finished; a finished
one stays as it is and the next number begins.
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
from training.checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    remove_unfinished,
)
from training.run_lock import RunLock

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_NEW_RUN = "begin a new run with run.resume=false"


class RunFolderError(ValueError):
    """A run folder that cannot be used."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process holds."""

    folder: Path
    checkpoint: Checkpoint | None
    """What the run resumes from; None at its beginning."""
    lock: RunLock
    notices: tuple[str, ...] = ()
    """Sentences for the log."""


def choose_run(
    parent: Path,
    name: str,
    *,
    resume: bool,
    config: Mapping[str, Any],
    differences: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
    data: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Return the folder of this run, made if new and locked, and what it resumes from.

    Parameters
    ----------
    parent, name
        ``run.dir`` and ``run.name``.
    resume
        False begins a new folder in any case.
    config
        The resolved configuration.
    differences
        Returns what differs between the kept configuration and this one.
    data
        Fingerprint of the training data, as checkpoints keep it under ``data``.

    Raises
    ------
    RunFolderError
        If the folder cannot be read or written, if the unfinished run had another configuration or
        other data, or if none of its checkpoints is whole.
    RunLocked
        If another process trains in it.
    """
    while True:
        number = _newest_number(parent, name)
        newest = parent / f"{name}-{number:03d}"
        if number and resume and status(newest) != "finished":
            lock = _lock(newest)
            if status(newest) != "finished":  # the process that held the lock before may have ended
                return _resume(newest, lock, config, differences, data)
            lock.release()
            continue
        folder = parent / f"{name}-{number + 1:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another launch was faster: look again at what is there now
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
        return RunFolder(folder, None, lock, _notices(lock))  # it ended before its first checkpoint
    changed = differences(_read_config(folder / "config.yaml"), config)
    if changed:
        raise RunFolderError(
            f"{folder}: the unfinished run has another configuration ({'; '.join(changed)}); set "
            f"it back, or {_NEW_RUN}"
        )
    changed = _data_differences(checkpoint.state.get("data"), data)
    if changed:
        raise RunFolderError(
            f"{folder}: the unfinished run was trained on other data ({'; '.join(changed)}); put "
            f"the data back, or {_NEW_RUN} (train.pretrained={folder} keeps the weights)"
        )
    passed_over = tuple(f"passed over a damaged checkpoint: {x}" for x in checkpoint.damaged)
    return RunFolder(folder, checkpoint, lock, _notices(lock) + passed_over)


def _data_differences(kept: Mapping[str, Any] | None, data: Mapping[str, Any] | None) -> list[str]:
    """Return what differs between two fingerprints; nothing where one of them is missing."""
    if kept is None or data is None:
        return []
    found = []
    for key in sorted({*kept, *data}):
        old, new = kept.get(key), data.get(key)
        if old == new:
            continue
        if key.startswith("crc_"):
            found.append(f"other {key.removeprefix('crc_')}")
        else:
            found.append(f"{key}: {old} -> {new}")
    # Where the counts have changed, other checksums say nothing more.
    return [text for text in found if ":" in text] or found


def _newest_number(parent: Path, name: str) -> int:
    """Return the highest number of the runs of a name, 0 if there is none; make the parent."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        found = os.listdir(parent)
    except OSError as error:
        raise _unwritable(parent, error) from None
    pattern = re.compile(re.escape(name) + r"-(\d{3,})")
    return max((int(m[1]) for entry in found if (m := pattern.fullmatch(entry))), default=0)


def _lock(folder: Path) -> RunLock:
    try:
        return RunLock(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _notices(lock: RunLock) -> tuple[str, ...]:
    return (lock.notice,) if lock.notice else ()


def _unwritable(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"{folder}: the run folder cannot be written, got {error.strerror}; choose another one "
        "with run.dir=FOLDER"
    )


def write_config(folder: Path, config: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Write config.yaml: the resolved configuration, then versions and commit."""
    _write(folder, "config.yaml", yaml.safe_dump({**config, "notes": dict(notes)}, sort_keys=False))


def write_classes(folder: Path, files: Sequence[Path], origins: Any) -> None:
    """Write classes.json: which person each class is, where labels were stacked or renumbered.

    Parameters
    ----------
    files
        The .rec files.
    origins
        int64 (C, 2): place in ``files`` (-1: the sets share their labels) and label there.
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
    """Return the status in a run's summary.json, "unfinished" if there is none.

    Raises
    ------
    RunFolderError
        If the file is damaged or cannot be read.
    """
    path = folder / "summary.json"
    text = _read(path)
    if text is None:
        return "unfinished"
    try:
        return str(json.loads(text)["status"])
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "remove it to resume the run") from None


def _read_config(path: Path) -> dict[str, Any]:
    """Return the configuration that a run has kept, without its notes."""
    text = _read(path)
    if text is None:
        raise RunFolderError(
            f"{path}: is missing beside the run's checkpoints; restore it, or {_NEW_RUN}"
        )
    try:
        kept = yaml.safe_load(text)
    except yaml.YAMLError:
        kept = None
    if not isinstance(kept, dict) or not all(
        isinstance(section, dict) for section in kept.values()
    ):
        raise _damaged(path, "restore it")
    kept.pop("notes", None)
    return kept


def _read(path: Path) -> str | None:
    """Return a text file of a run folder, None if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise RunFolderError(
            f"{path}: cannot be read, got {error.strerror} (errno {error.errno}); nothing was "
            "changed, give the same command again once the file can be read"
        ) from None


def _damaged(path: Path, cure: str) -> RunFolderError:
    text = _read(path) or ""
    return RunFolderError(f"{path}: is damaged, got {text[:60]!r}; {cure}, or {_NEW_RUN}")
