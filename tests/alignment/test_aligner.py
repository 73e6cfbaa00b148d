# SPDX-License-Identifier: Apache-2.0
"""Alignment of photographs by given points, and the rules that reject faces."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment import aligner
from alignment.aligner import FaceAligner, FaceRules, cut_centre, measure_sharpness
from alignment.face_choice import Face
from alignment.landmark_files import Landmarks
from alignment.template import target_points
from tests.photographs import draw_photograph, render_face

PATH = "anna/1.jpg"


def given(*faces: np.ndarray) -> Landmarks:
    """Return landmarks with the points of the faces of one photograph."""
    landmarks = Landmarks("points.txt")
    landmarks.add(PATH, None)
    for points in faces:
        landmarks.add(PATH, points)
    return landmarks


class Detector:
    """Detector that finds given faces."""

    def __init__(self, *faces: Face):
        self._faces = list(faces)

    def find_faces(self, pixels: np.ndarray) -> list[Face]:
        return self._faces


def align(source, pixels, size=(112, 112), **rules):
    return FaceAligner(source, size, FaceRules(**rules)).align(PATH, pixels)


def test_the_face_of_a_photograph_comes_out_as_it_was_pasted():
    pixels, points = draw_photograph(0, 0)
    found = align(given(points), pixels)
    assert found.status == aligner.ALIGNED and found.faces == 1
    assert found.side_px == pytest.approx(150)
    error = np.abs(found.pixels[4:-4, 4:-4].astype(int) - render_face(0, 0)[4:-4, 4:-4])
    assert error.mean() < 3


@pytest.mark.parametrize("size", [(112, 112), (112, 96), (64, 64), (224, 160)])
def test_the_image_has_the_size_and_its_points_are_those_of_the_template(size):
    pixels, points = draw_photograph(0, 0)
    for x, y in points:
        cv2.circle(pixels, (round(x), round(y)), 4, (255, 0, 255), -1)
    found = align(given(points), pixels, size)
    assert found.pixels.shape == (*size, 3)
    for x, y in target_points(*size):
        red, green, blue = found.pixels[round(y), round(x)].astype(int)
        assert red > 200 and blue > 200 and green < 60


def test_photographs_without_points_or_faces_are_rejected():
    pixels, points = draw_photograph(0, 0)
    other = Landmarks("points.txt")
    other.add("ben/9.jpg", points)
    assert align(other, pixels).status == aligner.NO_POINTS
    assert align(given(), pixels).status == aligner.NO_FACE
    assert align(Detector(), pixels).status == aligner.NO_FACE


def test_small_unsure_and_blurred_faces_are_rejected():
    pixels, points = draw_photograph(0, 0)
    assert align(given(points), pixels, min_face_px=151).status == aligner.SMALL
    assert align(given(points), pixels, min_face_px=149).status == aligner.ALIGNED
    unsure = Detector(Face(np.array([0.0, 0, 9, 9]), points, 0.6))
    found = align(unsure, pixels)
    assert (found.status, found.score, found.pixels) == (aligner.UNSURE, 0.6, None)
    assert align(unsure, pixels, min_score=0.6).status == aligner.ALIGNED
    sharpness = align(given(points), pixels).sharpness
    assert align(given(points), pixels, min_sharpness=sharpness + 1).status == aligner.BLURRED
    assert align(given(points), pixels, min_sharpness=sharpness - 1).status == aligner.ALIGNED


def test_points_that_form_no_face_are_rejected():
    pixels, points = draw_photograph(0, 0)
    wrong = {
        "left and right exchanged": points[[1, 0, 2, 4, 3]],
        "all x before all y": points.ravel().reshape(2, 5).T,
        "x and y exchanged": points[:, ::-1],
        "one place": np.tile(points[:1], (5, 1)),
        "equal eyes": points[[0, 0, 2, 3, 4]],
    }
    for name, order in wrong.items():
        assert align(given(order), pixels).status == aligner.ODD, name
    turned = (points - 200) @ np.array([[0.0, -1], [1, 0]]) + 200  # upside down or on its side
    assert align(given(turned), pixels).status == aligner.ALIGNED


def test_the_main_face_of_several_counts():
    pixels, points = draw_photograph(0, 0)
    small = (points - points.mean(0)) * 0.3 + 30
    found = align(given(small, points), pixels)
    assert found.faces == 2
    np.testing.assert_allclose(found.points, points, atol=1e-3)


def test_the_centre_replaces_a_face_that_is_missing_or_rejected():
    pixels, points = draw_photograph(0, 0)
    for source, rules in ((Detector(), {}), (given(points), {"min_face_px": 500})):
        found = align(source, pixels, centre=True, **rules)
        assert found.status == aligner.CENTRE
        assert np.array_equal(found.pixels, cut_centre(pixels, (112, 112)))
    assert align(given(points), pixels, centre=True).status == aligner.ALIGNED


def test_the_centre_is_the_middle_of_the_photograph():
    pixels = np.zeros((200, 400, 3), np.uint8)
    cv2.circle(pixels, (200, 100), 20, (255, 255, 255), -1)
    for size in ((112, 112), (112, 96), (50, 80)):
        rows, columns = np.nonzero(cut_centre(pixels, size)[..., 0])
        middle = (rows.mean() + 0.5, columns.mean() + 0.5)
        assert middle == pytest.approx((size[0] / 2, size[1] / 2), abs=1)


def test_sharpness_falls_with_blur():
    face = render_face(0, 0)
    values = [
        measure_sharpness(cv2.GaussianBlur(face, (0, 0), s) if s else face) for s in (0, 1, 3)
    ]
    assert values == sorted(values, reverse=True) and values[2] < values[0] / 10
