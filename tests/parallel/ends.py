# SPDX-License-Identifier: Apache-2.0
"""Helpers that start a launcher, end it in several ways, and look for remaining processes."""

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


class LauncherProcess:
    """Launcher whose output goes to a file, a pipe or a new terminal.

    Parameters
    ----------
    command
        Command line of the launcher.
    output
        "file", "pipe" or "terminal".
    environment
        Variables added to the environment of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: str = "file",
        environment: Mapping[str, str] | None = None,
    ):
        self._mark = uuid.uuid4().hex
        self._output_file = tempfile.TemporaryFile()
        self.reader = -1
        """File descriptor that reads the pipe or the terminal; -1 without one."""
        terminal = output == "terminal"
        writer = self._output_file.fileno()
        if output == "pipe":
            self.reader, writer = os.pipe()
        elif terminal:
            self.reader, writer = pty.openpty()
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        variables = {n: v for n, v in variables.items() if not n.startswith("HOROVOD_")}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**variables, MARK: self._mark},
            stdin=writer if terminal else subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
            preexec_fn=partial(_prepare_process, terminal),
        )
        if writer != self._output_file.fileno():
            os.close(writer)

    def __enter__(self) -> LauncherProcess:
        return self

    def __exit__(self, *_: object) -> None:
        while pids := self.alive():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()
        self._output_file.close()
        if self.reader >= 0:
            os.close(self.reader)

    def end(self, how: str) -> None:
        """End the launcher in one of the ways in ``ENDS``."""
        if how.startswith("SIG"):
            self.process.send_signal(signal.Signals[how])
        else:
            os.close(self.reader)
            self.reader = -1

    def output(self) -> str:
        """Return the content of the output file so far."""
        size = os.fstat(self._output_file.fileno()).st_size
        return os.pread(self._output_file.fileno(), size, 0).decode(errors="replace")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until ``condition`` returns a true value; raise AssertionError after the timeout.

        ``what`` describes the condition in the message.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"timeout: {what}\n{self.output()}"
            self.drain()
            time.sleep(0.01)
        return value

    def drain(self) -> None:
        """Read the available output from the pipe or the terminal, as a user's terminal does."""
        if self.reader < 0:
            return
        os.set_blocking(self.reader, False)
        with contextlib.suppress(OSError):
            os.read(self.reader, 1 << 16)

    def until_gone(self) -> float:
        """Wait until all processes of the launcher have ended; return the wait in seconds."""
        start = time.monotonic()
        self.until(lambda: self.process.poll() is not None and not self.alive(), "all ended")
        return time.monotonic() - start

    def alive(self) -> list[int]:
        """Return the ids of the launcher's running processes."""
        return alive(MARK, self._mark)


def _prepare_process(terminal: bool) -> None:
    """Restore the default action of SIGHUP, which nohup disables; set the controlling terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if terminal:  # a controlling terminal sends SIGHUP when it closes
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def over_ssh(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return environment and command of launch.hosts with a local rank and a rank over ssh.

    ``folder`` gets a stand-in for ssh (fake_ssh.py).
    """
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir(exist_ok=True)
    script = shlex.join([sys.executable, str(Path(__file__).with_name("fake_ssh.py"))])
    ssh.write_text(f'#!/bin/sh\nexec {script} "$@"\n')
    ssh.chmod(0o755)
    environment = {"PATH": f"{ssh.parent}:{os.environ['PATH']}"}
    hosts = ["-H", "localhost:1,127.0.0.2:1", "--network-interface", "lo"]
    return environment, [sys.executable, "-m", "launch.hosts", *hosts]


def output_of(how: str) -> str:
    """Return the kind of output that a way to end the launcher needs."""
    return {"closed pipe": "pipe", "closed terminal": "terminal"}.get(how, "file")
