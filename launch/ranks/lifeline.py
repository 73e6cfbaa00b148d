# SPDX-License-Identifier: Apache-2.0
"""What a rank's life hangs on: the processes that started it, and the launcher's server.

``Lifeline`` tells when the launcher of a rank is gone.  On the launcher's host that is read from
/proc: every process between the rank and its launcher must live, and the pipe that the launcher
writes to must have a reader.  On other hosts, and where a scheduler starts the ranks, Horovod's
rendezvous server is asked for a connection: a host that refuses one has no launcher any more.
Standard library only: the companion (launch/ranks/companion.py) starts within milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LAUNCHERS = ("launch.local", "launch.hosts", "launch.slurm", "horovod.runner")
"""Modules that start ranks, as ``python -m`` has them; and the script horovodrun."""
SERVERS = ("sshd", "slurmstepd", "orted", "prted", "mpirun", "prterun")
"""Programs that start the ranks of a host for a launcher on another one; names may go on."""
ASK_S = 1.0  # between two connections to the rendezvous server
RANKS_PER_SECOND = 256  # that may ask one server
UNREAD = "nobody reads the output any more: its pipe was closed"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Chain:
    """The processes that a rank's life hangs on.

    ``watched`` has (process, start time) from the rank's parent up; ``launcher`` is the last of
    them where that is a launcher on this host, else 0.
    """

    watched: tuple[tuple[int, str], ...]
    launcher: int

    def __str__(self) -> str:
        return ",".join([str(self.launcher), *(f"{pid}:{start}" for pid, start in self.watched)])

    @classmethod
    def parse(cls, text: str) -> Chain:
        """Return the chain that ``str`` gave."""
        launcher, *watched = text.split(",")
        pairs = (entry.split(":") for entry in watched)
        return cls(tuple((int(pid), start) for pid, start in pairs), int(launcher))


def chain_of(rank: int) -> Chain:
    """Return what the life of a rank hangs on, as far as /proc tells it now."""
    above = ancestors(rank)
    launchers = [place for place, pid in enumerate(above) if _is_launcher(pid)]
    servers = [place for place, pid in enumerate(above) if _name(pid).startswith(SERVERS)]
    if launchers:
        watched = above[: launchers[-1] + 1]
    else:
        watched = above[: servers[0] + 1] if servers else []
    pairs = tuple((pid, start_time(pid)) for pid in watched)
    return Chain(pairs, watched[-1] if launchers else 0)


class Lifeline:
    """Tells whether a rank has lost its launcher.

    Parameters
    ----------
    chain
        What the rank's life hangs on.
    environment
        Of the rank: HOROVOD_ variables say where the rendezvous server is.
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
                target=self._ask, args=(address, int(port), ranks), daemon=True
            ).start()

    def lost(self) -> str:
        """Return what is gone, in words; "" while the rank has its launcher."""
        for pid, started in self._watched:
            if start_time(pid) != started:
                return f"process {pid}, which started this rank, has ended"
        if self._refused:
            return "the launcher's host refuses connections: the launcher has ended"
        # After nohup the output may well lose its reader: a terminal or a pipe that was closed.
        if hangs_up() and any(map(without_reader, self._outputs)):
            return UNREAD
        return ""

    def _ask(self, address: str, port: int, ranks: int) -> None:
        refused = 0
        while refused < 2:
            try:
                socket.create_connection((address, port), timeout=5).close()
                refused = 0
            except ConnectionRefusedError:
                refused += 1
            except OSError:
                refused = 0  # the network is slow or cut: Horovod's own time limits decide
            time.sleep(0.2 if refused else ASK_S * max(1, ranks // RANKS_PER_SECOND))
        self._refused = True


def ancestors(pid: int) -> list[int]:
    """Return parent, parent's parent and so on of a process, without the first process of all."""
    found: list[int] = []
    while True:
        fields = _stat(pid)
        if not fields or int(fields[1]) <= 1:
            return found
        pid = int(fields[1])
        found.append(pid)


def start_time(pid: int) -> str:
    """Return when a process started, in ticks; "" if it has ended, waited for or not."""
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[19]


def without_reader(pid: int) -> bool:
    """Return whether the standard output of a process is a pipe that nobody reads."""
    output = f"/proc/{pid}/fd/1"
    try:
        if not stat.S_ISFIFO(os.stat(output).st_mode):
            return False
        descriptor = os.open(output, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.ENXIO  # a named pipe without readers
    try:
        poll = select.poll()
        poll.register(descriptor, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    finally:
        os.close(descriptor)


def hangs_up() -> bool:
    """Return whether the end of the terminal or of a pipe is for this process: nohup ignores it."""
    return signal.getsignal(signal.SIGHUP) != signal.SIG_IGN


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Have the system send a signal to this process when its parent ends.

    Parameters
    ----------
    number
        The signal.
    parent
        The parent, as the caller knew it before the fork: it may have ended since.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def tie_forks() -> None:
    """Have the system kill every process that this one forks, when this one ends.

    Loaders fork worker processes, which otherwise wait for work for ever after a SIGKILL.
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
    """Return the fields of /proc/PID/stat from the state on; the name before may hold anything."""
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
