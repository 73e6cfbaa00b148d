# SPDX-License-Identifier: Apache-2.0
"""Fit similarity transforms to points, and warp images with them."""

from __future__ import annotations

import cv2
import numpy as np


def fit_similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the similarity that maps points to their targets with the least squared error.

    A similarity rotates, scales and shifts, and never mirrors.  With points p and targets q as
    complex numbers with mean 0, the rotation and scale are sum(conj(p) q) / sum(|p|^2).  The result
    equals that of Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", 1991, equations 40 to 42, in two dimensions.

    Inputs
    ------
    points, targets
        Points as (x, y), float (P, 2), P at least 2.

    Outputs
    -------
    Matrix, float64 (2, 3), that maps (x, y, 1).

    Raises
    ------
    ValueError
        If all points are equal.
    """
    source = points[:, 0] + 1j * points[:, 1]
    target = targets[:, 0] + 1j * targets[:, 1]
    source_mean, target_mean = source.mean(), target.mean()
    centred = source - source_mean
    spread = float(np.sum(np.abs(centred) ** 2))
    if not spread > 1e-9:
        raise ValueError(
            f"points: must not all be equal, got {points[0].tolist()} {len(points)} times; correct "
            "the points"
        )
    factor = np.vdot(centred, target - target_mean) / spread
    shift = target_mean - factor * source_mean
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (P, 2) by a matrix (2, 3); return float64 (P, 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def scale_of(matrix: np.ndarray) -> float:
    """Return the scale of a similarity (2, 3): pixels of the result per pixel of the source."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def warp(pixels: np.ndarray, matrix: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Warp an image by a similarity, with bilinear interpolation, as InsightFace's norm_crop does.

    Parameters
    ----------
    pixels
        uint8 (H, W, 3).
    matrix
        Similarity from the image to the result, (2, 3).
    image_size
        (height, width) of the result in pixels.

    Outputs
    -------
    uint8 (height, width, 3); pixels from outside the source image are black.
    """
    height, width = image_size
    return cv2.warpAffine(
        pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0)
    )
