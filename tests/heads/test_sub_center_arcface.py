# SPDX-License-Identifier: Apache-2.0
"""heads/sub_center_arcface.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import T, cross_entropy, losses, refusal


def test_value_by_hand():
    weight = [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, -1, 0]]
    settings = {"sub_centers": 2, "m2": 0.5, "scale": 2.0}
    expected = cross_entropy([1.2, 2 * math.cos(T + 0.5)])
    assert [expected] == losses("sub_center_arcface", weight=weight, **settings)


def test_a_value_out_of_range_is_refused():
    sentence = "head.sub_centers: must be a whole number from 1 up to 96, got 97; "
    sentence += "the usual number of centres is 3"
    assert refusal("sub_center_arcface", sub_centers=97) == sentence
