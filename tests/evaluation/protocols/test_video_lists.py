# SPDX-License-Identifier: Apache-2.0
"""Entries of lists, their frames and their people."""

from __future__ import annotations

from evaluation.all_pairs import UNKNOWN_PERSON
from evaluation.protocols.video_lists import (
    assign_frames,
    is_image,
    read_entries,
    read_labelled_pairs,
    read_people,
)


def test_frames_belong_to_the_entry_that_ends_their_path():
    entries = ["Ann/1", "Ann/11", "a/7.jpg"]
    names = ["/data/Ann/1/7.jpg", "Ann/11/7.jpg", "/x/a/7.jpg", "a/8.jpg", "7.jpg"]
    assert assign_frames(names, entries).tolist() == [0, 1, 2, -1, -1]
    assert [is_image(entry) for entry in entries] == [False, False, True]


def test_entries_have_one_spelling_in_all_lists(tmp_path):
    (tmp_path / "list").write_text("./v/1/ 25\nv/2\n")
    entries = read_entries(tmp_path / "list")
    assert entries == ["v/1", "v/2"]
    (tmp_path / "pairs").write_text("v/1/ ./v/2 1\nv/2 v/2 0\n")
    first, second, same = read_labelled_pairs(tmp_path / "pairs", entries)
    assert (first.tolist(), second.tolist(), same.tolist()) == ([0, 1], [1, 1], [True, False])


def test_unknown_people_have_no_number(tmp_path):
    (tmp_path / "people").write_text("Bob\n-\nAnn\nBob\n-1\n")
    found = read_people(tmp_path / "people", 5).tolist()
    assert found == [0, UNKNOWN_PERSON, 1, 0, UNKNOWN_PERSON]
