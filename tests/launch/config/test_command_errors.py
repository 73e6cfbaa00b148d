# SPDX-License-Identifier: Apache-2.0
"""Exit codes and messages of commands that fail."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from launch.config.command_errors import run_command


def raise_error(error: BaseException) -> None:
    raise error


def test_the_exit_code_of_the_command_is_returned(capsys):
    assert (run_command(lambda: 2), run_command(lambda: None)) == (2, 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("a: wrong, got\n2"), 2, r"error: a: wrong, got\n2"),
        (OSError("only a text"), 2, "error: only a text"),
        (
            OSError(errno.EACCES, "Permission denied", b"a\nb"),
            2,
            r"error: a\nb: cannot be used, got Permission denied; remove the cause or correct the "
            "path",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: the system refused an operation, got No space left on device; remove the cause",
        ),
        (
            MemoryError(),
            2,
            "error: the memory is exhausted, got no more from the system; end other programs, or "
            "choose smaller inputs",
        ),
        (
            KeyboardInterrupt(),
            130,
            "error: the command was interrupted, got Ctrl-C; repeat the command",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(capsys, error, code, text):
    assert run_command(lambda: raise_error(error)) == code
    assert capsys.readouterr().err == text + "\n"


def test_a_closed_pipe_ends_the_command_without_a_message():
    program = (
        "import sys; from launch.config.command_errors import run_command\n"
        "sys.exit(run_command(lambda: [print('x' * 9999) for _ in range(99)] and 0))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
