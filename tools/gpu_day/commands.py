# SPDX-License-Identifier: Apache-2.0
"""Programs that steps start; whatever is left of one the step's keeper ends."""

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
    """How a program ended."""

    code: int
    """Exit code; 128 + N after signal N."""
    text: str
    """What it wrote, standard output and error together."""
    seconds: float

    def last_line(self) -> str:
        """Return the last line that is not empty."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class TooLong(RuntimeError):
    """A program did not end in its time."""


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a program; it starts ranks of its own, if any."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HOROVOD_")}
    return {**kept, **variables}


def run(
    command: Sequence[str | Path],
    *,
    limit_s: float,
    variables: Mapping[str, str] | None = None,
    while_running: Callable[[subprocess.Popen], object] | None = None,
) -> Ended:
    """Run a program from the root of the project; print what it writes.

    Parameters
    ----------
    command
        Program and arguments.
    limit_s
        Seconds after which it is killed.
    variables
        Added to its environment.
    while_running
        Called ten times a second with the process.

    Raises
    ------
    TooLong
        If it has not ended by then.
    FileNotFoundError
        If there is no such program.
    """
    words = [str(word) for word in command]
    print("$", *[f"{k}={v}" for k, v in (variables or {}).items()], *words, flush=True)
    begun = time.monotonic()
    # A file, not a pipe: a process that stays behind would keep a pipe open.
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
        code = _wait(process, begun + limit_s, while_running)
        size = os.fstat(output.fileno()).st_size
        # Not seek and read: the place is shared with processes that may still write.
        text = os.pread(output.fileno(), size, 0).decode(errors="replace")
    seconds = time.monotonic() - begun
    print(text, f"-> code {code}, {seconds:.1f} s", sep="\n", flush=True)
    if code is None:
        raise TooLong(f"{Path(words[0]).name} {' '.join(words[1:4])}: no end within {limit_s:g} s")
    return Ended(code if code >= 0 else 128 - code, text, seconds)


def _wait(
    process: subprocess.Popen,
    end: float,
    while_running: Callable[[subprocess.Popen], object] | None,
) -> int | None:
    """Return the exit code, None if the process had to be killed."""
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
    """Return a command line of this interpreter."""
    return [sys.executable, *map(str, arguments)]
