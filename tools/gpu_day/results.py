# SPDX-License-Identifier: Apache-2.0
"""What steps find out: one JSON object for each part of a step, and one line for each step.

A step writes its parts to a file of its own while it works, so that what was measured before a
fault or the end of its time counts.  Standard library only.
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
    """What a part needs is not here; the message says what."""


class Part(NamedTuple):
    """One thing that a step measures."""

    what: str
    state: str
    """One of STATES."""
    value: Any
    """What was measured; a sentence for the other states."""


class Parts:
    """Writes the parts of a step.

    Parameters
    ----------
    path
        File that they are appended to.
    """

    def __init__(self, path: Path):
        self._path = path
        self.failed = False

    def add(self, what: str, state: str, value: Any) -> None:
        """Write one part, and print it for the log."""
        self.failed |= state == "failed"
        line = json.dumps(Part(what, state, value)._asdict())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def measured(self, what: str, value: Any) -> None:
        """Write a part that was measured."""
        self.add(what, "measured", value)

    def require(self, what: str, holds: bool, value: Any, wrong: str) -> None:
        """Write a part that is measured if something holds, else failed with a sentence."""
        self.add(what, "measured" if holds else "failed", value if holds else wrong)

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Give the parts of a body a name for its faults, which end the body and nothing else."""
        try:
            yield
        except Skipped as reason:
            self.add(what, "skipped", str(reason))
        except Exception as error:
            traceback.print_exc()
            self.add(what, "failed", sentence(error))


def sentence(error: BaseException) -> str:
    """Return an error as one line, without what MXNet and DALI say of their own sources in it."""
    text = " ".join(str(error).partition("Stack trace")[0].split())
    text = re.sub(
        r'^Traceback \(most recent call last\): File "[^"]*", line \d+ (\w+: )?', "", text
    )
    return f"{type(error).__name__}: {text[:300]}"


def read_parts(path: Path) -> list[Part]:
    """Return the parts that a step has written; what cannot be read is a failed part."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        part = _part(line)
        if part is None:
            shown = line[:60].decode(errors="replace")
            part = Part("results", "failed", f"line {number} is no result, got {shown!r}")
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
    """Add the line of a step, in one write that has reached the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> dict[int, dict[str, Any]]:
    """Return the newest line of each step, by its number; lines that are damaged are left out."""
    found = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            found[int(line["step"])] = line
    return dict(sorted(found.items()))
