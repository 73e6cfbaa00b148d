# SPDX-License-Identifier: Apache-2.0
"""Aligners that a plan opens."""

from __future__ import annotations

from alignment import plan
from alignment.aligner import ALIGNED, NO_POINTS, SMALL, FaceRules
from alignment.detector import DetectorChoice
from alignment.face_choice import face_of_points
from alignment.landmark_files import Landmarks
from alignment.plan import AlignmentPlan
from tests.photographs import draw_photograph


def test_given_points_need_no_source():
    pixels, points = draw_photograph(0, 0)
    aligner = AlignmentPlan().open_aligner((112, 96))
    found = aligner.align("a.jpg", pixels, points)
    assert found.status == ALIGNED and found.pixels.shape == (112, 96, 3)
    assert aligner.align("a.jpg", pixels).status == NO_POINTS


def test_given_points_go_before_those_of_the_file():
    pixels, points = draw_photograph(0, 0)
    landmarks = Landmarks("points.txt")
    landmarks.add("a.jpg", points * 0.1)
    aligner = AlignmentPlan(landmarks).open_aligner((112, 112))
    assert aligner.align("a.jpg", pixels).status == SMALL
    assert aligner.align("a.jpg", pixels, points).status == ALIGNED


def test_the_detector_is_opened_with_its_threads_and_the_rules_apply(monkeypatch):
    pixels, points = draw_photograph(0, 0)
    opened = []

    class Detector:
        def find_faces(self, _):
            return [face_of_points(points)]

    def open_detector(choice, threads):
        opened.append((choice, threads))
        return Detector()

    monkeypatch.setattr(plan, "open_detector", open_detector)
    choice = DetectorChoice("mtcnn")
    made = AlignmentPlan(detector=choice, rules=FaceRules(min_face_px=500))
    assert made.open_aligner((112, 112), 3).align("a.jpg", pixels).status == SMALL
    assert opened == [(choice, 3)]
