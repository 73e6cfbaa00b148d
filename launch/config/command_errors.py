# SPDX-License-Identifier: Apache-2.0
"""Run a command of a program; report an error by a message on one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from launch.config.printable_text import printable

INPUT_ERROR, INTERRUPTED, OUTPUT_CLOSED = 2, 130, 141


def run_command(command: Callable[[], int | None]) -> int:
    """Call a function that runs a command; return the exit code of the program.

    A ValueError or OSError counts as an error of the input.  Its message is printed on one line of
    stderr.

    Parameters
    ----------
    command
        Function that returns the exit code of the command, or None for the exit code 0.

    Outputs
    -------
    The exit code of the command; INPUT_ERROR after an error of the input or if memory runs out;
    INTERRUPTED after Ctrl-C; OUTPUT_CLOSED if the program that reads the output has ended.
    """
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout again at exit.  On /dev/null that flush cannot fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except (ValueError, OSError) as error:
        print(f"error: {printable(describe_error(error))}", file=sys.stderr)
        return INPUT_ERROR
    except MemoryError:
        print(
            "error: the command needs more memory, got none from the system; end other programs, "
            "or choose smaller inputs",
            file=sys.stderr,
        )
        return INPUT_ERROR
    except KeyboardInterrupt:
        print("error: the command was interrupted, got Ctrl-C; repeat the command", file=sys.stderr)
        return INTERRUPTED


def describe_error(error: ValueError | OSError) -> str:
    """Return the message of an error; for an error of the operating system, name the file."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.filename is None:
        return f"the system refused an operation, got {error.strerror}; remove the cause"
    return (
        f"{os.fsdecode(error.filename)}: cannot be used, got {error.strerror}; remove the cause or "
        "correct the path"
    )
