# SPDX-License-Identifier: Apache-2.0
"""Options of alignment and their checks."""

from __future__ import annotations

import argparse

import pytest

from alignment.aligner import FaceAligner, FaceRules
from alignment.options import (
    add_alignment_options,
    open_aligner,
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
        ("--detector mtcnn --landmarks x", "--detector: the points come from a file or from a det"),
    ],
)
def test_wrong_values_are_one_sentence(words, problem):
    with pytest.raises(ValueError) as error:
        read_rules(parse(*words.split()))
    assert str(error.value).startswith(problem)


@pytest.mark.parametrize("words", ["--landmarks x", "--detector mtcnn", "--min-face 3", "--centre"])
def test_options_without_their_switch_are_refused(words):
    option = words.split()[0]
    with pytest.raises(ValueError, match=f"{option}: applies only together with --align"):
        refuse_options_without("--align", parse(*words.split()))
    refuse_options_without("--align", parse())


def test_an_aligner_takes_its_points_from_the_file(tmp_path):
    file = tmp_path / "points.txt"
    file.write_text("a.jpg 1 2 3 4 5 6 7 8 9 10\n")
    aligner = open_aligner(parse("--landmarks", str(file)), (112, 96))
    assert isinstance(aligner, FaceAligner) and aligner.image_size == (112, 96)
