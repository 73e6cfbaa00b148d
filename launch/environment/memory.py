# SPDX-License-Identifier: Apache-2.0
"""Memory of this host that processes can still allocate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

CGROUP_FOLDERS = ("", "memory")
"""Folders in /sys/fs/cgroup that contain the control groups: of cgroup v2, and of the memory
controller of cgroup v1."""
CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""For cgroup v2 and v1: file with the limit, file with the usage, and key in memory.stat of the
page cache that Linux can release."""


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that processes of this control group can still allocate without swapping.

    Each control group that contains this process may have a limit, of which a part remains.  The
    result is the smallest of these remainders and of the memory that Linux estimates as available.
    The result is None if Linux states none of these values.

    Parameters
    ----------
    root
        Folder that contains ``proc`` and ``sys``.
    """
    found = [*_system_memory(root), *_remainders(root)]
    return max(0, min(found)) if found else None


def _system_memory(root: Path) -> Iterator[int]:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if match:
        yield int(match[1]) * 1024


def _remainders(root: Path) -> Iterator[int]:
    """Yield what remains of the limit of each control group, from the innermost to the root."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = 0 if number == "0" and not controllers else 1
        if version and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / CGROUP_FOLDERS[version]
        # Inside a container the path may be the path on the host.  Folders that the container does
        # not see yield nothing.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield from _remainder(base.joinpath(*parts[:depth]), version)


def _remainder(folder: Path, version: int) -> Iterator[int]:
    limit_name, usage_name, cache_name = CGROUP_FILES[version]
    limit, usage = _text(folder / limit_name).strip(), _text(folder / usage_name).strip()
    if limit.isdigit() and usage.isdigit():  # in cgroup v2, "max" means no limit
        # Linux counts the page cache as used, but releases it when memory is needed.
        cache = re.search(rf"^{cache_name} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
        yield int(limit) - int(usage) + (int(cache[1]) if cache else 0)


def _text(path: Path) -> str:
    """Return the text of a file, "" if the file does not exist or cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
