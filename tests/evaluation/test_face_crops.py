# SPDX-License-Identifier: Apache-2.0
"""Crops: landmarks land on the template, whatever the position, size and rotation of the face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment.template import target_points
from evaluation.face_crops import crop_face


@pytest.mark.parametrize("size", [(112, 112), (112, 96), (224, 224)])
def test_landmarks_of_an_image_are_at_the_template_in_the_crop(size):
    image = np.zeros((400, 300, 3), np.uint8)
    turn = 1.7 * np.array([[0.8, 0.6], [-0.6, 0.8]])
    landmarks = (target_points(112, 112) @ turn + [50, 150]).astype(np.float32)
    cv2.circle(image, tuple(int(v) for v in landmarks[2].round()), 4, (255, 255, 255), -1)
    crop = crop_face(image, landmarks, size)
    assert crop.shape == (*size, 3)
    rows, columns = np.nonzero(crop[..., 0] > 127)
    np.testing.assert_allclose(
        [columns.mean(), rows.mean()], target_points(*size)[2], atol=size[0] / 112
    )


def test_landmarks_in_one_point_give_no_crop():
    assert crop_face(np.zeros((9, 9, 3), np.uint8), np.ones((5, 2)), (112, 112)) is None
