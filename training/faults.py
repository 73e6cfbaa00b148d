# SPDX-License-Identifier: Apache-2.0
"""How a run ends before its end, on all ranks at the same step."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """Training that cannot go on; ``usage`` tells a fault of the data or the disk from others."""

    def __init__(self, text: str, usage: bool = False):
        super().__init__(text)
        self.usage = usage


class Stopped(Exception):
    """The run was asked to stop (SIGTERM or SIGINT) and has."""


def one_line(error: Exception) -> str:
    """Return an error as one line.

    MXNet's errors begin with lines like those of a traceback, DALI's end with a stack.
    """
    lines = [line.strip() for line in str(error).partition("Stacktrace (")[0].splitlines()]
    lines = [line for line in lines if line]
    if lines and lines[0].startswith("Traceback"):
        lines = lines[-1:]
    name = type(error).__name__
    return f"{name}: {' '.join(lines).removeprefix(f'{name}: ') or 'no message'}"
