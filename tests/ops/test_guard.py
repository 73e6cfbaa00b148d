# SPDX-License-Identifier: Apache-2.0
"""SIGBUS guard: zeros and a fault count in watched files, the previous handler elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
import mmap, os, signal, sys, threading
import numpy as np
import ops

PAGE = mmap.PAGESIZE

def mapped(path, access=mmap.ACCESS_READ):
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 0, access=access)

def address(data):
    return np.frombuffer(data, np.uint8).ctypes.data

def new_file(name, pages=16):
    with open(name, "wb") as file:
        file.write(b"x" * pages * PAGE)
    return name
"""


def run(program, folder):
    """Run a program in a new process, which a signal may end."""
    return subprocess.run(
        [sys.executable, "-c", SETUP + program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("flags", ["mmap.MAP_SHARED", "mmap.MAP_PRIVATE"])
def test_a_truncated_page_reads_as_zeros_and_is_counted(tmp_path, flags):
    program = """
guard = ops.guard()
one = mapped(new_file("a"))
with open("a", "rb") as file:
    two = mmap.mmap(file.fileno(), 0, FLAGS, mmap.PROT_READ)  # DALI maps the file again in this way
number = guard.watch(address(one))
assert guard.watch(address(two)) == number and guard.faults(number) == 0
os.truncate("a", 4 * PAGE + 5)
assert one[4 * PAGE : 5 * PAGE] == b"x" * 5 + bytes(PAGE - 5) and guard.faults(number) == 0
assert two[9 * PAGE :] == bytes(7 * PAGE) and guard.faults(number) == 1
assert two[8 * PAGE] == 0 and guard.faults(number) == 2  # a page before the zeroed ones
assert one[5 * PAGE] == 0 and guard.faults(number) == 3
assert one[: 4 * PAGE] == two[: 4 * PAGE] == b"x" * 4 * PAGE
assert guard.faults(number) == 3
print("passed")
"""
    done = run(program.replace("FLAGS", flags), tmp_path)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


def test_faults_of_many_threads_at_once_are_handled(tmp_path):
    program = """
guard = ops.guard()
for turn in range(20):
    data = np.frombuffer(mapped(new_file(f"{turn}", 64)), np.uint8)
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
print("passed")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


def test_a_forked_process_counts_its_own_faults(tmp_path):
    program = """
guard, data = ops.guard(), mapped(new_file("a"))
number = guard.watch(address(data))
os.truncate("a", 0)
child = os.fork()
if child == 0:
    os._exit(10 + guard.faults(number) if data[0] == 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
assert guard.faults(number) == 0
print("passed")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


ELSEWHERE = {
    "a file that is not watched": 'os.truncate("b", 0)\nother[0]',
    "a signal sent by kill()": "os.kill(os.getpid(), signal.SIGBUS)",
}


@pytest.mark.parametrize("what", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("handled", [False, True])
def test_a_fault_elsewhere_reaches_the_previous_handler(tmp_path, what, handled):
    program = f"""
if {handled}:
    import faulthandler
    faulthandler.enable()
guard, data, other = ops.guard(), mapped(new_file("a")), mapped(new_file("b"))
guard.watch(address(data))
{what}
print("still running")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")
    assert ("Fatal Python error: Bus error" in done.stderr) == handled, done.stderr


def test_memory_without_a_file_cannot_be_watched(tmp_path):
    program = """
assert ops.guard().watch(np.zeros(1 << 20, np.uint8).ctypes.data) is None  # no file
assert ops.guard().watch(16) is None  # nothing is mapped there
print("passed")
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr
