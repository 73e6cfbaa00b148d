# SPDX-License-Identifier: Apache-2.0
"""Detection of a launcher that has ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.ranks import lifeline
from launch.ranks.lifeline import (
    Chain,
    ExitStatus,
    Lifeline,
    find_chain,
    lacks_reader,
    list_ancestors,
    read_start_time,
)

WAIT_S = 60.0


def until(met):
    give_up = time.monotonic() + WAIT_S
    while not (found := met()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return found


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def test_ancestors_exclude_process_1(sleeper):
    chain = list_ancestors(sleeper.pid)
    assert chain[:2] == [os.getpid(), os.getppid()]
    assert 1 not in chain and len(set(chain)) == len(chain)


def test_a_zombie_counts_as_ended(sleeper):
    assert read_start_time(sleeper.pid).isdecimal()
    assert read_start_time(sleeper.pid) == read_start_time(sleeper.pid)
    sleeper.kill()
    until(lambda: read_start_time(sleeper.pid) == "")
    assert sleeper.poll() is not None


@pytest.mark.parametrize(
    ("arguments", "launcher"),
    [
        (["python", "/opt/bin/horovodrun", "-np", "2"], True),
        (["/opt/bin/horovodrun", "-np", "2"], True),
        (["python", "-m", "launch.local", "-np", "2"], True),
        (["python", "-u", "-m", "launch.hosts"], True),
        (["python3.11", "-m", "horovod.runner.launch"], True),
        (["bash", "-c", "horovodrun -np 2 python run_train.py"], False),
        (["python", "run_train.py", "--cfg", "horovodrun"], False),
        (["python", "-m", "pytest", "launch.local"], False),
        (["vim", "-m"], False),
        ([], False),
    ],
)
def test_launchers_are_recognised_by_their_arguments(arguments, launcher, monkeypatch):
    text = "".join(f"{argument}\0" for argument in arguments).encode()
    monkeypatch.setattr(lifeline, "_read", lambda pid, name: text)
    assert lifeline._is_launcher(1) is launcher


def ranks_chain(monkeypatch, names, launchers):
    """Simulate a rank whose ancestors 11, 12, ... have these names; some of them are launchers."""
    alive = {11 + index: name for index, name in enumerate(names)}
    monkeypatch.setattr(lifeline, "list_ancestors", lambda pid: list(alive))
    monkeypatch.setattr(lifeline, "_name", lambda pid: alive.get(pid, ""))
    monkeypatch.setattr(lifeline, "_is_launcher", lambda pid: alive.get(pid) in launchers)
    monkeypatch.setattr(lifeline, "read_start_time", lambda pid: "1" if pid in alive else "")
    monkeypatch.setattr(lifeline, "lacks_reader", lambda pid: False)
    return alive, find_chain(10)


@pytest.mark.parametrize(
    ("names", "watched"),
    [
        (["sh", "python", "horovodrun", "local", "bash", "tmux"], 4),
        (["sh", "python", "horovodrun", "bash"], 3),
        (["sh", "sshd", "sshd", "sshd"], 2),
        (["slurmstepd"], 1),
        (["bash", "tmux"], 0),
    ],
    ids=["launch.local", "horovodrun", "ssh", "slurm", "shell"],
)
def test_every_process_up_to_the_launcher_is_watched(names, watched, monkeypatch):
    for index in range(len(names)):
        alive, chain = ranks_chain(monkeypatch, names, {"horovodrun", "local"})
        line = Lifeline(Chain.parse(str(chain)), {})
        assert line.loss_reason() == ""
        del alive[11 + index]
        ended = f"process {11 + index}, which started this rank, has ended"
        assert line.loss_reason() == (ended if index < watched else "")


@pytest.mark.parametrize("names", [["sshd"], ["slurmstepd"], []])
def test_ranks_on_other_hosts_poll_the_rendezvous_server(names, monkeypatch):
    _, chain = ranks_chain(monkeypatch, names, {})
    monkeypatch.setattr(lifeline, "CONNECT_INTERVAL_S", 0.01)
    server = socket.create_server(("127.0.0.1", 0))
    environment = {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.getsockname()[1]),
        "HOROVOD_SIZE": "2",
    }
    line = Lifeline(chain, environment)
    for _ in range(3):
        server.accept()[0].close()
    assert line.loss_reason() == ""
    server.close()
    assert until(line.loss_reason) == (
        "the launcher's host refuses connections: the launcher has ended"
    )


def test_a_pipe_without_a_reader_is_detected(tmp_path):
    def output_of(stdout):
        return subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=stdout
        )

    reading, writing = os.pipe()
    processes = [output_of(writing), output_of(subprocess.DEVNULL)]
    os.close(writing)
    with open(tmp_path / "file", "w") as file:
        processes.append(output_of(file))
    assert [lacks_reader(process.pid) for process in processes] == [False] * 3
    os.close(reading)
    assert [lacks_reader(process.pid) for process in processes] == [True, False, False]
    for process in processes:
        process.communicate(b"\n")
    assert not lacks_reader(processes[0].pid)  # the process has ended


def test_the_companion_uses_the_standard_library_only():
    folder = Path(lifeline.__file__).parents[2]
    program = "import sys, launch.ranks.lifeline, launch.ranks.companion; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not {"numpy", "mxnet", "psutil", "yaml"} & set(done.stdout.split())


def test_the_status_of_a_killed_process_is_read(sleeper):
    status = ExitStatus(sleeper.pid)
    assert status.read() == 0
    sleeper.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # the process stays a zombie
    assert status.read() == signal.SIGKILL
    sleeper.wait()
    assert status.read() in (signal.SIGKILL, None)  # None before Linux 6.15
    assert ExitStatus(sleeper.pid).read() is None
