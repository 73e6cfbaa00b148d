# SPDX-License-Identifier: Apache-2.0
"""heads/angular_triplet.py: hand-computed values and invalid settings."""

from __future__ import annotations

import pytest

from tests.heads.by_hand import losses, refusal


@pytest.mark.parametrize("mining", ["semi_hard", "hard"])
def test_value_by_hand(mining):
    # The second is at a right angle to both.
    found = losses("angular_triplet", [[1, 0], [0, 2], [-3, 0]], [0, 0, 1], mining=mining)
    assert [0, 0.35, 0] == found


def test_a_value_out_of_range_is_refused():
    sentence = "head.margin: must be a number above 0 up to 3.14159, got 4"
    assert refusal("angular_triplet", margin=4) == f"{sentence}; the usual margin is 0.35 radians"
