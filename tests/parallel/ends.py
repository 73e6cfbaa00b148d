# SPDX-License-Identifier: Apache-2.0
"""Start training under a launcher, end the launcher in some way, and see what is left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.marked_processes import alive
from tests.parallel.ranks import HOROVODRUN, ROOT, TIMEOUT_S

MARK = "TEST_ENDS_MARK"
LAUNCHERS: dict[str, Sequence[str]] = {
    "launch.local": (sys.executable, "-m", "launch.local", "-np", "2"),
    "launch.hosts": (sys.executable, "-m", "launch.hosts", "-H", "localhost:2"),
    "horovodrun": (HOROVODRUN, "-np", "2", sys.executable, str(ROOT / "run_train.py")),
}
ENDS = ("SIGHUP", "SIGKILL", "SIGTERM", "closed pipe", "closed terminal")


class Launched:
    """A launcher that trains, with its output in a file, a pipe or a terminal of its own.

    Parameters
    ----------
    command
        The launcher with all its arguments.
    output
        "file", "pipe" or "terminal".
    environment
        Added to the one of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: str = "file",
        environment: Mapping[str, str] | None = None,
    ):
        self._mark = uuid.uuid4().hex
        self._kept = tempfile.TemporaryFile()
        self.ours = -1
        """Our end of the pipe or the terminal."""
        terminal = output == "terminal"
        theirs = self._kept.fileno()
        if output == "pipe":
            self.ours, theirs = os.pipe()
        elif terminal:
            self.ours, theirs = pty.openpty()
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        variables = {n: v for n, v in variables.items() if not n.startswith("HOROVOD_")}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**variables, MARK: self._mark},
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=partial(_begin, terminal),
        )
        if theirs != self._kept.fileno():
            os.close(theirs)

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        while pids := self.alive():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()
        self._kept.close()
        if self.ours >= 0:
            os.close(self.ours)

    def end(self, how: str) -> None:
        """End the launcher as one of ENDS says."""
        if how.startswith("SIG"):
            self.process.send_signal(signal.Signals[how])
        else:
            os.close(self.ours)
            self.ours = -1

    def said(self) -> str:
        """Return what was written to the file so far."""
        size = os.fstat(self._kept.fileno()).st_size
        return os.pread(self._kept.fileno(), size, 0).decode(errors="replace")

    def until(self, met: Callable[[], Any], what: str) -> Any:
        """Return what ``met`` returns once it is true; AssertionError after a long time."""
        give_up = time.monotonic() + TIMEOUT_S
        while not (found := met()):
            assert time.monotonic() < give_up, f"never: {what}\n{self.said()}"
            self.read_on()
            time.sleep(0.002)
        return found

    def read_on(self) -> None:
        """Read what the launcher wrote to the pipe or the terminal: somebody watches it."""
        if self.ours < 0:
            return
        os.set_blocking(self.ours, False)
        with contextlib.suppress(OSError):
            os.read(self.ours, 1 << 16)

    def until_gone(self) -> float:
        """Wait until nothing that was started here is left; return the seconds that took."""
        begun = time.monotonic()
        self.until(lambda: self.process.poll() is not None and not self.alive(), "all gone")
        return time.monotonic() - begun

    def alive(self) -> list[int]:
        """Return the processes that were started here and have not ended."""
        return alive(MARK, self._mark)


def _begin(terminal: bool) -> None:
    """Prepare the launcher's process: no nohup, whatever the tests run under; its own terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if terminal:  # that of the session: its end sends SIGHUP
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def over_ssh(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return environment and command of launch.hosts with a rank here and one over ssh.

    ssh is a stand-in (fake_ssh.py), put into ``folder``.
    """
    place = folder / "bin" / "ssh"
    place.parent.mkdir(exist_ok=True)
    script = shlex.join([sys.executable, str(Path(__file__).with_name("fake_ssh.py"))])
    place.write_text(f'#!/bin/sh\nexec {script} "$@"\n')
    place.chmod(0o755)
    environment = {"PATH": f"{place.parent}:{os.environ['PATH']}"}
    hosts = ["-H", "localhost:1,127.0.0.2:1", "--network-interface", "lo"]
    return environment, [sys.executable, "-m", "launch.hosts", *hosts]


def output_of(how: str) -> str:
    """Return the kind of output that an end is about."""
    return {"closed pipe": "pipe", "closed terminal": "terminal"}.get(how, "file")
