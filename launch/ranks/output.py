# SPDX-License-Identifier: Apache-2.0
"""Redirect the output of a rank through a companion process.

`attach_companion` starts the companion (launch/ranks/companion.py).  The companion receives all
output of the rank and its libraries, appends the output to train.log and forwards the output to the
original standard output and error.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import io
import os
import subprocess
import sys
from pathlib import Path

from launch.environment.open_files import OpenFilesError, require_open_files
from launch.ranks.companion import LAUNCHER_ENCODING_VARIABLE
from launch.ranks.lifeline import find_chain

COMPANION = Path(__file__).with_name("companion.py")
COMPANION_TIMEOUT_S = 6.0
"""Seconds to wait for the end of the companion; more than FLUSH_TIMEOUT_S of the companion."""


class Output:
    """Standard output and error of this process, redirected through its companion process.

    Parameters
    ----------
    process
        The companion process.
    control
        File descriptor of the control pipe to the companion.
    originals
        File descriptors of the original standard output and error.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: int, originals: tuple[int, int]):
        self._process, self._control, self._originals = process, control, originals
        atexit.register(self.close)

    def log_to(self, folder: Path) -> None:
        """Write the log to a run folder from now on, and move the earlier output there."""
        with contextlib.suppress(BrokenPipeError):  # the companion may have been killed
            os.write(self._control, os.fsencode(folder.absolute()) + b"\0")

    def close(self) -> None:
        """Restore the original output and wait until the companion has forwarded everything."""
        atexit.unregister(self.close)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, original in enumerate(self._originals, 1):
            os.dup2(original, number)
            os.close(original)
        os.close(self._control)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(COMPANION_TIMEOUT_S)


def attach_companion() -> Output | None:
    """Redirect the output of this process through a companion process.

    Return None if the companion cannot be started.  The companion also ends this process when the
    launcher ends.  Call this function early, before any thread starts.  The process exits with
    code 2 if its limit on open files is too low.
    """
    if sys.getfilesystemencoding() != "utf-8":
        # File names and YAML files are UTF-8.  With another encoding, some names would raise
        # UnicodeEncodeError.  Python can switch to UTF-8 only by restarting.
        encoding = {LAUNCHER_ENCODING_VARIABLE: sys.stdout.encoding}
        environment = {**os.environ, "PYTHONUTF8": "1", **encoding}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    use_utf8()
    try:
        require_open_files()
    except OpenFilesError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    chain = find_chain(os.getpid())  # now, while the launcher still exists
    reading, writing = zip(os.pipe(), os.pipe(), os.pipe(), strict=True)
    try:
        process = subprocess.Popen(
            [sys.executable, "-S", COMPANION, *map(str, (os.getpid(), *reading, chain))],
            stdin=subprocess.DEVNULL,
            pass_fds=reading,
            start_new_session=True,  # else signals to the rank's group reach the companion
        )
    except OSError as error:
        for descriptor in (*reading, *writing):
            os.close(descriptor)
        print(f"run_train: train.log cannot be written, got {error.strerror}", file=sys.stderr)
        return None
    for descriptor in reading:
        os.close(descriptor)
    stdout, stderr, control = writing
    originals = os.dup(1), os.dup(2)
    for number, descriptor in ((1, stdout), (2, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Python prints its stack when this process crashes.  The handler of mxnet, which would be set
    # otherwise, may hang.
    faulthandler.enable()
    return Output(process, control, originals)


def use_utf8() -> None:
    """Encode standard output and error as UTF-8 in any locale; write lone surrogates as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
