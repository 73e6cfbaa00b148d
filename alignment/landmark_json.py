# SPDX-License-Identifier: Apache-2.0
"""Read the five points of faces from JSON documents.

A document has one of two layouts.  The first is an object {path: face or list of faces}.  The
second is a list of objects.  Each of them has a path (key "path", "file", "image", "name",
"filename" or "file_name") and a face or list of faces (key "points", "landmarks", "landmark",
"keypoints" or "kps").

A face is a list of ten numbers (x1, y1, ..., x5, y5), a list of five pairs (x, y), or an object.
The object holds such a list under one of the keys for points, or has the keys of MTCNN
("left_eye", "right_eye", "nose", "mouth_left", "mouth_right").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_PATH_KEYS = ("path", "file", "image", "name", "filename", "file_name")
_POINTS_KEYS = ("points", "landmarks", "landmark", "keypoints", "kps")
_MTCNN_KEYS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


class LayoutError(ValueError):
    """Error for an unknown layout of a document; the message is "<where> must ..., got <value>"."""


def faces_of_document(document: Any) -> Iterator[tuple[str, np.ndarray | None]]:
    """Yield the path and the points (5, 2) of each face of a document.

    The points are None for an image whose list of faces is empty.

    Raises
    ------
    LayoutError
        If the layout of the document is unknown.
    """
    if isinstance(document, dict):
        for path, value in document.items():
            yield from _faces(path, value)
    elif isinstance(document, list):
        for number, entry in enumerate(document):
            path, value = _entry(number, entry)
            yield from _faces(path, value)
    else:
        raise LayoutError(
            f"the document must be an object or a list, got {type(document).__name__}"
        )


def _entry(number: int, entry: Any) -> tuple[str, Any]:
    if isinstance(entry, dict):
        path = next((entry[key] for key in _PATH_KEYS if key in entry), None)
        value = next((entry[key] for key in _POINTS_KEYS if key in entry), None)
        if isinstance(path, str) and value is not None:
            return path, value
    raise LayoutError(
        f"entry {number} must be an object with a path ({', '.join(_PATH_KEYS)}) and points "
        f"({', '.join(_POINTS_KEYS)}), got {str(entry)[:80]}"
    )


def _faces(path: str, value: Any) -> Iterator[tuple[str, np.ndarray | None]]:
    points = _points(value)
    if points is not None:
        yield path, points
        return
    if not isinstance(value, list):
        raise _wrong_points(path, value)
    if not value:
        yield path, None  # the detector has found no face
    for face in value:
        if isinstance(face, dict):
            face = next((face[key] for key in _POINTS_KEYS if key in face), face)
        points = _points(face)
        if points is None:
            raise _wrong_points(path, face)
        yield path, points


def _wrong_points(path: str, value: Any) -> LayoutError:
    return LayoutError(
        f"{path!r} must have five points, or a list of faces with five points each, got "
        f"{str(value)[:80]}"
    )


def _points(value: Any) -> np.ndarray | None:
    """Return the five points (5, 2) of a value, or None if the value is not one face."""
    # Some detectors write a face as an object, which may also hold a box and a score.
    if isinstance(value, dict):
        value = next((value[key] for key in _POINTS_KEYS if key in value), value)
    if isinstance(value, dict):
        value = [value[key] for key in _MTCNN_KEYS if key in value]
    if not isinstance(value, list) or len(value) not in (5, 10):
        return None
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        return None
    return array.reshape(5, 2) if array.shape in ((10,), (5, 2)) else None
