# SPDX-License-Identifier: Apache-2.0
"""Processes that a test has started, found by a mark in their environment."""

from __future__ import annotations

from pathlib import Path


def alive(name: str, mark: str) -> list[int]:
    """Return the processes that have ``name=mark`` in their environment and have not ended."""
    entry_of_mark, found = f"{name}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                marked = entry_of_mark in (entry / "environ").read_bytes().split(b"\0")
                ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except OSError:  # it has ended, or is not ours
                continue
            if marked and not ended:
                found.append(int(entry.name))
    return found
