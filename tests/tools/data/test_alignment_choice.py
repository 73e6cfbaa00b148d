# SPDX-License-Identifier: Apache-2.0
"""Plans of alignment from options, and the values that identify them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from alignment.options import add_alignment_options
from tests.alignment.test_yunet_detector import write_network
from tools.data.alignment_choice import read_alignment

POINTS = "1 2 3 4 5 6 7 8 9 10"


def read(*words: object, paths: tuple[str, ...] = ("a.jpg",)):
    parser = argparse.ArgumentParser()
    add_alignment_options(parser)
    return read_alignment(parser.parse_args(list(map(str, words))), paths, Path("in"))


def test_the_settings_identify_the_points_and_the_rules(tmp_path):
    file, weights = tmp_path / "points.txt", write_network(tmp_path / "yunet.onnx")
    found = [read()[1], read("--min-face", 9)[1]]
    for numbers in (POINTS, POINTS[:-1] + "1"):
        file.write_text(f"a.jpg {numbers}\n")
        plan, settings = read("--landmarks", file)
        assert plan.detector is None and plan.landmarks.find("in/a.jpg")
        found.append(settings)
    plan, settings = read("--detector", "yunet", "--detector-weights", weights)
    assert plan.landmarks is None and plan.detector.weights == weights
    found.append(settings)
    assert found[0]["points"] == "mtcnn" and found[-1]["points"].startswith("yunet ")
    assert len({str(settings) for settings in found}) == len(found)


def test_no_source_is_opened_if_all_points_are_given():
    plan, settings = read("--landmarks", "/nowhere/points.txt", "--min-face", 9, paths=())
    assert plan.landmarks is plan.detector is None and plan.rules.min_face_px == 9
    assert settings["points"] == "list"


def test_a_file_with_points_of_other_images_is_refused(tmp_path):
    (tmp_path / "points.txt").write_text(f"b.jpg {POINTS}\n")
    with pytest.raises(ValueError, match=r"--landmarks: .* got points of none of the 1 files"):
        read("--landmarks", tmp_path / "points.txt")
