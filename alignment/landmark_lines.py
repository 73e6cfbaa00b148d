# SPDX-License-Identifier: Apache-2.0
"""Parse lines that give the five points of the face in an image file.

A line has one of three layouts:

- ``path x1 y1 ... x5 y5``, separated by blanks, tabs or commas
- ``aligned path label left top right bottom x1 ... x5 y1 ... y5``, separated by tabs: the .lst
  files of InsightFace's face2rec2.py.  ``aligned`` is 1 for an aligned image, else 0.  A line may
  end after ``label`` or after ``bottom``, and then gives no points.
- ``path label x1 y1 ... x5 y5``, separated by tabs: the _lmk.txt files of RFW
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_PLAIN = re.compile(rf"(\S.*?)[\s,]+({_NUMBER}(?:[\s,]+{_NUMBER}){{9}})[\s,]*")
_FLOAT = re.compile(_NUMBER)
_LST_FIELDS, _LST_BOX_FIELDS, _RFW_FIELDS = 17, (3, 7), 12


class PointsLine(NamedTuple):
    """Content of one line."""

    path: str
    points: np.ndarray | None
    """Five points as (x, y) in pixels, float64 (5, 2); None if the line gives no points."""


def parse_line(line: str) -> PointsLine | None:
    """Return the path and points of a line, or None if the line has none of the layouts."""
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) > 2 and fields[0] in ("0", "1") and not _FLOAT.fullmatch(fields[1]):
        return parse_list_fields(fields)
    if len(fields) == _RFW_FIELDS and not _FLOAT.fullmatch(fields[0]):
        values = _numbers(fields[2:])
        if values is not None:
            return PointsLine(fields[0], values.reshape(5, 2))
    match = _PLAIN.fullmatch(line.strip())
    if match is None:
        return None
    values = _numbers(re.split(r"[\s,]+", match[2].strip()))
    return None if values is None else PointsLine(match[1].strip().strip('"'), values.reshape(5, 2))


def parse_list_fields(fields: list[str]) -> PointsLine | None:
    """Return the path and points of a line of InsightFace's .lst.

    Parameters
    ----------
    fields
        Fields of the line, split at tabs and stripped of blanks.

    Outputs
    -------
    Path and points of a line with 17 fields; only the path of a line with 3 or 7 fields.  None: the
    line has another number of fields, or a coordinate is not a number.
    """
    if len(fields) in _LST_BOX_FIELDS:
        return PointsLine(fields[1], None)
    values = _numbers(fields[7:]) if len(fields) == _LST_FIELDS else None
    return None if values is None else PointsLine(fields[1], values.reshape(2, 5).T)


def _numbers(texts: list[str]) -> np.ndarray | None:
    if not all(_FLOAT.fullmatch(text) for text in texts):
        return None
    return np.array([float(text) for text in texts])
