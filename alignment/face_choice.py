# SPDX-License-Identifier: Apache-2.0
"""Describe the faces of a photograph, and choose the face to align."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Face(NamedTuple):
    """Face in a photograph."""

    box: np.ndarray
    """Left, top, right and bottom in pixels, float64 (4,)."""
    points: np.ndarray
    """Five points as (x, y) in pixels, float64 (5, 2), in the order of `template.POINT_NAMES`."""
    score: float
    """Confidence of the detector, 0 to 1; 1 for points that do not come from a detector."""


def face_of_points(points: np.ndarray) -> Face:
    """Return the face of five given points; its box is the bounding box of the points."""
    return Face(np.concatenate([points.min(axis=0), points.max(axis=0)]), points, 1.0)


def choose_face(faces: Sequence[Face], image_size: tuple[int, int]) -> Face:
    """Return the main face of a photograph.

    The weight of a face is the area of its box, minus twice the squared distance between the centre
    of the box and the centre of the photograph.  The main face is the face with the largest weight.
    InsightFace chooses the face of a verification image by the same rule.

    Parameters
    ----------
    faces
        At least one face.
    image_size
        (height, width) of the photograph in pixels.
    """
    centre = np.array([image_size[1], image_size[0]]) / 2

    def weight(face: Face) -> float:
        width, height = face.box[2:] - face.box[:2]
        offset = (face.box[:2] + face.box[2:]) / 2 - centre
        return float(width * height - 2 * (offset @ offset))

    return max(faces, key=weight)
