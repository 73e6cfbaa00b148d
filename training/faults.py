# SPDX-License-Identifier: Apache-2.0
"""Ends of a run before its last step, on all ranks at the same step."""

from __future__ import annotations

from launch.ranks.agreement import Leaving


class TrainingError(Leaving):
    """Training that cannot continue; ``usage``: for a fault of the data or the disk."""

    def __init__(self, text: str, usage: bool = False):
        super().__init__(text)
        self.usage = usage
        self.exit_code = 2 if usage else 1


class Stopped(Leaving):
    """The run was asked to stop (SIGTERM or SIGINT) and has."""

    exit_code = 143


def one_line(error: Exception) -> str:
    """Return the message of an error as one line.

    MXNet's errors begin with lines like those of a traceback, DALI's end with a stack.
    """
    lines = [line.strip() for line in str(error).partition("Stacktrace (")[0].splitlines()]
    lines = [line for line in lines if line]
    if lines and lines[0].startswith("Traceback"):
        lines = lines[-1:]
    return " ".join(lines).removeprefix(f"{type(error).__name__}: ") or "no message"
