# SPDX-License-Identifier: Apache-2.0
"""Files of landmarks: finding the points of an image, and errors."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from alignment.landmark_files import MAX_LINE_BYTES, Landmarks, read_landmarks

POINTS = np.arange(10.0).reshape(5, 2)
NUMBERS = " ".join(str(value) for value in POINTS.ravel())


def found(landmarks: Landmarks, path: str) -> list[list[list[float]]] | None:
    faces = landmarks.find(path)
    return None if faces is None else [face.tolist() for face in faces]


@pytest.mark.parametrize(
    ("in_file", "image", "fits"),
    [
        ("anna/1.jpg", "anna/1.jpg", True),
        ("anna/1.jpg", "/home/x/faces/anna/1.jpg", True),
        ("./anna/1.jpg", "anna/1.jpg", True),
        ("/other/machine/anna/1.jpg", "/home/x/anna/1.jpg", True),
        ("data\\anna\\1.jpg", "anna/1.jpg", True),
        ("1.jpg", "anna/1.jpg", True),
        ("anna/1.jpg", "1.jpg", False),
        ("anna/1.jpg", "ben/1.jpg", False),
        ("anna/1.jpg", "johanna/1.jpg", False),
        ("../anna/1.jpg", "anna/1.jpg", True),
    ],
)
def test_paths_belong_together_if_one_ends_with_the_other(in_file, image, fits):
    landmarks = Landmarks("points.txt")
    landmarks.add(in_file, POINTS)
    assert found(landmarks, image) == ([POINTS.tolist()] if fits else None)


def test_an_ambiguous_end_of_a_path_finds_nothing():
    landmarks = Landmarks("points.txt")
    landmarks.add("a/anna/1.jpg", POINTS)
    landmarks.add("b/anna/1.jpg", POINTS + 1)
    assert landmarks.find("c/anna/1.jpg") is None
    assert found(landmarks, "x/b/anna/1.jpg") == [(POINTS + 1).tolist()]


def test_lines_are_read_with_any_line_end_a_bom_comments_and_a_header(tmp_path):
    file = tmp_path / "points.txt"
    text = f"2\r\npath x1 y1 and so on\r\n# comment\r\n\r\na.jpg {NUMBERS}\r\na.jpg {NUMBERS}\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\xff.jpg " + NUMBERS.encode())
    landmarks = read_landmarks(file)
    assert len(landmarks) == 2
    assert found(landmarks, "a.jpg") == [POINTS.tolist()] * 2
    assert found(landmarks, os.fsdecode(b"\xff.jpg")) == [POINTS.tolist()]


def test_json_is_recognised_by_its_first_character(tmp_path):
    file = tmp_path / "points"
    file.write_text(" \n" + json.dumps({"a.jpg": POINTS.tolist()}))
    assert found(read_landmarks(file), "a.jpg") == [POINTS.tolist()]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", ": must give five points of at least one image, got none"),
        ("one\ntwo\n", ": must give five points of at least one image, got none"),
        ("one\ntwo\nthree\n", ": line 3: must be a path and ten numbers, or a line of"),
        (f"a.jpg {NUMBERS}\nb.jpg 1 2\n", ": line 2: must be a path and ten numbers"),
        ("a.jpg 1e9" + " 1" * 9, ": line 1: the coordinates must be numbers of at most 1000000"),
        ("a.jpg 1e999" + " 1" * 9, ": line 1: the coordinates must be numbers"),
        ("x" * MAX_LINE_BYTES, f": line 1: must have fewer than {MAX_LINE_BYTES} characters"),
        ("{", ": must be a JSON document, got "),
        ("[" * 100_000, ": must be a JSON document, got "),
        ("{}", ": must give five points of at least one image, got none"),
        ('{"a.jpg": 1}', ": 'a.jpg' must have five points, or a list of faces"),
        ('{"a.jpg": [1, 2, 3, 4, 5, 6, 7, 8, 9, NaN]}', ": 'a.jpg': the coordinates must be"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, content, problem):
    file = tmp_path / "points.txt"
    file.write_text(content)
    with pytest.raises(ValueError) as error:
        read_landmarks(file)
    assert str(error.value).startswith(f"{file}{problem}") and "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("nowhere", "cannot be read as points of faces, got 'No such file or directory'"),
        (".", "must be a file with points, got a folder"),
        ("pipe", "must be a file with points, got a special file"),
    ):
        with pytest.raises(ValueError, match=problem):
            read_landmarks(tmp_path / name)
