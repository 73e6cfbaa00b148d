# SPDX-License-Identifier: Apache-2.0
"""Journal of an alignment: what became of each photograph, for the report and to resume the work.

The journal is a file of JSON lines in the output folder.  The first line states the settings.  Each
further line describes one photograph whose result is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from launch.config.printable_text import printable

FILE_NAME = ".alignment.jsonl"


class AlignmentJournal:
    """Journal in an output folder; a lock keeps other processes out until ``close``.

    Parameters
    ----------
    out
        Output folder, which exists.
    settings
        Settings of the alignment, a dictionary of JSON values.

    Raises
    ------
    ValueError
        If another process has locked the journal, or if the journal states other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any]):
        path = out / FILE_NAME
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock(out)
            self.rows: dict[str, dict[str, Any]] = {}
            lines = self._read(path)
            if not lines:
                self._append(settings)
            elif lines[0] != settings:
                raise ValueError(
                    f"{printable(out)}: holds faces that were aligned with other settings, got "
                    f"{_differences(lines[0], settings)}; choose another OUT, or use the earlier "
                    "settings"
                )
            self.rows = {row["path"]: row for row in lines[1:]}
        except BaseException:
            self.close()
            raise

    def _lock(self, out: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{printable(out)}: another process writes to this folder, got a locked journal; "
                "wait until that process ends"
            ) from None

    def _read(self, path: Path) -> list[dict[str, Any]]:
        """Return the lines before the first damaged one; truncate the file after them."""
        found: list[dict[str, Any]] = []
        size = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                value = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict) or (found and "path" not in value):
                break
            found.append(value)
            size += len(line)
        os.ftruncate(self._descriptor, size)
        return found

    def add(self, row: dict[str, Any]) -> None:
        """Append the result of one photograph; its aligned image must already be complete."""
        self._append(row)
        self.rows[row["path"]] = row

    def _append(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Close the journal; the lock ends when all forked processes have closed it too."""
        os.close(self._descriptor)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Describe each setting that differs as "<name> <old value> instead of <new value>"."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(
        f"{name} {printable(old.get(name))} instead of {printable(new.get(name))}" for name in names
    )
