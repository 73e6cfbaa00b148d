# SPDX-License-Identifier: Apache-2.0
"""Options of alignment and their checks."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from alignment.aligner import FaceRules
from alignment.detector import DetectorChoice
from alignment.landmark_files import Landmarks
from alignment.options import (
    add_alignment_options,
    chosen_detector,
    open_source,
    read_rules,
    refuse_options_without,
)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_alignment_options(parser)
    return parser.parse_args(words)


def test_the_options_set_the_rules():
    assert read_rules(parse()) == FaceRules()
    words = "--min-face 40 --min-score 0.9 --min-sharpness 15 --centre".split()
    assert read_rules(parse(*words)) == FaceRules(40, 0.9, 15, True)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--min-face -1", "--min-face: must be 0 or more, got -1.0"),
        ("--min-face nan", "--min-face: must be 0 or more, got nan"),
        ("--min-face inf", "--min-face: must be 0 or more, got inf"),
        ("--min-score 1.1", "--min-score: must be from 0 to 1, got 1.1"),
        ("--min-sharpness -2", "--min-sharpness: must be 0 or more, got -2.0"),
        ("--detector mtcn", "--detector: must be the name of a detector, got 'mtcn'; did you mean"),
        (
            "--detector yunet",
            "--detector: yunet needs the file of its weights, got no --detector-w",
        ),
        ("--detector-weights w", "--detector-weights: applies only together with --detector yunet"),
        ("--detector mtcnn --landmarks x", "--detector: the points come from a file or from a det"),
    ],
)
def test_wrong_values_are_one_sentence(words, problem):
    with pytest.raises(ValueError) as error:
        read_rules(parse(*words.split()))
    assert str(error.value).startswith(problem)


@pytest.mark.parametrize(
    "words",
    ["--landmarks x", "--detector mtcnn", "--min-face 3", "--centre", "--detector-weights w"],
)
def test_options_without_their_switch_are_refused(words):
    option = words.split()[0]
    with pytest.raises(ValueError, match=f"{option}: applies only together with --align"):
        refuse_options_without("--align", parse(*words.split()))
    refuse_options_without("--align", parse())


def test_the_points_come_from_the_file_if_there_is_one(tmp_path):
    file = tmp_path / "points.txt"
    file.write_text("a.jpg 1 2 3 4 5 6 7 8 9 10\n")
    assert isinstance(open_source(parse("--landmarks", str(file))), Landmarks)


def test_the_detector_is_mtcnn_unless_another_one_is_named():
    assert chosen_detector(parse()) == DetectorChoice("mtcnn", None)
    words = parse("--detector", "yunet", "--detector-weights", "~/w.onnx")
    assert chosen_detector(words) == DetectorChoice("yunet", Path.home() / "w.onnx")
