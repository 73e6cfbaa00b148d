# SPDX-License-Identifier: Apache-2.0
"""Target points of aligned faces: the five points of InsightFace's template, for any image size."""

from __future__ import annotations

import numpy as np

POINT_NAMES = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
"""Names of the five points in their order; left and right are those of the viewer."""
# Target points of InsightFace for 112x112 pixels (recognition/arcface_mxnet/common/face_align.py).
_POINTS_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
_HEIGHT, _WIDTH, _NARROW_WIDTH = 112, 112, 96


def target_points(height: int, width: int) -> np.ndarray:
    """Return the five points of an aligned face as (x, y) in pixels, float64 (5, 2).

    The points of the 112x112 template are scaled, and stay centred.  For an image of height 112 and
    width 96, the x of each point is 8 pixels less than for 112x112, as in InsightFace's older data.

    Parameters
    ----------
    height, width
        Size of the aligned image in pixels.
    """
    scale = min(height / _HEIGHT, width / _NARROW_WIDTH)
    centre = np.array([_WIDTH / 2, _HEIGHT / 2])
    return (_POINTS_112 - centre) * scale + np.array([width / 2, height / 2])


def eye_distance(points: np.ndarray) -> float:
    """Return the distance of the two eyes among five points (5, 2), in pixels."""
    return float(np.linalg.norm(points[1] - points[0]))
