# SPDX-License-Identifier: Apache-2.0
"""Target points of sizes that other projects use."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.template import eye_distance, target_points

INSIGHTFACE_112 = [
    *([38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366]),
    *([41.5493, 92.3655], [70.7299, 92.2041]),
]


@pytest.mark.parametrize(
    ("size", "points"),
    [
        ((112, 112), INSIGHTFACE_112),
        ((112, 96), [[x - 8, y] for x, y in INSIGHTFACE_112]),
        ((224, 224), [[2 * x, 2 * y] for x, y in INSIGHTFACE_112]),
        ((112, 160), [[x + 24, y] for x, y in INSIGHTFACE_112]),
    ],
)
def test_the_points_are_those_of_insightface(size, points):
    np.testing.assert_allclose(target_points(*size), points, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (40, 112), (300, 100), (4096, 4096)])
def test_the_points_lie_in_images_of_any_size(size):
    points = target_points(*size)
    assert (points >= 0).all() and (points <= np.array(size[::-1])).all()


def test_the_eye_distance_is_that_of_the_first_two_points():
    points = np.array([[0, 0], [3, 4], [9, 9], [0, 9], [9, 0]], float)
    assert eye_distance(points) == 5
