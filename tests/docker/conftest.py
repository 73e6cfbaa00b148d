# SPDX-License-Identifier: Apache-2.0
"""The container that the tests of the entrypoint start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.container import ECHO, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine of the CPU image in which nothing is wrong."""
    made = Machine(tmp_path)
    for name in ("horovodrun", "make", "python"):
        made.program(name, ECHO)
    made.program("hostname", "echo node7")
    made.program("getent", "exit 0")
    made.shared_memory(64)
    return made
