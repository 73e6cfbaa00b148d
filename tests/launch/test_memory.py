# SPDX-License-Identifier: Apache-2.0
"""Memory that is freed is used again, without a page to be fetched anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import resource
from launch.memory import keep_memory
print(keep_memory())
import mxnet as mx

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = []
    for _ in range(8):
        held = [*held, mx.nd.ones((128, 3, 112, 112))][-2:]
        held[-1].wait_to_read()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def run(**variables):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kept, faults = done.stdout.split()
    return kept, int(faults)


def test_arrays_take_the_memory_of_freed_ones():
    kept, faults = run()
    assert kept == "True" and faults < 1000  # one array has 4,704 pages


def test_the_users_own_settings_win():
    kept, _ = run(MALLOC_ARENA_MAX="2")
    assert kept == "False"
