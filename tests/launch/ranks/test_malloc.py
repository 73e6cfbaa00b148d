# SPDX-License-Identifier: Apache-2.0
"""Memory that is freed is used again, without a page to be fetched anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PIECE = 4704  # pages of one array
PROGRAM = """
import ctypes, resource
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: a fault would fetch 512 pages at once
from launch.ranks.malloc import keep_memory
print(keep_memory())
import mxnet as mx

def faults(arrays):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = []
    for _ in range(arrays):
        held = [*held, mx.nd.ones((128, 3, 112, 112))][-2:]
        held[-1].wait_to_read()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(8)
print(faults(120))
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
    # Not none: glibc cuts aligned pieces out of larger ones, and a piece whose cuttings are in use
    # is too small for the next array.  There is an end to it: some seven for each size of cutting.
    assert kept == "True" and faults < 40 * PIECE


def test_the_users_own_settings_win():
    kept, faults = run(MALLOC_MMAP_THRESHOLD_="1000000")
    assert kept == "False" and faults > 110 * PIECE  # each array anew
