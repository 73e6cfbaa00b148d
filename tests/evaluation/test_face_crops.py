# SPDX-License-Identifier: Apache-2.0
"""Crops: landmarks land on the template, whatever the position, size and rotation of the face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from evaluation.face_crops import TEMPLATE_112, crop_face, find_similarity


@pytest.mark.parametrize("angle, scale", [(0, 1), (30, 2.5), (-170, 0.5)])
def test_a_rotated_and_scaled_template_is_mapped_back(angle, scale):
    turn = np.radians(angle)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    source = TEMPLATE_112 @ rotation.T + [40, -7]
    matrix = find_similarity(source, TEMPLATE_112)
    np.testing.assert_allclose(source @ matrix[:, :2].T + matrix[:, 2], TEMPLATE_112, atol=1e-9)


def test_the_similarity_has_the_least_error():
    rng = np.random.default_rng(0)
    source = TEMPLATE_112 + rng.normal(0, 5, (5, 2))

    def error(a: float, b: float, x: float, y: float) -> float:
        moved = source @ np.array([[a, b], [-b, a]]) + [x, y]
        return float(np.square(moved - TEMPLATE_112).sum())

    matrix = find_similarity(source, TEMPLATE_112)
    best = (matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2])
    for step in (*np.eye(4), *-np.eye(4)):
        assert error(*(best + 1e-3 * step)) > error(*best)


@pytest.mark.parametrize("size", [(112, 112), (112, 96), (224, 224)])
def test_landmarks_of_an_image_are_at_the_template_in_the_crop(size):
    image = np.zeros((400, 300, 3), np.uint8)
    landmarks = TEMPLATE_112 * 1.7 + [50, 90]
    cv2.circle(image, tuple(int(v) for v in landmarks[2].round()), 4, (255, 255, 255), -1)
    crop = crop_face(image, landmarks, size)
    assert crop.shape == (*size, 3)
    rows, columns = np.nonzero(crop[..., 0] > 127)
    nose = TEMPLATE_112[2] * size[0] / 112 + [(size[1] - size[0]) / 2, 0]
    np.testing.assert_allclose([columns.mean(), rows.mean()], nose, atol=1)


def test_landmarks_in_one_point_give_no_crop():
    assert crop_face(np.zeros((9, 9, 3), np.uint8), np.ones((5, 2)), (112, 112)) is None
