# SPDX-License-Identifier: Apache-2.0
"""Search for the processes that a test started, by a variable in their environment."""

from __future__ import annotations

from pathlib import Path


def alive(name: str, mark: str) -> list[int]:
    """Return the ids of running processes with ``name=mark`` in their environment."""
    variable, pids = f"{name}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                marked = variable in (entry / "environ").read_bytes().split(b"\0")
                ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except OSError:  # it ended, or belongs to another user
                continue
            if marked and not ended:
                pids.append(int(entry.name))
    return pids
