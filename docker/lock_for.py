# SPDX-License-Identifier: Apache-2.0
"""Print the entries of a lock file for another Python version, without environment markers.

Usage: ``lock_for.py 3.10 requirements/cpu.txt``.  pip can install packages for another Python
version, but always evaluates markers (``; python_version < "3.11"``) for the Python that runs pip.
This script evaluates the markers for the other version, and omits the entries whose marker is
false.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.markers import Marker


def entries(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield a triple (requirement, marker, hash options) for each entry of a lock file.

    The marker is empty if the entry has none.  Comments are dropped.
    """
    joined = re.sub(r"\s*#.*", "", text).replace("\\\n", " ")
    for line in joined.splitlines():
        if line.strip():
            named, *hashes = line.split(" --hash=")
            requirement, _, marker = named.partition(";")
            yield (
                requirement.strip(),
                marker.strip(),
                "".join(f" --hash={h.strip()}" for h in hashes),
            )


def lock_for(version: str, text: str) -> str:
    """Return the lock entries that apply to a Python version such as "3.10", without markers."""
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    return "".join(
        f"{requirement}{hashes}\n"
        for requirement, marker, hashes in entries(text)
        if not marker or Marker(marker).evaluate(environment)
    )


if __name__ == "__main__":
    sys.stdout.write(lock_for(sys.argv[1], Path(sys.argv[2]).read_text()))
