# SPDX-License-Identifier: Apache-2.0
"""Run a command with a time limit, and leave nothing of it behind.

    python -m tools.gpu_day.keeper LIMIT_S LOG COMMAND [ARGUMENT ...]

The keeper adopts whatever the command starts (PR_SET_CHILD_SUBREAPER): a process that leaves its
process group or session, or whose parent ends, still hangs below the keeper and is found in /proc.
It ends all of them when the command ends, when the time is over, and when it is told to stop.  It
prints one JSON object, an `Outcome`.  Standard library only.
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

REST_S = 1.0
"""That processes of a command that has ended may take to end as well."""
STOP_S = 2.0
"""From SIGTERM to SIGKILL."""
GONE_S = 10.0
"""That killed processes may take to disappear; a process longer in the kernel is given up."""
LOG_BYTES = 16 << 20
"""Of output are kept; more is read and dropped."""
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAITED = {signal.SIGCHLD, *ENDINGS}
_PR_SET_CHILD_SUBREAPER = 36


class Outcome(NamedTuple):
    """How a command ended."""

    code: int | None
    """Exit code, 128 + N after signal N; None where it was ended from here."""
    ended_by: str = ""
    """"limit", or the name of the signal that told the keeper to stop."""
    left: int = 0
    """Processes that were still there after the command had ended, and were ended."""
    stuck: tuple[int, ...] = ()
    """Processes that not even SIGKILL ends, since they hang in the kernel."""
    fault: str = ""
    """Why the command could not be started."""


def keep(command: Sequence[str], limit_s: float, log: Path) -> Outcome:
    """Run a command to its end or to the end of its time, then end all that it started.

    Parameters
    ----------
    command
        Program and arguments.
    limit_s
        Seconds that it may take.
    log
        File that its output goes to.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
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
            preexec_fn=partial(_begin, os.getpid()),
        )
    except OSError as error:
        os.close(read)
        return Outcome(127, fault=f"{command[0]} cannot be started, got {error.strerror}")
    finally:
        os.close(write)
    # After the fork: a thread must not be in the middle of something then.
    writer = threading.Thread(target=_write, args=(read, log), daemon=True)
    writer.start()
    status, ended_by = _wait(process.pid, end)
    left = len(_settled(REST_S)) if status is not None else 0
    stuck = end_all(asked=status is None or left > 0)
    process.returncode = 0 if status is None else status  # reaped here: Popen need not look for it
    writer.join(1.0)
    return Outcome(status, ended_by, left, tuple(stuck))


def _begin(keeper: int) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    end_with_parent(signal.SIGKILL, keeper)


def _wait(pid: int, end: float) -> tuple[int | None, str]:
    """Wait for the exit code of a child; return what ended the wait if that does not come."""
    while (left := end - time.monotonic()) > 0:
        found = signal.sigtimedwait(_WAITED, left)
        if found is not None and found.si_signo != signal.SIGCHLD:
            return None, signal.Signals(found.si_signo).name
        codes = _reap()
        if pid in codes:
            return codes[pid], ""
    return None, "limit"


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_all(asked: bool = True) -> list[int]:
    """End every process below this one; return those that not even SIGKILL ends.

    Parameters
    ----------
    asked
        Whether they get a SIGTERM first, and time to end by themselves.
    """
    if asked:
        _signal(descendants(), signal.SIGTERM)
        _settled(STOP_S)
    give_up = time.monotonic() + GONE_S
    # Again and again: some may start others before they are killed.
    while (pids := descendants()) and time.monotonic() < give_up:
        _signal(pids, signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    _reap()
    return pids


def descendants(above: int = 0) -> list[int]:
    """Return the processes below one, this one by default, that have not ended."""
    children: dict[int, list[int]] = {}
    ended = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # The name in brackets may hold anything.
            fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry))
            if fields[0] in (b"Z", b"X"):
                ended.add(int(entry))
    found, places = [], [above or os.getpid()]
    while places:
        below = children.get(places.pop(), [])
        found += [pid for pid in below if pid not in ended]
        places += below
    return found


def _settled(seconds: float) -> list[int]:
    """Wait until nothing is left below this process, at most so long; return what is."""
    give_up = time.monotonic() + seconds
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
    """Take leave of children that have ended; return their exit codes by process."""
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
    """Write what comes through a pipe to a file, up to LOG_BYTES; read the rest all the same."""
    room = LOG_BYTES
    with open(source, "rb", buffering=0) as pipe, log.open("ab", buffering=0) as file:
        while data := pipe.read(1 << 16):
            with contextlib.suppress(OSError):  # a full disk must not hold the command up
                file.write(data[:room])
            room = max(0, room - len(data))
        if not room:
            file.write(
                f"\n[more than {LOG_BYTES >> 20} MiB of output: the rest is left out]\n".encode()
            )


def main(argv: Sequence[str]) -> int:
    """Run the command line."""
    limit_s, log, *command = argv
    print(json.dumps(keep(command, float(limit_s), Path(log))._asdict()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
