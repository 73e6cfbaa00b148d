# SPDX-License-Identifier: Apache-2.0
"""Photographs of rendered people, in which the detector finds a face."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from alignment.template import target_points
from tools.sample_faces.people import draw_person
from tools.sample_faces.renderer import render_jpeg

SIDE = 150  # of the rendered face in pixels
# People and shots whose faces the detector finds with a confidence of at least 0.95.
CLEAR = ((6, 4), (4, 4), (6, 1), (6, 5), (4, 2), (5, 0), (4, 0), (9, 0))


@functools.cache
def render_face(person: int, shot: int) -> np.ndarray:
    """Return the BGR pixels of a shot of a rendered person, uint8 (112, 112, 3)."""
    jpeg = render_jpeg(0, person, draw_person(0, person, person), shot)
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def draw_photograph(
    person: int, shot: int, size: tuple[int, int] = (170, 180), at: tuple[int, int] = (15, 10)
) -> tuple[np.ndarray, np.ndarray]:
    """Return BGR pixels (*size, 3) with a face at (x, y), and its nominal points (5, 2)."""
    pixels = np.full((*size, 3), (40 + 20 * (person % 10), 120, 200 - 20 * (person % 10)), np.uint8)
    face = cv2.resize(render_face(person, shot), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    x, y = at
    pixels[y : y + SIDE, x : x + SIDE] = face
    return pixels, target_points(112, 112) * SIDE / 112 + np.array(at)


def encode(pixels: np.ndarray, suffix: str = ".jpg") -> bytes:
    """Return BGR pixels as an encoded image."""
    return cv2.imencode(suffix, pixels)[1].tobytes()
