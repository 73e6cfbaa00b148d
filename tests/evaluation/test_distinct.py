# SPDX-License-Identifier: Apache-2.0
"""Distinct images of a set, among encoded images and pixels."""

from __future__ import annotations

import numpy as np

from evaluation.distinct import find_distinct


def test_equal_images_have_one_number():
    encoded = np.frombuffer(b"one", np.uint8)
    images = [b"one", b"two", encoded, b"one", b"three", np.frombuffer(b"two", np.uint8)]
    first, numbers = find_distinct(images)
    assert first == [0, 1, 4] and numbers.tolist() == [0, 1, 0, 0, 2, 1]


def test_pixels_of_other_shapes_or_strides_are_compared_by_value():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    other = pixels.copy()
    other[1, 2, 0] ^= 1
    mirrored = pixels[:, ::-1]
    images = [pixels, pixels.reshape(4, 2, 3), other, mirrored[:, ::-1], pixels.tobytes(), mirrored]
    assert find_distinct(images)[1].tolist() == [0, 1, 2, 0, 3, 4]
    assert find_distinct([])[0] == []
