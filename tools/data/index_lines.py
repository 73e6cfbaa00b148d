# SPDX-License-Identifier: Apache-2.0
"""Read the sound lines of an .idx, and report the other lines as findings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.records.mapped import RecordError
from pipeline.records.recordio import MAGIC, quote_line, read_headers, read_index

if TYPE_CHECKING:
    from tools.data.findings import Findings

_LINE = re.compile(rb"[ \t]*([0-9]{1,19})[ \t]+([0-9]{1,19})\s*")
_MAX_INT64 = (1 << 63) - 1
_MAX_LINE_BYTES = 1 << 10
_MIN_RECORD_BYTES = 32


def read_sound_lines(idx: Path, findings: Findings) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys and offsets of the sound lines of an .idx, int64 (n,) each, sorted by key.

    Damaged lines, blank lines between others, and lines that repeat a key become findings.

    Raises
    ------
    RecordError
        If the file cannot be read or has no sound line.
    """
    try:
        return read_index(idx)
    except RecordError as error:
        lines = dict(_parse_lines(idx, findings, error))
    keys = np.fromiter(lines.keys(), np.int64, len(lines))
    offsets = np.fromiter(lines.values(), np.int64, len(lines))
    order = np.argsort(keys)
    return keys[order], offsets[order]


def _parse_lines(idx: Path, findings: Findings, error: RecordError) -> Iterator[tuple[int, int]]:
    """Yield the key and the offset of each sound line; raise ``error`` if there is none."""
    seen: set[int] = set()
    blank: list[int] = []
    for number, line in _numbered_lines(idx, error):
        if not line.strip():
            blank.append(number)
            continue
        for earlier in blank:  # only now, because blank lines at the end of the file are harmless
            findings.add("index", None, f"line {earlier} is blank")
        blank.clear()
        found = _LINE.fullmatch(line)
        key, offset = (int(digits) for digits in found.groups()) if found else (-1, -1)
        if not found:
            findings.add(
                "index",
                None,
                f"line {number} is not a key, a tab and an offset: {quote_line(line)}",
            )
        elif max(key, offset) > _MAX_INT64:
            findings.add("index", None, f"line {number} has a number above {_MAX_INT64}")
        elif key in seen:
            findings.add("index", key, f"line {number} repeats the key {key}")
        else:
            seen.add(key)
            yield key, offset
    if not seen:
        raise error


def _numbered_lines(idx: Path, error: RecordError) -> Iterator[tuple[int, bytes]]:
    """Yield pairs (number from 1, line); a line of more than 1 KiB is yielded in several parts."""
    try:
        with idx.open("rb") as file:
            number = 1
            while line := file.readline(_MAX_LINE_BYTES):
                yield number, line
                number += line.endswith(b"\n")
    except OSError:
        raise error from None


def find_records(
    data: np.ndarray, keys: np.ndarray, offsets: np.ndarray, findings: Findings
) -> np.ndarray:
    """Return the indices in ``offsets`` of the offsets at which a record starts, int64 (m,).

    Lines of the .idx that name no record become findings.  If several lines name the same record,
    all of them except the one with the smallest key become findings, and are left out.

    Parameters
    ----------
    data
        Bytes of the .rec, uint8 (n,).
    keys, offsets
        Lines of the .idx, int64 (k,) each, sorted by key.
    """
    inside = np.flatnonzero(offsets <= len(data) - _MIN_RECORD_BYTES)
    for row in np.flatnonzero(offsets > len(data) - _MIN_RECORD_BYTES).tolist():
        findings.add(
            "index",
            int(keys[row]),
            f"its line names the offset {offsets[row]}, but the .rec has {len(data)} bytes",
        )
    magic = read_headers(data, offsets[inside]).magic
    for row in inside[magic != MAGIC].tolist():
        findings.add(
            "index", int(keys[row]), f"no record starts at the offset {offsets[row]} of its line"
        )
    rows = inside[magic == MAGIC]
    order = rows[np.argsort(offsets[rows], kind="stable")]
    repeated = np.flatnonzero(offsets[order[1:]] == offsets[order[:-1]]) + 1
    for place in repeated.tolist():
        findings.add(
            "index",
            int(keys[order[place]]),
            f"its line names the same record as the line of key {keys[order[place - 1]]}",
        )
    return np.sort(np.delete(order, repeated))
