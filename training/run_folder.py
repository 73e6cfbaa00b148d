# SPDX-License-Identifier: Apache-2.0
"""Which folder a run lives in, and whether it goes on or begins.

``<dir>/<name>-001``, ``-002`` and so on.  The newest one goes on if it has not finished; a finished
one stays as it is and the next number begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from training.checkpoint import Checkpoint, latest_checkpoint, remove_unfinished


class RunFolderError(ValueError):
    """A run folder that cannot be used."""


def choose_run(
    parent: Path,
    name: str,
    resume: bool,
    config: Mapping[str, Any],
    differences: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
) -> tuple[Path, Checkpoint | None]:
    """Return the folder of this run, made if new, and the checkpoint that it goes on from.

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

    Raises
    ------
    RunFolderError
        If the folder cannot be written, or the unfinished run had another configuration.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        numbers = [
            int(match[1])
            for path in parent.iterdir()
            if (match := re.fullmatch(re.escape(name) + r"-(\d{3,})", path.name))
        ]
        number = max(numbers, default=0)
        newest = parent / f"{name}-{number:03d}"
        if number and resume and status(newest) != "finished":
            remove_unfinished(newest / "checkpoints")
            checkpoint = latest_checkpoint(newest / "checkpoints")
            kept = _read_config(newest / "config.yaml")
            if kept is not None and checkpoint is not None:
                changed = differences(kept, config)
                if changed:
                    raise RunFolderError(
                        f"{newest}: the unfinished run has another configuration "
                        f"({'; '.join(changed)}); set it back, or begin a new run with "
                        "run.resume=false"
                    )
                return newest, checkpoint
            if checkpoint is None:
                return newest, None  # it ended before its first checkpoint: begin again in place
        folder = parent / f"{name}-{number + 1:03d}"
        folder.mkdir()
        return folder, None
    except OSError as error:
        raise RunFolderError(
            f"{parent}: the run folder cannot be written, got {error.strerror}; choose another "
            "one with run.dir=FOLDER"
        ) from None


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
        write_whole(folder / name, text)
    except OSError as error:
        raise RunFolderError(
            f"{folder}: the run folder cannot be written, got {error.strerror}; choose another "
            "one with run.dir=FOLDER"
        ) from None


def status(folder: Path) -> str:
    """Return the status in a run's summary.json, "unfinished" if there is none."""
    try:
        return str(json.loads((folder / "summary.json").read_text())["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unfinished"


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all."""
    import os

    aside = path.with_name(f".aside-{path.name}")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _read_config(path: Path) -> dict[str, Any] | None:
    try:
        kept = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return None
    if not isinstance(kept, dict):
        return None
    kept.pop("notes", None)
    return kept
