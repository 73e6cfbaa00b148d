# SPDX-License-Identifier: Apache-2.0
"""Read the five points of faces from a file, and find them by the path of an image."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from alignment.landmark_json import LayoutError, faces_of_document
from alignment.landmark_lines import parse_line

MAX_FILE_BYTES = 1 << 32
MAX_LINE_BYTES = 1 << 16
MAX_HEADER_LINES = 2
"""Largest number of lines without points, such as column names, before the first with points."""
MAX_COORDINATE_PX = 1e6

Key = tuple[str, ...]


class Landmarks:
    """Points of the faces of image files.

    The file lists points by path.  A listed path matches the path of an image if the path of the
    image ends with all components of the listed path.  If there is no such listed path, a
    listed path with the same last two components matches, provided that it is the only one:
    ``test/data/Asian/m.1/m.1_0001.jpg`` gives the points of ``/faces/Asian/m.1/m.1_0001.jpg``.

    Parameters
    ----------
    path
        Path of the file with the points, for error messages.
    """

    def __init__(self, path: str):
        self.path = path
        self._rows: dict[Key, list[int]] = {}
        self._tails: dict[Key, Key | None] = {}
        self._points: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, path: str, points: np.ndarray | None) -> None:
        """Add the points (5, 2) of a face in the image ``path``; None if the image has none."""
        key = _key(path)
        if key not in self._rows:
            self._rows[key] = []
            tail = key[-2:]
            self._tails[tail] = key if self._tails.get(tail, key) == key else None
        if points is not None:
            self._rows[key].append(len(self._points))
            self._points.append(points.astype(np.float32))

    @property
    def has_points(self) -> bool:
        """Whether a face with points has been added."""
        return bool(self._points)

    def find(self, path: str | os.PathLike[str]) -> list[np.ndarray] | None:
        """Return the points (5, 2) of each face of an image; None if no listed path matches."""
        key = _key(os.fspath(path))
        for start in range(len(key)):
            if key[start:] in self._rows:
                return self._faces(key[start:])
        longer = self._tails.get(key[-2:]) if len(key) > 1 else None
        return None if longer is None else self._faces(longer)

    def _faces(self, key: Key) -> list[np.ndarray]:
        return [self._points[row].astype(np.float64) for row in self._rows[key]]


def _key(path: str) -> Key:
    parts = PurePath(path.replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", ".", "..", "//"))


def read_landmarks(path: str | os.PathLike[str]) -> Landmarks:
    """Read the points of faces from a text file or a JSON file.

    `landmark_lines` and `landmark_json` describe the layouts.  A file whose first character is
    ``{`` or ``[`` is JSON.

    Raises
    ------
    ValueError
        If the file cannot be read, has none of these layouts, gives no points, or has a coordinate
        that is not finite or is larger than MAX_COORDINATE_PX.
    """
    landmarks = Landmarks(str(path))
    faces = _json_faces(path) if _is_json(path) else _line_faces(path)
    for where, name, points in faces:
        if points is not None and not (np.abs(points) <= MAX_COORDINATE_PX).all():
            raise ValueError(
                f"{path}: {where}: the coordinates must be numbers of at most "
                f"{MAX_COORDINATE_PX:.0f} pixels, got {points.ravel().tolist()}; correct the file"
            )
        landmarks.add(name, points)
    if not landmarks.has_points:
        raise ValueError(
            f"{path}: must give five points of at least one image, got none; write a line per "
            "image: its path and ten numbers"
        )
    return landmarks


def _is_json(path: str | os.PathLike[str]) -> bool:
    """Check that the file can be read; return whether it is JSON."""
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a special file"
            raise ValueError(f"{path}: must be a file with points, got {kind}; name the file")
        if state.st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"{path}: must have at most {MAX_FILE_BYTES} bytes, got {state.st_size}; split the "
                "file"
            )
        with open(path, "rb") as file:
            return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read as points of faces, got {error.strerror!r}; give a file that "
            "contains face points"
        ) from None


def _json_faces(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, np.ndarray | None]]:
    try:
        document = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
        for name, points in faces_of_document(document):
            yield repr(name), name, points
    except LayoutError as error:
        raise ValueError(f"{path}: {error}; correct the file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path}: must be a JSON document, got {error}; correct the file"
        ) from None


def _line_faces(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, np.ndarray | None]]:
    found = skipped = 0
    for number, line in _lines(path):
        parsed = parse_line(line)
        if parsed is not None and parsed.path:
            found += 1
            yield f"line {number}", parsed.path, parsed.points
        elif not found and skipped < MAX_HEADER_LINES:
            skipped += 1
        else:
            raise ValueError(
                f"{path}: line {number}: must be a path and ten numbers, or a line of "
                f"InsightFace's .lst or of RFW's _lmk.txt, got {line[:80]!r}; correct the file"
            )


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line that is neither blank nor a comment."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline=None) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(line) == MAX_LINE_BYTES:
                raise ValueError(
                    f"{path}: line {number}: must have fewer than {MAX_LINE_BYTES} characters, got "
                    "more; name a file with points"
                )
            text = line.strip()
            if text and not text.startswith("#"):
                yield number, line.rstrip("\n")
