# SPDX-License-Identifier: Apache-2.0
"""Exceptions that end a run before its last step, on all ranks at the same step."""

from __future__ import annotations

from launch.ranks.agreement import Leaving


class TrainingError(Leaving):
    """Error after which training cannot continue.

    The exit code is 2 if ``usage`` is True (an error of the data or the disk), else 1.
    """

    def __init__(self, text: str, usage: bool = False):
        super().__init__(text)
        self.usage = usage
        self.exit_code = 2 if usage else 1


class Stopped(Leaving):
    """The run has ended after a stop request (SIGTERM, SIGINT or SIGHUP)."""

    exit_code = 143


def one_line(error: Exception) -> str:
    """Return the message of an error as one line, without the traceback or stack trace in it.

    MXNet's messages begin with a traceback.  DALI's messages end with a stack trace.
    """
    lines = [line.strip() for line in str(error).partition("Stacktrace (")[0].splitlines()]
    lines = [line for line in lines if line]
    if lines and lines[0].startswith("Traceback"):
        lines = lines[-1:]
    return " ".join(lines).removeprefix(f"{type(error).__name__}: ") or "no message"
