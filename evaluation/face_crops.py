# SPDX-License-Identifier: Apache-2.0
"""Crop a face from an image: the similarity transform that best maps five landmarks to a template.

Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", 1991.
"""

from __future__ import annotations

import cv2
import numpy as np

TEMPLATE_112 = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.729904, 92.2041),
    ]
)
"""Pixels (x, y) of both eyes, the nose and both corners of the mouth in a crop of 112x112 pixels.

InsightFace's evaluation of IJB-B and IJB-C uses these points.
"""


def crop_face(
    pixels: np.ndarray, landmarks: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray | None:
    """Return the aligned face, uint8 (height, width, 3), or None if all landmarks are one point.

    Parameters
    ----------
    pixels
        Image, uint8 (H, W, 3).
    landmarks
        Pixels (x, y) of both eyes, the nose and both corners of the mouth, (5, 2).
    image_size
        (height, width) of the crop in pixels.  The template is scaled to the height and centred.
    """
    height, width = image_size
    scale = height / 112
    template = TEMPLATE_112 * scale + [(width - 112 * scale) / 2, 0]
    matrix = find_similarity(landmarks, template)
    if matrix is None:
        return None
    return cv2.warpAffine(pixels, matrix, (width, height), borderValue=(0.0,))


def find_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Return the similarity (2, 3) that maps points (K, 2) to points (K, 2) with the least error.

    Complex numbers z = x + iy describe the points, so that a z + b is a similarity: a rotates and
    scales, b moves.  The result is None if all source points are equal.
    """
    one = source[:, 0].astype(np.float64) + 1j * source[:, 1]
    two = target[:, 0].astype(np.float64) + 1j * target[:, 1]
    centred = one - one.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if not spread > 1e-6:
        return None
    a = np.sum(np.conj(centred) * (two - two.mean())) / spread
    b = two.mean() - a * one.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
