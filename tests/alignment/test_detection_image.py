# SPDX-License-Identifier: Apache-2.0
"""Images for detectors: size, order of the channels, coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.detection_image import MAX_DETECTION_SIDE, make_detection_image


def test_a_small_photograph_keeps_its_pixels_in_the_order_bgr():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image = make_detection_image(pixels)
    assert np.array_equal(image.pixels, pixels[..., ::-1])
    assert image.to_photograph(np.array([[1.0, 2], [0, 3]])).tolist() == [[1, 2], [0, 3]]


@pytest.mark.parametrize("shape", [(2000, 2560), (4000, 3), (1, 9000)])
def test_a_large_photograph_is_shrunk_and_its_corners_map_to_its_corners(shape):
    image = make_detection_image(np.zeros((*shape, 3), np.uint8))
    height, width = image.pixels.shape[:2]
    assert max(height, width) == MAX_DETECTION_SIDE
    ends = image.to_photograph(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    np.testing.assert_allclose(ends, [[-0.5, -0.5], [shape[1] - 0.5, shape[0] - 0.5]])
