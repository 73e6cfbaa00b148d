# SPDX-License-Identifier: Apache-2.0
"""The output of a rank: kept in train.log, never waited for, and never outlived by its reader.

``attach`` starts the rank's companion (launch/ranks/companion.py), which takes what the rank
and its libraries write from then on.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from launch.ranks.companion import LAUNCHERS_ENCODING
from launch.ranks.lifeline import chain_of

COMPANION = Path(__file__).with_name("companion.py")
WAIT_S = 6.0  # for the companion, which gives up sooner


class Output:
    """Standard output and error of this process, which go through its companion.

    Parameters
    ----------
    process
        The companion.
    control
        Pipe to it.
    originals
        Descriptors of what standard output and error were before.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: int, originals: tuple[int, int]):
        self._process, self._control, self._originals = process, control, originals
        atexit.register(self.close)

    def keep_in(self, folder: Path) -> None:
        """Have the log kept in a run folder; what was written before moves there."""
        with contextlib.suppress(BrokenPipeError):  # the companion was killed
            os.write(self._control, os.fsencode(folder.absolute()) + b"\0")

    def close(self) -> None:
        """Take the output back once the companion has passed on what was written."""
        atexit.unregister(self.close)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, original in enumerate(self._originals, 1):
            os.dup2(original, number)
            os.close(original)
        os.close(self._control)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(WAIT_S)


def attach() -> Output | None:
    """Send the output of this process through a companion; None where that cannot be started.

    Call it before anything starts threads or takes long: from here on the process ends when its
    launcher does.
    """
    if sys.getfilesystemencoding() != "utf-8":
        # Names of files and what YAML says are UTF-8, and a locale that lacks a character of them
        # must not end the run.  Only a new start of Python can change that.
        environment = {**os.environ, "PYTHONUTF8": "1", LAUNCHERS_ENCODING: sys.stdout.encoding}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    use_utf8()
    chain = chain_of(os.getpid())  # before anything else: it can be told only while it is there
    reading, writing = zip(os.pipe(), os.pipe(), os.pipe(), strict=True)
    try:
        process = subprocess.Popen(
            [sys.executable, "-S", COMPANION, *map(str, (os.getpid(), *reading, chain))],
            stdin=subprocess.DEVNULL,
            pass_fds=reading,
            start_new_session=True,  # a signal to the rank's group is not for the companion
        )
    except OSError as error:
        for descriptor in (*reading, *writing):
            os.close(descriptor)
        print(f"run_train: the output is not kept, got {error.strerror}", file=sys.stderr)
        return None
    for descriptor in reading:
        os.close(descriptor)
    stdout, stderr, control = writing
    originals = os.dup(1), os.dup(2)
    for number, descriptor in ((1, stdout), (2, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return Output(process, control, originals)


def use_utf8() -> None:
    """Write UTF-8 whatever the locale; what no encoding has is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
