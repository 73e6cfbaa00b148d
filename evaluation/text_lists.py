# SPDX-License-Identifier: Apache-2.0
"""Read text files that list one item per line; errors name the file and the line."""

from __future__ import annotations

import math
import os
import stat
import warnings
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

MAX_LINE_BYTES = 4096
MAX_FILE_BYTES = 1 << 30


class ListError(ValueError):
    """A list file cannot be used; the message is one sentence for the user."""


def bad_line(
    path: str | os.PathLike[str], number: int, problem: str, hint: str, *, unit: str = "line"
) -> ListError:
    """Return the error for one line of a list file, or for one entry of a JSON list.

    Parameters
    ----------
    number
        Number of the line or the entry, from 1.
    problem
        Text of the form "<what is wrong>, got <value>".
    hint
        What the user should do.
    unit
        What ``number`` counts: "line" or "entry".
    """
    return ListError(f"{os.fspath(path)}: {unit} {number}: {problem}; {hint}")


def check_file(path: str | os.PathLike[str], max_bytes: int = 0) -> None:
    """Raise ListError unless the path is a regular file of at most `max_bytes` bytes.

    The limit is MAX_FILE_BYTES if `max_bytes` is 0.
    """
    limit = max_bytes or MAX_FILE_BYTES
    try:
        state = os.stat(path)
    except OSError as error:
        raise ListError(
            f"{os.fspath(path)}: the file cannot be read, got {error.strerror!r}; correct the path"
        ) from None
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a special file"
        raise ListError(f"{os.fspath(path)}: must be a file, got {kind}; name a file")
    if state.st_size > limit:
        raise ListError(
            f"{os.fspath(path)}: must have at most {limit} bytes, got {state.st_size}; name a "
            "shorter list"
        )


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield a pair (line number from 1, stripped text) for each non-empty line of a file.

    Raises
    ------
    ListError
        If the file cannot be read, is not UTF-8 text, has a line of more than MAX_LINE_BYTES bytes,
        or has no text at all.
    """
    check_file(path)
    number = count = 0
    try:
        with Path(path).open("rb") as file:
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                text = _decode_line(path, number, data).strip()
                if text:
                    count += 1
                    yield number, text
    except OSError as error:
        raise ListError(
            f"{os.fspath(path)}: the file cannot be read, got {error.strerror!r}; grant read access"
        ) from None
    if not count:
        raise ListError(f"{os.fspath(path)}: the list must not be empty, got 0 lines; fill it")


def _decode_line(path: str | os.PathLike[str], number: int, data: bytes) -> str:
    if len(data) > MAX_LINE_BYTES:
        raise bad_line(
            path, number, f"must have at most {MAX_LINE_BYTES} bytes, got more", "shorten the line"
        )
    try:
        text = data.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise bad_line(
            path,
            number,
            f"must be UTF-8 text, got byte {data[error.start]:#04x}",
            "convert the file to UTF-8",
        ) from None
    if "\0" in text:
        raise bad_line(path, number, "must be text, got a zero byte", "make the file again")
    return text


def read_integers(path: str | os.PathLike[str], columns: Sequence[str]) -> np.ndarray:
    """Read a file with the same number of integers on each line, separated by white space.

    Parameters
    ----------
    columns
        Names of the C columns, for error messages.

    Outputs
    -------
    (number of lines, C) int64.

    Raises
    ------
    ListError
        If the file cannot be read, or a line does not have C integers; the error names the line.
    """
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # For "1.5", for example, NumPy only prints a warning.
            found = np.loadtxt(path, dtype=np.int64, comments=None, ndmin=2, encoding="utf-8")
    except (ValueError, UserWarning, DeprecationWarning):
        found = None
    if found is not None and found.shape[1] == len(columns):
        return found
    # Read the file again line by line: this is slow, but finds the malformed line, and supports a
    # byte order mark.
    values = array("q")
    for number, line in read_lines(path):
        values.extend(parse_integers(path, number, line.split(), columns))
    return np.frombuffer(values, np.int64).reshape(-1, len(columns)).copy()


def parse_integers(
    path: str | os.PathLike[str], number: int, words: Sequence[str], columns: Sequence[str]
) -> list[int]:
    """Convert the words of line `number` to integers, one for each name in `columns`."""
    if len(words) != len(columns):
        raise bad_line(
            path,
            number,
            f"must have {len(columns)} values ({' '.join(columns)}), got {len(words)}",
            "correct the line",
        )
    return [
        parse_integer(path, number, word, column)
        for word, column in zip(words, columns, strict=True)
    ]


def parse_integer(path: str | os.PathLike[str], number: int, word: str, column: str) -> int:
    """Convert one word of line `number` to an integer that fits into 63 bits."""
    digits = word.removeprefix("-").removeprefix("+")
    # isdecimal also accepts digits of other scripts, which numpy.loadtxt refuses.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise bad_line(
            path,
            number,
            f"{column} must be an integer of at most 18 digits, got {word[:40]!r}",
            "correct the line",
        )
    return int(word)


def parse_number(path: str | os.PathLike[str], number: int, word: str, column: str) -> float:
    """Convert one word of line `number` to a finite number."""
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise bad_line(
            path, number, f"{column} must be a finite number, got {word[:40]!r}", "correct the line"
        )
    return value
