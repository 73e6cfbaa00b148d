# SPDX-License-Identifier: Apache-2.0
"""Draw shapes on a head: bend them over its surface, rotate them and project them to pixels.

Coordinates are in face units: x points right, y points down, (0, 0) lies between eyes and nose, and
half the height of a head is about 1.  The canvas has SUPERSAMPLE times the height and the width of
the final image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from tools.sample_faces.shots import Shot

IMAGE_SIZE = 112
SUPERSAMPLE = 2
# Distance in face units between the front of the face and the plane of the head's outline.
HEAD_DEPTH = 0.75
_SUBPIXEL_BITS = 4


class Canvas:
    """RGB image to draw on, with the position, the size and the pose of the head in this image."""

    def __init__(self, shot: Shot) -> None:
        side = IMAGE_SIZE * SUPERSAMPLE
        self.image: np.ndarray = np.empty((side, side, 3), np.uint8)
        self.unit = shot.scale * SUPERSAMPLE
        self._centre = np.array(shot.centre) * SUPERSAMPLE
        self._sin = np.sin([shot.yaw, shot.pitch, shot.roll])
        self._cos = np.cos([shot.yaw, shot.pitch, shot.roll])
        self._sign = -1.0 if shot.mirrored else 1.0

    def project(self, points: ArrayLike, lift: float | None = 0.0) -> np.ndarray:
        """Project points on the face to pixels of the canvas.

        Parameters
        ----------
        points
            Coordinates (x, y) of N points in face units, (N, 2).
        lift
            Height above the skin in face units; None means the plane of the head's outline.

        Outputs
        -------
        Coordinates (x, y) of the N points in pixels of the canvas, (N, 2) float.
        """
        points = np.asarray(points, np.float64)
        x, y = points[:, 0] * self._sign, points[:, 1]
        if lift is None:
            z = np.zeros(len(points))
        else:
            bulge = np.clip(1.0 - (x / 0.95) ** 2 - (y / 1.35) ** 2, 0.0, 1.0)
            z = HEAD_DEPTH * np.sqrt(bulge) + lift
        (sin_yaw, sin_pitch, sin_roll), (cos_yaw, cos_pitch, cos_roll) = self._sin, self._cos
        x, z = x * cos_yaw + z * sin_yaw, z * cos_yaw - x * sin_yaw
        y, z = y * cos_pitch - z * sin_pitch, z * cos_pitch + y * sin_pitch
        near = 1.0 + 0.12 * z  # perspective
        x, y = x * near, y * near
        turned = np.stack([x * cos_roll - y * sin_roll, x * sin_roll + y * cos_roll], 1)
        return turned * self.unit + self._centre

    def fill(self, points: ArrayLike, colour: ArrayLike, lift: float | None = 0.0) -> None:
        """Fill a polygon with a colour; the corners are in face units."""
        fill_pixels(self.image, self.project(points, lift), colour)

    def line(
        self, points: ArrayLike, colour: ArrayLike, width: float, lift: float | None = 0.0
    ) -> None:
        """Draw an open curve; the points and the width are in face units."""
        pixels = _fixed_point(self.project(points, lift))
        thickness = max(1, round(width * self.unit))
        cv2.polylines(
            self.image, [pixels], False, rgb(colour), thickness, cv2.LINE_AA, _SUBPIXEL_BITS
        )

    def dot(self, x: float, y: float, radius: float, colour: ArrayLike) -> None:
        """Draw a disc on the skin; the centre and the radius are in face units."""
        self.fill(ellipse(x, y, radius, radius, 10), colour)

    def soften(self, points: ArrayLike, colour: ArrayLike, strength: float, blur: float) -> None:
        """Blend a polygon with blurred edges into the image.

        Corners and blur are in face units.  ``strength`` is the opacity inside the polygon, 0 to 1.
        """
        pixels = self.project(points)
        margin = 2.0 * blur * self.unit + 2.0
        side = len(self.image)
        low = np.clip(pixels.min(0) - margin, 0, side - 1).astype(int)
        high = np.clip(pixels.max(0) + margin, 1, side).astype(int)
        if (high - low < 2).any():
            return
        mask: np.ndarray = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(mask, [_fixed_point(pixels - low)], (255,), cv2.LINE_AA, _SUBPIXEL_BITS)
        width = 2 * int(blur * self.unit) + 1
        mask = cv2.blur(cv2.blur(mask, (width, width)), (width, width))
        region = self.image[low[1] : high[1], low[0] : high[0]]
        weight = mask[..., None] * np.float32(strength / 255.0)
        region[:] = (region + (np.asarray(colour, np.float32) - region) * weight).astype(np.uint8)


def fill_pixels(image: np.ndarray, pixels: np.ndarray, colour: ArrayLike) -> None:
    """Fill a polygon of an image with a colour; the corners are in pixels."""
    cv2.fillPoly(image, [_fixed_point(pixels)], rgb(colour), cv2.LINE_AA, _SUBPIXEL_BITS)


def rgb(colour: ArrayLike) -> tuple[int, int, int]:
    """Convert a colour to the tuple of three integers that OpenCV expects."""
    red, green, blue = np.clip(colour, 0, 255)
    return int(red), int(green), int(blue)


def mix(first: ArrayLike, second: ArrayLike, fraction: float) -> np.ndarray:
    """Interpolate between two colours; `fraction` is the weight of the second colour."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return one * (1.0 - fraction) + other * fraction


def smooth(corners: ArrayLike, closed: bool = True, rounds: int = 3) -> np.ndarray:
    """Smooth a polygon, or an open curve, by cutting its corners (Chaikin, 1974)."""
    points = np.asarray(corners, np.float64)
    for _ in range(rounds):
        following = np.roll(points, -1, 0) if closed else points[1:]
        leading = points if closed else points[:-1]
        cut = np.stack([0.75 * leading + 0.25 * following, 0.25 * leading + 0.75 * following], 1)
        cut = cut.reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def ellipse(
    x: float, y: float, width: float, height: float, count: int = 20, slant: float = 0.0
) -> np.ndarray:
    """Return points (count, 2) on an ellipse around (x, y), rotated by ``slant`` radians.

    ``width`` and ``height`` are the semi-axes, that is half the lengths of the axes.
    """
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = np.stack([width * np.cos(angle), height * np.sin(angle)], 1)
    return rotate(points, slant) + (x, y)


def rotate(points: ArrayLike, angle: float) -> np.ndarray:
    """Rotate points (N, 2) about the origin by an angle in radians."""
    sin, cos = np.sin(angle), np.cos(angle)
    return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]])


def mirrored(points: ArrayLike, side: int) -> np.ndarray:
    """Return points of the right half of a face; if `side` is -1, mirror them to the left half."""
    return np.asarray(points) * (side, 1)


def _fixed_point(pixels: np.ndarray) -> np.ndarray:
    return np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
