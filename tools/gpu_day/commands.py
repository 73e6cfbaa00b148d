# SPDX-License-Identifier: Apache-2.0
"""Run programs with a time limit, for the measurements of `tools.gpu_day`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.gpu_day.setting import ROOT

POLL_S = 0.1


class Ended(NamedTuple):
    """Result of a program that has ended."""

    code: int
    """Exit code; 128 + N after signal N."""
    text: str
    """Standard output and standard error, interleaved."""
    seconds: float

    def last_line(self) -> str:
        """Return the last non-empty line that the program printed."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class TooLong(RuntimeError):
    """A program exceeded its time limit."""


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment variables without HOROVOD_*, updated by `variables`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HOROVOD_")}
    return {**inherited, **variables}


def run(
    command: Sequence[str | Path],
    *,
    limit_s: float,
    variables: Mapping[str, str] | None = None,
    while_running: Callable[[subprocess.Popen], object] | None = None,
) -> Ended:
    """Run a program in the root folder of the project, print its output and return its result.

    Parameters
    ----------
    command
        Program and arguments.
    limit_s
        Time limit in seconds, after which the program is killed.
    variables
        Additional environment variables.
    while_running
        Callback that is called with the running process, ten times a second.

    Raises
    ------
    TooLong
        If the program exceeds the time limit.
    FileNotFoundError
        If the program does not exist.
    """
    words = [str(word) for word in command]
    print("$", *[f"{k}={v}" for k, v in (variables or {}).items()], *words, flush=True)
    start = time.monotonic()
    # The output goes to a file, not a pipe.  A child process that outlives the program would keep a
    # pipe open, and this function would wait for the end of that process.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = _wait(process, start + limit_s, while_running)
        size = os.fstat(output.fileno()).st_size
        # os.pread() does not move the file offset, at which child processes may still write.
        text = os.pread(output.fileno(), size, 0).decode(errors="replace")
    seconds = time.monotonic() - start
    print(text, f"-> code {code}, {seconds:.1f} s", sep="\n", flush=True)
    if code is None:
        raise TooLong(
            f"{Path(words[0]).name} {' '.join(words[1:4])}: the program must end within "
            f"{limit_s:g} s, but was still running and was killed; see its output in the log"
        )
    return Ended(code if code >= 0 else 128 - code, text, seconds)


def _wait(
    process: subprocess.Popen,
    end: float,
    while_running: Callable[[subprocess.Popen], object] | None,
) -> int | None:
    """Return the exit code of a process; if it runs beyond `end`, kill it and return None."""
    while True:
        try:
            return process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None
            if while_running is not None:
                while_running(process)


def python(*arguments: str | Path) -> list[str]:
    """Return the command line that runs a Python program with this interpreter."""
    return [sys.executable, *map(str, arguments)]
