# SPDX-License-Identifier: Apache-2.0
"""Curves of runs, read from the files metrics.jsonl of run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
MAX_FILE_BYTES = 1 << 30
MAX_SHOWN_KEYS = 20


class HistoryError(ValueError):
    """Error for a file of metrics that cannot be used; the message tells the user what to do."""


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl of a run folder; return one dict per line.

    A damaged last line, which a killed run may leave, is left out.

    Raises
    ------
    HistoryError
        If the file cannot be read, or if another line is damaged.
    """
    path = folder / METRICS
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise HistoryError(
            f"{path}: cannot be read, got {error.strerror}; name a run folder"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise HistoryError(
            f"{path}: must have at most {MAX_FILE_BYTES} bytes, got more; name another run folder"
        )
    lines = data.splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise TypeError
        except (ValueError, TypeError, RecursionError):
            if number < len(lines):
                raise HistoryError(
                    f"{path}: line {number}: must be a JSON object, got {line[:60]!r}; restore the "
                    "file"
                ) from None
            continue
        found.append(values)
    return found


def find_curve(
    lines: Sequence[dict[str, Any]], x: str, key: str
) -> tuple[list[float], list[float]]:
    """Return the values of the keys ``x`` and ``key`` in the lines where both are numbers."""
    points = [(line[x], line[key]) for line in lines if _is_number(line, x, key)]
    return [point[0] for point in points], [point[1] for point in points]


def number_keys(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return, sorted, the keys whose value is a number in at least one line."""
    return sorted({key for line in lines for key in line if _is_number(line, key)})


def _is_number(line: dict[str, Any], *keys: str) -> bool:
    values = [line.get(key) for key in keys]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
