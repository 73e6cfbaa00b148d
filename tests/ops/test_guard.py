# SPDX-License-Identifier: Apache-2.0
"""SIGBUS: zeros and a count in watched files, everywhere else what it was before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
import mmap, os, signal, sys, threading
import numpy as np
import ops

PAGE = mmap.PAGESIZE

def mapped(path, access=mmap.ACCESS_READ):
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0, access=access)

def address(data):
    return np.frombuffer(data, np.uint8).ctypes.data

def made(name, pages=16):
    with open(name, "wb") as file:
        file.write(b"x" * pages * PAGE)
    return name
"""


def run(program, folder):
    """Run a program in a process of its own, which may end by a signal."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("flags", ["mmap.MAP_SHARED", "mmap.MAP_PRIVATE"])
def test_a_page_that_is_gone_reads_as_zeros_and_is_counted(tmp_path, flags):
    program = """
guard = ops.guard()
one = mapped(made("a"))
with open("a", "rb") as file:
    two = mmap.mmap(file.fileno(), 0, FLAGS, mmap.PROT_READ)  # as DALI maps it once more
number = guard.watch(address(one))
assert guard.watch(address(two)) == number and guard.faults(number) == 0
os.truncate("a", 4 * PAGE + 5)
assert one[4 * PAGE : 5 * PAGE] == b"x" * 5 + bytes(PAGE - 5) and guard.faults(number) == 0
assert two[9 * PAGE :] == bytes(7 * PAGE) and guard.faults(number) == 1
assert two[8 * PAGE] == 0 and guard.faults(number) == 2  # before the first one
assert one[5 * PAGE] == 0 and guard.faults(number) == 3
assert one[: 4 * PAGE] == two[: 4 * PAGE] == b"x" * 4 * PAGE
assert guard.faults(number) == 3
print("well")
"""
    done = run(program.replace("FLAGS", flags), tmp_path)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


def test_many_threads_meet_it_at_once(tmp_path):
    program = """
guard = ops.guard()
for turn in range(20):
    data = np.frombuffer(mapped(made(f"{turn}", 64)), np.uint8)
    number = guard.watch(data.ctypes.data)
    os.truncate(f"{turn}", 0)
    sums, start = [], threading.Barrier(8)
    def read():
        start.wait()
        sums.append(int(data.sum()) + int(data[::-1].max()))
    threads = [threading.Thread(target=read) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sums == [0] * 8 and guard.faults(number) >= 1
print("well")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


def test_a_process_forked_later_counts_by_itself(tmp_path):
    program = """
guard, data = ops.guard(), mapped(made("a"))
number = guard.watch(address(data))
os.truncate("a", 0)
child = os.fork()
if child == 0:
    os._exit(10 + guard.faults(number) if data[0] == 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
assert guard.faults(number) == 0
print("well")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


ELSEWHERE = {
    "a file that nobody watches": 'os.truncate("b", 0)\nother[0]',
    "a signal that was sent": "os.kill(os.getpid(), signal.SIGBUS)",
}


@pytest.mark.parametrize("what", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("handled", [False, True])
def test_a_fault_elsewhere_ends_the_process_as_before(tmp_path, what, handled):
    program = f"""
if {handled}:
    import faulthandler
    faulthandler.enable()
guard, data, other = ops.guard(), mapped(made("a")), mapped(made("b"))
guard.watch(address(data))
{what}
print("still there")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")
    assert ("Fatal Python error: Bus error" in done.stderr) == handled, done.stderr


def test_what_cannot_be_watched(tmp_path):
    program = """
assert ops.guard().watch(np.zeros(1 << 20, np.uint8).ctypes.data) is None  # no file
assert ops.guard().watch(16) is None  # nothing is mapped there
print("well")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
