# SPDX-License-Identifier: Apache-2.0
"""The choice of one face among several."""

from __future__ import annotations

import numpy as np

from alignment.face_choice import Face, choose_face, face_of_points


def face(left: float, top: float, side: float) -> Face:
    return Face(np.array([left, top, left + side, top + side]), np.zeros((5, 2)), 1.0)


def test_the_largest_face_wins_if_all_are_equally_central():
    faces = [face(90, 90, 20), face(80, 80, 40), face(85, 85, 30)]
    assert choose_face(faces, (200, 200)) is faces[1]


def test_a_smaller_face_in_the_centre_beats_a_larger_one_at_the_edge():
    edge, centre = face(0, 0, 60), face(75, 75, 50)
    assert choose_face([edge, centre], (200, 200)) is centre
    assert choose_face([edge, centre], (60, 60)) is edge


def test_the_box_of_given_points_surrounds_them():
    points = np.array([[10, 20], [30, 22], [20, 30], [12, 40], [28, 41]], float)
    found = face_of_points(points)
    assert found.box.tolist() == [10, 20, 30, 41] and found.score == 1
    assert found.points is points
