# SPDX-License-Identifier: Apache-2.0
"""One process locks a run folder; the kernel frees the lock when the process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from training.run_lock import RunLock, RunLocked

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from pathlib import Path
from training.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(600)  # a worker that outlives the owner of the lock
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path, request):
    """Start a process that locks a folder; kill its process group at the end."""
    how = getattr(request, "param", "alone")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_by_host_and_process(tmp_path, owner):
    with pytest.raises(RunLocked) as caught:
        RunLock(tmp_path)
    start = (
        f"{tmp_path}: another process trains in this run folder, got process {owner.pid} on host "
        f"{socket.gethostname()}, since "
    )
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(
        "; wait for that process, stop that process, or start a new run with run.resume=false"
    )


@pytest.mark.parametrize("owner", ["alone", "fork"], indirect=True)
def test_the_death_of_the_owner_frees_the_lock(tmp_path, owner):
    owner.kill()
    owner.wait()
    RunLock(tmp_path).release()


def test_an_owner_without_a_name_is_reported(tmp_path, owner):
    (tmp_path / "run.lock").write_text("")
    with pytest.raises(RunLocked, match="got a process that has just started; wait for"):
        RunLock(tmp_path)


def test_another_process_gets_a_released_lock(tmp_path):
    lock = RunLock(tmp_path)
    assert lock.notice == ""
    lock.release()
    held = subprocess.run(
        [sys.executable, "-c", HOLD.replace("time.sleep(600)\n", ""), str(tmp_path), "alone"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert held.stdout == "held\n", held.stderr


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    lock = RunLock(tmp_path)
    assert lock.notice == (
        f"{tmp_path}: the file system does not support locks, got No locks available; do not start "
        "this run twice at the same time"
    )
    lock.release()
