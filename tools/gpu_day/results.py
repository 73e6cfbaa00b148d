# SPDX-License-Identifier: Apache-2.0
"""Write and read the results of GPU measurements: a JSON line per step and per part of a step.

A step appends each part to a file as soon as the part is measured, so that no part is lost if the
step fails or exceeds its time limit later.  The module imports only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

STATES = ("measured", "failed", "skipped")


class Skipped(Exception):
    """A part of a measurement cannot run on this machine; the message is the reason."""


class Part(NamedTuple):
    """Result of one part of a measurement step."""

    what: str
    state: str
    """One of STATES."""
    value: Any
    """Measured value, or a sentence if the state is "failed" or "skipped"."""


class Parts:
    """Writer of the results of a measurement step, one line per part of the step.

    Parameters
    ----------
    path
        File to which the lines are appended.
    """

    def __init__(self, path: Path):
        self._path = path
        self.failed = False

    def add(self, what: str, state: str, value: Any) -> None:
        """Append the result of one part to the file, and print the result to the log."""
        self.failed |= state == "failed"
        line = json.dumps(Part(what, state, value)._asdict())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def measured(self, what: str, value: Any) -> None:
        """Record a part of the step as measured, with the measured value."""
        self.add(what, "measured", value)

    def require(self, what: str, holds: bool, value: Any, wrong: str) -> None:
        """Record a part as measured if `holds` is true, else as failed with the text `wrong`."""
        self.add(what, "measured" if holds else "failed", value if holds else wrong)

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Return a context manager that records an exception in its body as a failed part.

        The exception `Skipped` is recorded as a skipped part.
        """
        try:
            yield
        except Skipped as reason:
            self.add(what, "skipped", str(reason))
        except Exception as error:
            traceback.print_exc()
            self.add(what, "failed", sentence(error))


def sentence(error: BaseException) -> str:
    """Format an error as one line, without the stack traces of MXNet and DALI."""
    text = " ".join(str(error).partition("Stack trace")[0].split())
    text = re.sub(
        r'^Traceback \(most recent call last\): File "[^"]*", line \d+ (\w+: )?', "", text
    )
    return f"{type(error).__name__}: {text[:300]}"


def read_parts(path: Path) -> list[Part]:
    """Read the results of the parts of a step; a damaged line of the file gives a failed part."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        part = _part(line)
        if part is None:
            shown = line[:60].decode(errors="replace")
            part = Part(
                "results", "failed", f"line {number} of the file is not a result, got {shown!r}"
            )
        found.append(part)
    return found


def _part(line: bytes) -> Part | None:
    try:
        values = json.loads(line)
        part = Part(values["what"], values["state"], values["value"])
    except (ValueError, KeyError, TypeError):
        return None
    return part if isinstance(part.what, str) and part.state in STATES else None


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append the result line of a step to a file, and flush the file to disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> dict[int, dict[str, Any]]:
    """Read the newest result line of each step, by step number; skip damaged lines."""
    found = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            found[int(line["step"])] = line
    return dict(sorted(found.items()))
