# SPDX-License-Identifier: Apache-2.0
"""Run the command that starts the ranks; show what a user wants to see and return the run's code.

What the launchers have in common.  They differ in how their output is read: a `Reader` says what
is shown of a line, keeps the exit code that the lines tell of, and knows how to stop the ranks.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from launch.launchers.progress import Bar
from launch.ranks.lifeline import end_with_parent, hangs_up
from launch.ranks.output import use_utf8

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(ROOT / "run_train.py")]
"""The program of one rank."""


class Reader:
    """Shows every line where it was written: one rank that no launcher started."""

    stderr: int | None = None
    """Where the standard error goes, as Popen takes it; None: nobody reads it on the way."""

    def __init__(self) -> None:
        self.code: int | None = None
        """The exit code of the rank that ended the run, where the output tells it."""

    kill_after_s: float | None = 9.0
    """Seconds from the request to stop to SIGKILL; None leaves that to a scheduler."""

    def read(self, line: str, stream: str) -> tuple[str, str] | None:
        """Return (line, stream) to show, streams being "stdout" and "stderr"; None: nothing."""
        return line, stream

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Ask the ranks to save and to stop."""
        process.send_signal(signal.SIGTERM)


class HorovodrunReader(Reader):
    """Takes horovodrun's prefixes off, keeps rank 0's lines and all errors, drops its traceback."""

    stderr = subprocess.STDOUT  # horovodrun says on its standard output which rank wrote where
    # It kills its ranks 5 s after it is told to stop.  Where it hangs, the companions of the ranks
    # need 3.5 s once it is gone.
    kill_after_s = 6.5

    _prefix = re.compile(r"^\[(\d+)\]<(stdout|stderr)>:?")
    _exit = re.compile(r"^Exit code: (-?\d+)")
    _ended = re.compile(r"^Process \d+ exit with status code (-?\d+)")
    _ssh_broke = 255  # ssh's own code: what became of the rank behind it is not known
    # What horovodrun says of itself when a rank ends with a code; the rank has said why.
    _itself = re.compile(
        r"^(Process \d+ exit with status code|Terminating remaining workers|"
        r"Traceback \(most recent|RuntimeError: Horovod detected|Process name: )"
    )

    def __init__(self) -> None:
        super().__init__()
        self._codes: list[int] = []

    def read(self, line: str, stream: str) -> tuple[str, str] | None:
        if prefix := self._prefix.match(line):
            text = line[prefix.end() :]
            # "Terminated": the shell of a rank that horovodrun ended after another.
            hidden = text == "Terminated" or (prefix[2] == "stdout" and prefix[1] != "0")
            return None if hidden else (text, prefix[2])
        if match := self._ended.match(line):
            self._codes.append(int(match[1]))
        if match := self._exit.match(line):
            known = [code for code in self._codes if code != self._ssh_broke]
            code = int(match[1])
            self.code = known[0] if code == self._ssh_broke and known else code
            return None
        if self._itself.match(line) or line.startswith("  ") or not line:
            return None
        return line, "stdout"


class Screen:
    """Standard output and error of a launcher, of which nobody may read any more.

    Parameters
    ----------
    closed
        Called once when the reader of a pipe has gone.
    """

    def __init__(self, closed: Callable[[], object]):
        self._closed: Callable[[], object] | None = closed
        self._mute: set[str] = set()

    def show(self, text: str, stream: str) -> None:
        """Print a line on "stdout" or "stderr", if that is still to be had."""
        file = sys.stdout if stream == "stdout" else sys.stderr
        self.attempt(stream, lambda: print(text, file=file, flush=True))

    def attempt(self, stream: str, write: Callable[[], object]) -> None:
        """Call what writes to a stream; from its first fault on nothing is written there."""
        if stream in self._mute:
            return
        try:
            write()
        except OSError as error:
            self._mute.add(stream)
            # Python flushes at its end: what is left then must go somewhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1 if stream == "stdout" else 2)
            os.close(nowhere)
            # A pipe was closed: nobody will see what comes.  A terminal that is gone (EIO) sends
            # SIGHUP to whom it is for, and nohup and setsid ask to go on without it.
            if error.errno == errno.EPIPE and self._closed is not None and hangs_up():
                closed, self._closed = self._closed, None
                closed()


def supervise(command: Sequence[str], environment: Mapping[str, str], reader: Reader) -> int:
    """Run a command in the project's folder to its end; return the exit code of the ranks.

    Ctrl-C, SIGTERM, SIGHUP (unless nohup ignores it) and the end of a pipe's reader are passed on
    by ``reader.stop``; the output is read to its end in any case.  The command gets SIGTERM when
    this process is killed.  On a terminal a progress bar is drawn.
    """
    use_utf8()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        # horovodrun's threads end at a character that its locale lacks, and the ranks then hang.
        env={**environment, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"},
        stdout=subprocess.PIPE,
        stderr=reader.stderr,
        encoding="utf-8",
        errors="replace",
        bufsize=1,
        start_new_session=True,  # Ctrl-C reaches this launcher alone, which passes it on once
        preexec_fn=partial(end_with_parent, signal.SIGTERM, os.getpid()),
    )
    stop = partial(_stop, reader, process)
    asking = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangs_up() else [])]
    for number in asking:
        signal.signal(number, lambda *_: stop())
    screen = Screen(stop)
    bar = Bar(sys.stderr, ROOT) if sys.stderr.isatty() else None
    errors = None
    if process.stderr is not None:
        errors = threading.Thread(
            target=show, args=(process.stderr, "stderr", reader, None, screen)
        )
        errors.start()
    assert process.stdout is not None
    show(process.stdout, "stdout", reader, bar, screen)
    if errors is not None:
        errors.join()
    if bar:
        screen.attempt("stderr", bar.close)
    status = process.wait()
    if status < 0:
        return 128 - status
    return reader.code if status and reader.code is not None else status


def show(
    output: IO[str], stream: str, reader: Reader, bar: Bar | None, screen: Screen | None = None
) -> None:
    """Print what the reader lets through of one stream, up to its end."""
    screen = screen or Screen(lambda: None)
    for line in output:
        shown = reader.read(line.rstrip("\n"), stream)
        if shown is None:
            continue
        text, where = shown
        if bar and where == "stdout":
            screen.attempt("stderr", partial(bar.line, text))
        else:
            screen.show(text, where)


def _stop(reader: Reader, process: subprocess.Popen[str]) -> None:
    """Ask the ranks to stop; kill what starts them if that does not end."""
    reader.stop(process)
    if reader.kill_after_s is not None:
        timer = threading.Timer(reader.kill_after_s, process.kill)
        timer.daemon = True
        timer.start()
