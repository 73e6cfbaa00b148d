# SPDX-License-Identifier: Apache-2.0
"""Supervise the command that starts the ranks: its output, signals and exit code.

All launchers use `supervise`.  They differ in their `Reader`, which filters the output of the
command, extracts the exit code of the run and stops the ranks.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from launch.launchers.progress import ProgressBar
from launch.ranks.lifeline import end_with_parent, obeys_hangup
from launch.ranks.output import use_utf8

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(ROOT / "run_train.py")]
"""Command line of the program of one rank."""


class Reader:
    """Output filter for a run with one rank: prints every line unchanged."""

    stderr: int | None = None
    """Argument ``stderr`` of Popen; None: the ranks write to the standard error of the launcher."""
    kill_after_s: float | None = 9.0
    """Seconds between the request to stop and SIGKILL; None: a scheduler kills the ranks."""

    def __init__(self) -> None:
        self.code: int | None = None
        """Exit code of the rank that ended the run; None until the output contains it."""

    def read(self, line: str, stream: str) -> tuple[str, str] | None:
        """Filter a line: return the pair (line, stream) to print, or None to hide the line.

        Parameters
        ----------
        line
            Line of the output without its newline.
        stream
            "stdout" or "stderr".
        """
        return line, stream

    def rest(self) -> tuple[str, str] | None:
        """Return one more pair (line, stream) to print after the output has ended, or None."""
        return None

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Request the ranks to save a checkpoint and stop."""
        process.send_signal(signal.SIGTERM)


class Screen:
    """Writer to a launcher's standard output and error; ignores a closed terminal or pipe.

    Parameters
    ----------
    on_closed_pipe
        Function to call when the reader of standard output or error has closed the pipe; it is
        called at most once.
    """

    def __init__(self, on_closed_pipe: Callable[[], object]):
        self._on_closed_pipe: Callable[[], object] | None = on_closed_pipe
        self._failed_streams: set[str] = set()

    def print_line(self, text: str, stream: str) -> None:
        """Print a line on "stdout" or "stderr", unless that stream has failed."""
        file = sys.stdout if stream == "stdout" else sys.stderr
        self.try_write(stream, lambda: print(text, file=file, flush=True))

    def try_write(self, stream: str, write: Callable[[], object]) -> None:
        """Call a function that writes to a stream; do nothing if the stream has failed earlier."""
        if stream in self._failed_streams:
            return
        try:
            write()
        except OSError as error:
            self._failed_streams.add(stream)
            # Python flushes the stream at exit, and would raise again: redirect the stream to
            # /dev/null.
            null_device = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null_device, 1 if stream == "stdout" else 2)
            os.close(null_device)
            # Stop the run here only if a pipe was closed (EPIPE).  A closed terminal (EIO) also
            # sends SIGHUP, which stops the run unless nohup or setsid keeps it alive.
            if error.errno == errno.EPIPE and self._on_closed_pipe is not None and obeys_hangup():
                callback, self._on_closed_pipe = self._on_closed_pipe, None
                callback()


def supervise(command: Sequence[str], environment: Mapping[str, str], reader: Reader) -> int:
    """Run a command in the project folder and return the exit code of the ranks.

    ``reader.stop`` is called on Ctrl-C, on SIGTERM, on SIGHUP (except under nohup), and when the
    program that reads the launcher's output closes the pipe.  After such a stop, the output of the
    command is still read to its end.  If the launcher is killed, the kernel sends SIGTERM to the
    command.

    Parameters
    ----------
    command
        Command line that starts the ranks.
    environment
        Environment variables of the command.
    reader
        Output filter of the command; it also stops the ranks.
    """
    use_utf8()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        # Without UTF-8 a non-ASCII character ends horovodrun's output threads and the ranks hang.
        env={**environment, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"},
        stdout=subprocess.PIPE,
        stderr=reader.stderr,
        encoding="utf-8",
        errors="replace",
        bufsize=1,
        start_new_session=True,  # Ctrl-C reaches only the launcher
        preexec_fn=partial(end_with_parent, signal.SIGTERM, os.getpid()),
    )
    stop = partial(_stop, reader, process)
    stop_signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if obeys_hangup() else [])]
    for number in stop_signals:
        signal.signal(number, lambda *_: stop())
    screen = Screen(stop)
    bar = ProgressBar(sys.stderr) if sys.stderr.isatty() else None
    errors = None
    if process.stderr is not None:
        errors = threading.Thread(
            target=print_output, args=(process.stderr, "stderr", reader, None, screen)
        )
        errors.start()
    assert process.stdout is not None
    print_output(process.stdout, "stdout", reader, bar, screen)
    if errors is not None:
        errors.join()
    if bar:
        screen.try_write("stderr", bar.close)
    status = process.wait()
    if status < 0:
        return 128 - status
    return reader.code if status and reader.code is not None else status


def print_output(
    output: IO[str],
    stream: str,
    reader: Reader,
    bar: ProgressBar | None,
    screen: Screen | None = None,
) -> None:
    """Read one output stream of the command to its end; print the lines that ``reader`` returns."""
    screen = screen or Screen(lambda: None)

    def show(filtered: tuple[str, str] | None) -> None:
        if filtered is None:
            return
        text, target = filtered
        if bar and target == "stdout":
            screen.try_write("stderr", partial(bar.write_line, text))
        else:
            screen.print_line(text, target)

    for line in output:
        show(reader.read(line.rstrip("\n"), stream))
    if stream == "stdout":
        show(reader.rest())


def _stop(reader: Reader, process: subprocess.Popen[str]) -> None:
    """Request the ranks to stop; kill the command if it has not ended after ``kill_after_s``."""
    reader.stop(process)
    if reader.kill_after_s is not None:
        timer = threading.Timer(reader.kill_after_s, process.kill)
        timer.daemon = True
        timer.start()
