# SPDX-License-Identifier: Apache-2.0
"""heads/git.py: values that a hand can follow, and a refusal."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # The centres begin at 0: from that of the other image 25 and 1 away.
    found = losses("git", [[3, 4, 0], [1, 0, 0]], [1, 0], center_weight=0.0, git_weight=2.0)
    assert [cross_entropy([3, 4, 0]) + 1 / 26, cross_entropy([1, 0, 0], 0) + 1 / 2] == found


def test_a_value_out_of_range_is_refused():
    sentence = "head.git_weight: must be a number from 0, got -1; 0 disables the push"
    assert refusal("git", git_weight=-1) == sentence
