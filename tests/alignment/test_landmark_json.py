# SPDX-License-Identifier: Apache-2.0
"""Layouts of JSON documents with landmarks."""

from __future__ import annotations

import pytest

from alignment.landmark_json import LayoutError, faces_of_document

PAIRS = [[1.5, 5], [20, 6.25], [11, 12], [3, 20], [18, 21]]
FLAT = [value for pair in PAIRS for value in pair]
NAMES = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
NAMED = dict(zip(NAMES, PAIRS, strict=True))


@pytest.mark.parametrize(
    "document",
    [
        {"a.jpg": PAIRS},
        {"a.jpg": FLAT},
        {"a.jpg": [PAIRS]},
        {"a.jpg": NAMED},
        {"a.jpg": {"box": [0, 0, 9, 9], "keypoints": NAMED}},
        {"a.jpg": [{"confidence": 0.9, "keypoints": NAMED}]},
        [{"path": "a.jpg", "landmarks": FLAT}],
        [{"image": "a.jpg", "kps": PAIRS}],
        [{"name": "a.jpg", "points": [NAMED]}],
    ],
)
def test_every_layout_gives_the_path_and_the_points(document):
    ((path, points),) = faces_of_document(document)
    assert path == "a.jpg" and points.tolist() == PAIRS


def test_an_image_may_have_several_faces_or_none():
    found = list(faces_of_document({"a.jpg": [PAIRS, FLAT], "b.jpg": []}))
    assert [path for path, _ in found] == ["a.jpg", "a.jpg", "b.jpg"]
    assert found[2][1] is None


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (7, "the document must be an object or a list, got int"),
        (["a"], "entry 0 must be an object with a path"),
        ([{"path": "a.jpg"}], "entry 0 must be an object with a path"),
        (
            {"a.jpg": "x"},
            "'a.jpg' must have five points, or a list of faces with five points each, got x",
        ),
        ({"a.jpg": FLAT[:9]}, "'a.jpg' must have five points"),
        ({"a.jpg": [*FLAT[:9], "x"]}, "'a.jpg' must have five points"),
        ({"a.jpg": [PAIRS[:4]]}, "'a.jpg' must have five points"),
    ],
)
def test_another_layout_is_an_error_that_says_where(document, problem):
    with pytest.raises(LayoutError) as error:
        list(faces_of_document(document))
    assert str(error.value).startswith(problem)
