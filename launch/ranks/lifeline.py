# SPDX-License-Identifier: Apache-2.0
"""Detect that the launcher of a rank has ended.

On the host of the launcher, `Lifeline` reads /proc: it watches every process between the rank and
its launcher, and checks that the launcher's output pipe still has a reader.  On other hosts, and
under a scheduler, `Lifeline` connects to Horovod's rendezvous server.  A refused connection means
that the launcher has ended.

The module uses the standard library only, so that the companion (launch/ranks/companion.py) starts
within milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LAUNCHERS = ("launch.local", "launch.hosts", "launch.slurm", "horovod.runner")
"""Prefixes of modules that start ranks when run with ``python -m``."""
SERVERS = ("sshd", "slurmstepd", "orted", "prted", "mpirun", "prterun")
"""Prefixes of the names of programs that start ranks for a launcher on another host."""
CONNECT_INTERVAL_S = 1.0
"""Seconds between two connections of a rank to the rendezvous server."""
MAX_CONNECTIONS_PER_S = 256
"""Maximum number of connections of all ranks together to the rendezvous server per second."""
OUTPUT_CLOSED = "the reader of the output has closed its pipe"
_PR_SET_PDEATHSIG = 1
_PIDFD_INFO_BYTES, _PIDFD_INFO_EXIT = 64, 1 << 3
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_BYTES << 16 | 0xFF << 8 | 11
"""Request of ioctl on a pidfd, since Linux 6.13; with the exit status since Linux 6.15."""


@dataclass(frozen=True)
class Chain:
    """Processes from the parent of a rank up to the launcher.

    Parameters
    ----------
    watched
        Pairs (process id, start time), one per process, from the parent of the rank upwards.
    launcher
        Process id of the launcher, the last entry of ``watched``; 0 if the launcher runs on another
        host or if there is no launcher.
    """

    watched: tuple[tuple[int, str], ...]
    launcher: int

    def __str__(self) -> str:
        return ",".join([str(self.launcher), *(f"{pid}:{start}" for pid, start in self.watched)])

    @classmethod
    def parse(cls, text: str) -> Chain:
        """Parse a chain from the text that ``str(chain)`` returns."""
        launcher, *watched = text.split(",")
        pairs = (entry.split(":") for entry in watched)
        return cls(tuple((int(pid), start) for pid, start in pairs), int(launcher))


def find_chain(rank: int) -> Chain:
    """Find the launcher of a rank in /proc, and the processes between rank and launcher.

    Parameters
    ----------
    rank
        Process id of the rank.
    """
    parents = list_ancestors(rank)
    launchers = [index for index, pid in enumerate(parents) if _is_launcher(pid)]
    servers = [index for index, pid in enumerate(parents) if _name(pid).startswith(SERVERS)]
    if launchers:
        watched = parents[: launchers[-1] + 1]
    else:
        watched = parents[: servers[0] + 1] if servers else []
    pairs = tuple((pid, read_start_time(pid)) for pid in watched)
    return Chain(pairs, watched[-1] if launchers else 0)


class Lifeline:
    """Monitor that detects when the launcher of a rank has ended.

    Parameters
    ----------
    chain
        Processes from the parent of the rank up to the launcher.
    environment
        Environment variables of the rank, with the address of Horovod's rendezvous server.
    """

    def __init__(self, chain: Chain, environment: Mapping[str, str]):
        self._watched = chain.watched
        self._outputs = [os.getpid(), *([chain.launcher] if chain.launcher else [])]
        self._refused = False
        address = environment.get("HOROVOD_GLOO_RENDEZVOUS_ADDR")
        port = environment.get("HOROVOD_GLOO_RENDEZVOUS_PORT", "")
        if address and port.isdecimal() and not chain.launcher:
            ranks = int(environment.get("HOROVOD_SIZE", "1"))
            threading.Thread(
                target=self._poll_server, args=(address, int(port), ranks), daemon=True
            ).start()

    def loss_reason(self) -> str:
        """Return why the launcher counts as ended; "" while it is still running."""
        for pid, started in self._watched:
            if read_start_time(pid) != started:
                return f"process {pid}, which started this rank, has ended"
        if self._refused:
            return "the launcher's host refuses connections: the launcher has ended"
        # Under nohup a closed terminal or pipe must not end the run.
        if obeys_hangup() and any(map(lacks_reader, self._outputs)):
            return OUTPUT_CLOSED
        return ""

    def _poll_server(self, address: str, port: int, ranks: int) -> None:
        refused = 0
        while refused < 2:
            try:
                socket.create_connection((address, port), timeout=5).close()
                refused = 0
            except ConnectionRefusedError:
                refused += 1
            except OSError:
                refused = 0  # broken network: Horovod's timeouts apply
            time.sleep(
                0.2 if refused else CONNECT_INTERVAL_S * max(1, ranks // MAX_CONNECTIONS_PER_S)
            )
        self._refused = True


def list_ancestors(pid: int) -> list[int]:
    """Return the process ids of the ancestors of a process, its parent first, without process 1."""
    found: list[int] = []
    while True:
        fields = _stat(pid)
        if not fields or int(fields[1]) <= 1:
            return found
        pid = int(fields[1])
        found.append(pid)


def read_start_time(pid: int) -> str:
    """Return the start time of a process in clock ticks; "" if it has ended or is a zombie."""
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[19]


class ExitStatus:
    """Reader of the wait status of a process that is not a child of this process.

    Parameters
    ----------
    pid
        Id of a running process.
    """

    def __init__(self, pid: int):
        self._pid = pid
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:  # the process has ended, or the kernel has no pidfd
            self._descriptor = -1

    def read(self) -> int | None:
        """Return the wait status, or 0 if the process still runs.

        Return None if the status is unknown: the parent of the process has already read the status,
        and the kernel is older than Linux 6.15.
        """
        # When the parent reads the status, the kernel moves the status from /proc to the pidfd.  If
        # that happens between the two queries, both find nothing: repeat them.
        for _ in range(2):
            if (status := self._ask_pidfd()) is not None:
                return status
            if fields := _stat(self._pid):
                return int(fields[-1])
        return None

    def _ask_pidfd(self) -> int | None:
        # struct pidfd_info of linux/pidfd.h: a mask, and the exit code in the last 4 bytes
        info = bytearray(_PIDFD_INFO_BYTES)
        struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(self._descriptor, _PIDFD_GET_INFO, info, True)
        except (OSError, ValueError):  # ValueError: the descriptor is -1
            return None
        (mask,), (code,) = struct.unpack_from("Q", info), struct.unpack_from("i", info, 60)
        return int(code) if mask & _PIDFD_INFO_EXIT else None


def lacks_reader(pid: int) -> bool:
    """Return whether the standard output of a process is a pipe without a reader."""
    output = f"/proc/{pid}/fd/1"
    try:
        if not stat.S_ISFIFO(os.stat(output).st_mode):
            return False
        descriptor = os.open(output, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.ENXIO  # ENXIO: a named pipe without a reader
    try:
        poll = select.poll()
        poll.register(descriptor, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    finally:
        os.close(descriptor)


def obeys_hangup() -> bool:
    """Return whether a closed terminal or pipe ends this process: False under nohup."""
    return signal.getsignal(signal.SIGHUP) != signal.SIG_IGN


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Make the kernel send a signal to this process when its parent ends.

    Parameters
    ----------
    number
        Number of the signal.
    parent
        Process id of the parent before the fork.  If the parent has already ended, the signal is
        sent immediately.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def kill_forks_at_exit() -> None:
    """Make the kernel kill every forked child when this process ends.

    Without this call, worker processes of a loader would wait for work forever after a SIGKILL of
    this process.
    """
    os.register_at_fork(after_in_child=end_with_parent)


def _is_launcher(pid: int) -> bool:
    arguments = _read(pid, "cmdline").decode(errors="replace").split("\0")
    if "-m" in arguments[1:-1]:
        return arguments[arguments.index("-m", 1) + 1].startswith(LAUNCHERS)
    return any(Path(argument).name == "horovodrun" for argument in arguments[:2])


def _name(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat that follow the process name.

    The process name may contain spaces, so the function splits the text after the name.
    """
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):  # the process may have ended
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
