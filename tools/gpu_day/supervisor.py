# SPDX-License-Identifier: Apache-2.0
"""Run a command under a supervisor, which enforces a time limit and ends leftover processes.

    python -m tools.gpu_day.supervisor LIMIT_S LOG COMMAND [ARGUMENT ...]

The supervisor is the subreaper of the command (PR_SET_CHILD_SUBREAPER).  A process that changes its
process group or session, or whose parent ends, stays a descendant of the supervisor.  The
supervisor ends all descendants when the command ends, when the time limit is over, and on SIGTERM,
SIGINT or SIGHUP.  Then the supervisor prints an `Outcome` as one JSON object.  The module needs
only the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from launch.ranks.lifeline import end_with_parent

SETTLE_S = 1.0
"""Seconds after the end of the command during which its child processes can end normally."""
TERM_TO_KILL_S = 2.0
"""Seconds between SIGTERM and SIGKILL during which processes can end."""
KILL_S = 10.0
"""Seconds to wait after SIGKILL; a process that exists longer hangs in the kernel."""
MAX_LOG_BYTES = 16 << 20
"""Size limit of a log in bytes; output beyond the limit is read and discarded."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_AWAITED_SIGNALS = {signal.SIGCHLD, *STOP_SIGNALS}
_PR_SET_CHILD_SUBREAPER = 36


class Outcome(NamedTuple):
    """Result of a supervised command: how the command ended."""

    code: int | None
    """Exit code, 128 + N after signal N; None if the supervisor ended the command."""
    ended_by: str = ""
    """Why the supervisor ended the command: "limit" (time limit) or the name of a signal.

    Empty if the command ended normally.
    """
    remaining: int = 0
    """Number of processes that outlived the command and that the supervisor then ended."""
    stuck: tuple[int, ...] = ()
    """Ids of processes that SIGKILL does not end, because they hang in the kernel."""
    fault: str = ""
    """Reason why the command could not be started."""


def supervise(command: Sequence[str], limit_s: float, log: Path) -> Outcome:
    """Run a command; at its end, at the time limit or on a signal, end all its processes.

    Parameters
    ----------
    command
        Program and arguments.
    limit_s
        Time limit in seconds.
    log
        File for standard output and standard error.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED_SIGNALS)
    adopt_orphans()
    read, write = os.pipe()
    end = time.monotonic() + limit_s
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=write,
            start_new_session=True,
            preexec_fn=partial(_prepare_child, os.getpid()),
        )
    except OSError as error:
        os.close(read)
        return Outcome(127, fault=f"{command[0]} cannot be started, got {error.strerror}")
    finally:
        os.close(write)
    # The thread must start after the fork, because a fork would copy locks that the thread holds.
    writer = threading.Thread(target=_write, args=(read, log), daemon=True)
    writer.start()
    status, ended_by = _wait(process.pid, end)
    remaining = len(_wait_for_descendants(SETTLE_S)) if status is not None else 0
    stuck = end_all(terminate=status is None or remaining > 0)
    # Without a return code, Popen would wait for a process that `_reap` has already collected.
    process.returncode = 0 if status is None else status
    writer.join(1.0)
    return Outcome(status, ended_by, remaining, tuple(stuck))


def _prepare_child(supervisor_pid: int) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    end_with_parent(signal.SIGKILL, supervisor_pid)


def _wait(pid: int, end: float) -> tuple[int | None, str]:
    """Wait for a child process; return a pair (exit code or None, reason why the wait ended).

    The reason is "" if the child ended, "limit" if `end` has passed, or the name of a signal.
    """
    while (timeout_s := end - time.monotonic()) > 0:
        found = signal.sigtimedwait(_AWAITED_SIGNALS, timeout_s)
        if found is not None and found.si_signo != signal.SIGCHLD:
            return None, signal.Signals(found.si_signo).name
        codes = _reap()
        if pid in codes:
            return codes[pid], ""
    return None, "limit"


def adopt_orphans() -> None:
    """Make this process the parent of each descendant that loses its own parent."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_all(terminate: bool = True) -> list[int]:
    """End all descendants of this process; return the ids of processes that SIGKILL does not end.

    Parameters
    ----------
    terminate
        Whether to send SIGTERM first and wait up to TERM_TO_KILL_S seconds.
    """
    if terminate:
        _signal(descendants(), signal.SIGTERM)
        _wait_for_descendants(TERM_TO_KILL_S)
    give_up = time.monotonic() + KILL_S
    # SIGKILL is sent repeatedly, because a process can start another one before it is killed.
    while (pids := descendants()) and time.monotonic() < give_up:
        _signal(pids, signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    _reap()
    return pids


def descendants(ancestor: int = 0) -> list[int]:
    """Return the ids of all running descendants of a process; 0 stands for this process."""
    children: dict[int, list[int]] = {}
    ended = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        # The file disappears when the process ends.
        with contextlib.suppress(OSError):
            # The program name is in brackets and may contain spaces and brackets itself, so the
            # fields are read after the last bracket.
            fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry))
            if fields[0] in (b"Z", b"X"):
                ended.add(int(entry))
    found, pending = [], [ancestor or os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += [pid for pid in below if pid not in ended]
        pending += below
    return found


def _wait_for_descendants(timeout_s: float) -> list[int]:
    """Wait up to timeout_s seconds until all descendants have ended; return the ids of the rest."""
    give_up = time.monotonic() + timeout_s
    while (pids := descendants()) and time.monotonic() < give_up:
        _reap()
        time.sleep(0.02)
    _reap()
    return pids


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _reap() -> dict[int, int]:
    """Collect the children that have ended; return their exit codes by process id."""
    codes = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            code = os.waitstatus_to_exitcode(status)
            codes[pid] = code if code >= 0 else 128 - code
    return codes


def _write(source: int, log: Path) -> None:
    """Copy a pipe to a log file, up to MAX_LOG_BYTES.

    Further output is read and discarded, so that the processes that write it never block.
    """
    free_bytes = MAX_LOG_BYTES
    with open(source, "rb", buffering=0) as pipe, log.open("ab", buffering=0) as file:
        while data := pipe.read(1 << 16):
            with contextlib.suppress(OSError):  # A full disk must not block the command.
                file.write(data[:free_bytes])
            free_bytes = max(0, free_bytes - len(data))
        if not free_bytes:
            file.write(f"\n[output after {MAX_LOG_BYTES >> 20} MiB is discarded]\n".encode())


def main(argv: Sequence[str]) -> int:
    """Supervise the command that the arguments name, print its `Outcome` as JSON, and return 0."""
    limit_s, log, *command = argv
    print(json.dumps(supervise(command, float(limit_s), Path(log))._asdict()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
