# SPDX-License-Identifier: Apache-2.0
"""Lines of splits.txt."""

from __future__ import annotations

import pytest

from evaluation.protocols.youtube_faces import parse_split, read_splits
from evaluation.text_lists import ListError


@pytest.mark.parametrize("fields", ["3|a/1|b/0|0", "3|17|a/1|b/0|0", "3|17|a/1|b/0|1|0"])
def test_the_number_of_the_pair_and_more_fields_are_optional(fields):
    assert parse_split(fields.split("|")) == (3, "a/1", "b/0", False)


@pytest.mark.parametrize(
    "fields",
    [
        "3|a/1|0",
        "3|a/1|b/0|2",
        "x|a/1|b/0|0",
        "3|a1|b/0|0",
        "3|a/1|/b|0",
        "3|a/1|b/..|0",
        "|||",
        "٣|a/1|b/0|0",
    ],
)
def test_other_lines_have_no_pair(fields):
    assert parse_split(fields.split("|")) is None


def test_a_list_without_headings_keeps_its_first_pair(tmp_path):
    path = tmp_path / "splits.txt"
    path.write_text("1,1,a/1,a/2,1\n1,2,a/1,b/2,0\n2,1,b/1,b/2,1,\n2,2,a/1,b/2,0\n")
    pairs = read_splits(path)
    assert (len(pairs.same), pairs.folds, pairs.videos[:2]) == (4, 2, ["a/1", "a/2"])


def test_headings_alone_are_refused(tmp_path):
    path = tmp_path / "splits.txt"
    path.write_text("split number, pair number, first name, second name, is same\n")
    with pytest.raises(ListError) as caught:
        read_splits(path)
    assert str(caught.value) == f"{path}: must list pairs of videos, got none; fill the list"
