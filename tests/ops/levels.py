# SPDX-License-Identifier: Apache-2.0
"""Checks in a new process that uses a given instruction level."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = {"avx512": "avx512vl", "avx2": "avx2", "baseline": "sse2"}


def check_at(level: str, script: str) -> None:
    """Run a script that prints the sentence of ``ops.use`` and nothing else.

    Skip the test if the CPU does not support the level.
    """
    with open("/proc/cpuinfo") as lines:
        flags = next(line for line in lines if line.startswith("flags")).split()
    if FLAGS[level] not in flags:
        pytest.skip(f"this CPU does not support {level}")
    environment = {**os.environ, "FACE_OPS_LEVEL": level, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"operators native ({level})\n"
