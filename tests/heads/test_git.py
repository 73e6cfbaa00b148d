# SPDX-License-Identifier: Apache-2.0
"""heads/git.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # The centres start at 0: the images are 25 and 1 away from the centre of the other class.
    found = losses("git", [[3, 4, 0], [1, 0, 0]], [1, 0], center_weight=0.0, git_weight=2.0)
    assert [cross_entropy([3, 4, 0]) + 1 / 26, cross_entropy([1, 0, 0], 0) + 1 / 2] == found


def test_a_value_out_of_range_is_refused():
    sentence = "head.git_weight: must be a number from 0, got -1; git_weight 0 disables the push"
    assert refusal("git", git_weight=-1) == sentence
