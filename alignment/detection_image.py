# SPDX-License-Identifier: Apache-2.0
"""Shrink a photograph for a face detector; map the detector's points back to the photograph."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

MAX_DETECTION_SIDE = 1280
"""Longest side in pixels of the image that a detector sees; larger photographs are shrunk."""


class DetectionImage(NamedTuple):
    """Image that a detector sees instead of a photograph."""

    pixels: np.ndarray
    """BGR pixels, uint8 (h, w, 3)."""
    factor: np.ndarray
    """Pixels of the photograph per pixel of this image, horizontally and vertically, (2,)."""

    def to_photograph(self, points: np.ndarray) -> np.ndarray:
        """Map P points (x, y), float (P, 2), from this image to the photograph.

        The centres of the pixels, not their corners, have the coordinates 0, 1 and so on.
        """
        return (points + 0.5) * self.factor - 0.5


def make_detection_image(pixels: np.ndarray) -> DetectionImage:
    """Return the image that a detector sees instead of a photograph.

    ``pixels`` are the RGB pixels of the photograph, uint8 (H, W, 3).
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, MAX_DETECTION_SIDE / max(height, width))
    seen = pixels
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        seen = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    factor = np.array([width / seen.shape[1], height / seen.shape[0]])
    return DetectionImage(cv2.cvtColor(seen, cv2.COLOR_RGB2BGR), factor)
