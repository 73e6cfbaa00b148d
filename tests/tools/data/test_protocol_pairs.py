# SPDX-License-Identifier: Apache-2.0
"""People of pairs, folds of pairs, fields of lines."""

from __future__ import annotations

import pytest

from tools.data.protocol_pairs import (
    ProtocolPair,
    are_numbers,
    interleave_folds,
    name_people,
    split_fields,
    unbalanced_folds,
)


@pytest.mark.parametrize(
    ("pairs", "people"),
    [
        ([("a/1.jpg", "a/2.jpg", True), ("a/1.jpg", "b/1.jpg", False)], "a a a b"),
        ([("x/a/1", "x/a/2", True), ("x/a/1", "y/a/1", True)], "a a a a"),
        (
            [
                ("0_Jo Doe_35_f.jpg", "1_Jo Doe_70_f.jpg", True),
                ("all/0_Jo Doe_35_f.jpg", "all/2_Al_20_m.jpg", False),
            ],
            "Jo Doe|Jo Doe|Jo Doe|Al",
        ),
        (
            [("Al_B_0001.jpg", "Al_B_0002.jpg", True), ("Al_B_0001.jpg", "Jo_0001.jpg", False)],
            "Al_B Al_B Al_B Jo",
        ),
        ([("all/1.jpg", "all/2.jpg", True), ("all/1.jpg", "all/3.jpg", False)], None),
        ([("1.jpg", "2.jpg", True), ("1.jpg", "3.jpg", False)], None),
    ],
)
def test_people_are_read_from_paths_if_no_pair_contradicts(pairs, people):
    found = name_people([ProtocolPair(*pair) for pair in pairs])
    separator = "|" if people and "|" in people else None
    assert found == (people.split(separator) if people else None)


def test_people_that_the_protocol_names_count():
    pairs = [
        ProtocolPair("a/1", "a/2", False, ("x", "y")),
        ProtocolPair("1", "2", True, ("x", "x")),
    ]
    assert name_people(pairs) == ["x", "y", "x", "x"]


def test_interleaved_pairs_have_both_kinds_in_each_fold():
    same = [ProtocolPair(f"s{i}", "", True) for i in range(30)]
    different = [ProtocolPair(f"d{i}", "", False) for i in range(20)]
    ordered = interleave_folds(same, different)
    assert len(ordered) == 50 and {*ordered} == {*same, *different}
    for fold in range(10):
        assert [pair.same for pair in ordered[5 * fold : 5 * fold + 5]] == [True] * 3 + [False] * 2
    assert unbalanced_folds([pair.same for pair in ordered]) == 0
    assert unbalanced_folds([pair.same for pair in same + different]) == 10


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a b 1", ["a", "b", "1"]),
        ("a b\tc d\t1 ", ["a b", "c d", "1"]),
        ("1, a/0 , b", ["1", "a/0", "b"]),
    ],
)
def test_tabs_separate_before_commas_and_commas_before_blanks(line, fields):
    assert split_fields(line) == fields


def test_numbers_are_whole_and_short():
    assert are_numbers(["0", "12"]) and are_numbers([])
    assert not any(are_numbers([text]) for text in ("", "-1", "1.0", "²", "1" * 10, "a"))
