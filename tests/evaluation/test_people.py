# SPDX-License-Identifier: Apache-2.0
"""People that a file beside a set names, and groups of linked images without such a file."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.pairs import Pairs, PairsError
from evaluation.people import MAX_LINE_BYTES, find_groups, find_people, write_people

A, B, C, D, E, F = (bytes([i]) * 4 for i in range(6))


def test_groups_are_linked_by_images_and_pairs_of_one_person():
    pairs = Pairs([A, B, B, C, A, D, E, F, D, E], np.array([True, True, False, True, False]))
    assert find_groups(pairs).tolist() == [0, 0, 0, 0, 0, 1, 2, 2, 1, 2]
    pixels = [np.full((2, 2, 3), i, np.uint8) for i in (1, 2, 1, 3)]
    assert find_groups(Pairs(pixels, np.array([False, False]))).tolist() == [0, 1, 0, 2]


@pytest.fixture
def pairs(tmp_path):
    """Return three pairs without shared images: one person, two people, one person."""
    return Pairs([A, B, C, D, E, F], np.array([True, False, True]), str(tmp_path / "a.b.bin"))


@pytest.mark.parametrize("text", ["x\nx\nx\ny y\nx\nx\n", "\ufeffx \r\nx\r\nx\r\ny y\r\nx\r\nx"])
def test_the_people_file_beside_a_set_names_the_people(pairs, tmp_path, text):
    without = find_people(pairs)
    assert without.kind == "groups" and without.numbers.tolist() == [0, 0, 1, 2, 3, 3]
    (tmp_path / "a.b.people.txt").write_bytes(text.encode())
    found = find_people(pairs)
    assert found.kind == "people" and found.numbers.tolist() == [0, 0, 0, 1, 0, 0]


def test_written_people_are_read_again(pairs):
    write_people(pairs.path, [7, 7, 7, "é", 2, 2])
    assert find_people(pairs).numbers.tolist() == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"x\nx\nx\ny\nx\n", ": must have two lines per pair, 6 lines for 3 pairs, got 5 lines; "),
        (b"", ": must have two lines per pair, 6 lines for 3 pairs, got 1 lines; "),
        (
            b"x\nx\nx\n \nx\nx\n",
            ": line 4: must name the person of image 1 of pair 1, got an empty line; write one",
        ),
        (
            b"x\nx\nx\nx\nx\nx\n",
            ": lines 3 and 4: must name two people, as pair 1 of the set says, got 'x' and 'x'; ",
        ),
        (
            b"x\nx\nx\ny\nx\nz\n",
            ": lines 5 and 6: must name one person, as pair 2 of the set says, got 'x' and 'z'; ",
        ),
        (b"x\nx\n\xff", ": must be UTF-8 text, got byte 0xff at offset 4; "),
        (
            b"x" * (6 * MAX_LINE_BYTES + 1),
            ": must have at most 1024 bytes per image, got more than",
        ),
        (b"\xff" * (6 * MAX_LINE_BYTES + 1), ": must have at most 1024 bytes per image, got more"),
    ],
)
def test_a_people_file_that_does_not_fit_the_set_is_refused(pairs, tmp_path, data, problem):
    path = tmp_path / "a.b.people.txt"
    path.write_bytes(data)
    with pytest.raises(PairsError) as caught:
        find_people(pairs)
    assert str(caught.value).startswith(f"{path}{problem}") and str(caught.value).count("\n") == 0


def test_a_people_file_that_cannot_be_read_is_refused(pairs, tmp_path):
    path = tmp_path / "a.b.people.txt"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PairsError, match="people.txt: cannot be read, got 'No such file"):
        find_people(pairs)
    path.unlink()
    path.mkdir()
    with pytest.raises(PairsError, match="people.txt: cannot be read, got 'Is a directory'"):
        find_people(pairs)
