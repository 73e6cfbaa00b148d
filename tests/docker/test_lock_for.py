# SPDX-License-Identifier: Apache-2.0
"""Entries of a lock file for another Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
LOCK = """\
always==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via -r some.in
old==3.11 ; python_full_version < '3.11' \\
    --hash=sha256:cc
    # via cffi
new==3.12 ; python_full_version >= '3.11' \\
    --hash=sha256:dd
elsewhere==2 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("lock_for", ROOT / "docker" / "lock_for.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_markers_are_evaluated_for_the_requested_python(tool):
    first = "always==1.0 --hash=sha256:aa --hash=sha256:bb\n"
    assert tool.lock_for("3.10", LOCK) == first + "old==3.11 --hash=sha256:cc\n"
    assert tool.lock_for("3.12", LOCK) == first + "new==3.12 --hash=sha256:dd\n"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_entry_of_the_locks_keeps_its_hashes(tool, lock):
    text = lock.read_text()
    found = list(tool.entries(text))
    assert all("==" in requirement and " " not in requirement for requirement, _, _ in found)
    assert sum(hashes.count("--hash=") for _, _, hashes in found) == text.count("--hash=") > 0
