# SPDX-License-Identifier: Apache-2.0
"""Crop a face from an image by the five landmarks that the IJB protocols list."""

from __future__ import annotations

import numpy as np

from alignment.similarity import fit_similarity, warp
from alignment.template import target_points


def crop_face(
    pixels: np.ndarray, landmarks: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray | None:
    """Return the aligned face, uint8 (height, width, 3), or None if all landmarks are one point.

    No other face is rejected, because the protocols score every listed face.

    Parameters
    ----------
    pixels
        Image, uint8 (H, W, 3).
    landmarks
        Coordinates (x, y), in pixels, of both eyes, the nose and both corners of the mouth, (5, 2).
    image_size
        (height, width) of the crop in pixels.
    """
    points = landmarks.astype(np.float64)
    if np.ptp(points, axis=0).max() < 1e-3:
        return None
    return warp(pixels, fit_similarity(points, target_points(*image_size)), image_size)
