# SPDX-License-Identifier: Apache-2.0
"""The command show-bin: what it prints, and its contact sheet."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.pairs import write_pairs
from evaluation.people import write_people
from tools.data import __main__ as data
from tools.data.commands.show_bin import (
    DIFFERENT_COLOUR,
    SAME_COLOUR,
    people_in_several_folds,
)


@pytest.fixture
def file(tmp_path, make_face) -> Path:
    images = [make_face(pair // 2, shot) for pair in range(20) for shot in range(2)]
    write_pairs(tmp_path / "set.bin", images, [True, False] * 10)
    return tmp_path / "set.bin"


def test_the_content_is_printed(file, capsys):
    assert data.main(["show-bin", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[:1] == [f"{file}: 20 pairs, 10 of one person"]
    people = [name for pair in range(20) for name in (pair // 2, pair // 2 + 50 * (pair % 2))]
    write_people(file, people)
    assert data.main(["show-bin", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "20 images: JPEG 112x112",
        "20 people, as the file beside the set names them",
        "0 of them in several of 10 folds",
    ]


def test_people_in_several_folds_are_counted():
    apart = np.repeat(np.arange(20), 2)
    assert people_in_several_folds(apart) == 0
    apart[-1] = 0
    assert people_in_several_folds(apart) == 1
    assert people_in_several_folds(np.zeros(40, int)) == 1


def test_pairs_of_one_person_are_framed_green_and_others_red(file, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert data.main(["show-bin", str(file), "--contact-sheet", str(sheet)]) == 0
    pixels = cv2.imread(str(sheet)).reshape(-1, 3)
    for colour in (SAME_COLOUR, DIFFERENT_COLOUR):
        assert (pixels == colour).all(axis=1).sum() > 20 * 400
    before = sheet.read_bytes()
    assert data.main(["show-bin", str(file), "--contact-sheet", str(sheet)]) == 2
    assert "--contact-sheet: must be a new file in a folder" in capsys.readouterr().err
    assert sheet.read_bytes() == before
    assert data.main(["show-bin", str(file), "--contact-sheet", str(tmp_path / "a" / "b")]) == 2


def test_a_missing_set_is_one_sentence(tmp_path, capsys):
    assert data.main(["show-bin", str(tmp_path / "none.bin")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/none.bin: cannot be read")


def test_pipes_and_devices_are_refused_at_once(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.bin")
    for name in (tmp_path / "pipe.bin", "/dev/zero"):
        assert data.main(["show-bin", str(name)]) == 2
        assert f"{name}: cannot be read as a verification set, got 'A special file" in (
            capsys.readouterr().err
        )
