# SPDX-License-Identifier: Apache-2.0
"""Fit similarity transforms to points, and warp images with them."""

from __future__ import annotations

import cv2
import numpy as np

MAX_WARP_SIDE = (1 << 15) - 2
"""Longest side in pixels of an image that OpenCV can warp."""
_MARGIN_PX = 2


def fit_similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the similarity that maps points to their targets with the least squared error.

    A similarity rotates, scales and shifts, and never mirrors.  With points p and targets q as
    complex numbers with mean 0, rotation and scale are `sum(conj(p) q) / sum(|p|^2)`.  The result
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
    if max(pixels.shape[:2]) > MAX_WARP_SIDE:
        pixels, matrix = _cut_region(pixels, matrix, image_size)
    height, width = image_size
    return cv2.warpAffine(
        pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0)
    )


def _cut_region(
    pixels: np.ndarray, matrix: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut out the part of an image that a warp shows.

    A part with a side above MAX_WARP_SIDE is also shrunk.  Return the part, and the similarity from
    the part to the result of the warp.
    """
    height, width = image_size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=float)
    shown = map_points(cv2.invertAffineTransform(matrix), corners)
    size = np.array(pixels.shape[1::-1])
    # The part has at least one pixel, even if the warp shows only places outside the image.
    start = np.clip(np.floor(shown.min(axis=0)) - _MARGIN_PX, 0, size - 1).astype(int)
    stop = np.clip(np.ceil(shown.max(axis=0)) + _MARGIN_PX, start + 1, size).astype(int)
    part = pixels[start[1] : stop[1], start[0] : stop[0]]
    scale = min(1.0, MAX_WARP_SIDE / max(part.shape[:2]))
    target = np.maximum(1, np.floor((stop - start) * scale)).astype(int)
    factor = (stop - start) / target
    if scale < 1:
        part = cv2.resize(part, target.tolist(), interpolation=cv2.INTER_AREA)
    # Coordinate x in the part is coordinate `(x + 0.5) * factor - 0.5 + start` in the image.
    shift = matrix[:, :2] @ (start + 0.5 * factor - 0.5) + matrix[:, 2]
    return part, np.column_stack([matrix[:, :2] * factor, shift])
