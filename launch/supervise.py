# SPDX-License-Identifier: Apache-2.0
"""Run the command that starts the ranks; show what a user wants to see and return the run's code.

What the launchers have in common.  They differ in how their output is read: a `Reader` says what
is shown of a line, keeps the exit code that the lines tell of, and knows how to stop the ranks.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from launch.progress import Bar

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, str(ROOT / "run_train.py")]
"""The program of one rank."""


class Reader:
    """Shows every line where it was written: one rank that no launcher started."""

    stderr: int | None = None
    """Where the standard error goes, as Popen takes it; None: nobody reads it on the way."""

    def __init__(self) -> None:
        self.code: int | None = None
        """The exit code of the rank that ended the run, where the output tells it."""

    def read(self, line: str, stream: str) -> tuple[str, str] | None:
        """Return (line, stream) to show, streams being "stdout" and "stderr"; None: nothing."""
        return line, stream

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Ask the ranks to save and to stop."""
        process.send_signal(signal.SIGTERM)


class HorovodrunReader(Reader):
    """Takes horovodrun's prefixes off, keeps rank 0's lines and all errors, drops its traceback."""

    stderr = subprocess.STDOUT  # horovodrun says on its standard output which rank wrote where

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


def supervise(command: Sequence[str], environment: Mapping[str, str], reader: Reader) -> int:
    """Run a command in the project's folder to its end; return the exit code of the ranks.

    Ctrl-C and SIGTERM are passed on by ``reader.stop``.  On a terminal a progress bar is drawn.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=reader.stderr,
        text=True,
        errors="replace",
        bufsize=1,
        start_new_session=True,  # Ctrl-C reaches this launcher alone, which passes it on once
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: reader.stop(process))
    bar = Bar(sys.stderr, ROOT) if sys.stderr.isatty() else None
    errors = None
    if process.stderr is not None:
        errors = threading.Thread(target=show, args=(process.stderr, "stderr", reader, None))
        errors.start()
    assert process.stdout is not None
    show(process.stdout, "stdout", reader, bar)
    if errors is not None:
        errors.join()
    if bar:
        bar.close()
    status = process.wait()
    if status < 0:
        return 128 - status
    return reader.code if status and reader.code is not None else status


def show(output: IO[str], stream: str, reader: Reader, bar: Bar | None) -> None:
    """Print what the reader lets through of one stream, up to its end."""
    for line in output:
        shown = reader.read(line.rstrip("\n"), stream)
        if shown is None:
            continue
        text, where = shown
        if bar and where == "stdout":
            bar.line(text)
        else:
            print(text, file=sys.stdout if where == "stdout" else sys.stderr, flush=True)
