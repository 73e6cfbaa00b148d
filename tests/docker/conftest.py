# SPDX-License-Identifier: Apache-2.0
"""Fixture with the container for tests of the entrypoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.container import ECHO, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a container of the CPU image that passes all checks."""
    made = Machine(tmp_path)
    for name in ("horovodrun", "make", "python"):
        made.program(name, ECHO)
    made.program("hostname", "echo node7")
    made.program("getent", "exit 0")
    made.shared_memory(64)
    return made
