# SPDX-License-Identifier: Apache-2.0
"""heads/magface.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from heads.magface import MagFace
from tests.heads.by_hand import T, cross_entropy, losses, refusal

LENGTHS = {"low": 1.0, "high": 9.0, "least": 0.4, "most": 0.8, "length_weight": 2.0}


def test_value_by_hand():
    # A length of 5 is half way: a margin of 0.6.
    expected = cross_entropy([1.2, 2 * math.cos(T + 0.6), 0]) + 2 * (5 / 81 + 1 / 5)
    assert [expected] == losses("magface", scale=2.0, **LENGTHS)


def test_pairs_that_are_not_in_order_are_refused():
    high = "head.high: must be a number above 10, got 5; the usual norm is 110"
    assert refusal("magface", high=5) == high
    most = "head.most: must be a number from 0.45 up to 1.5708, got 0.1; the usual margin is 0.8"
    assert refusal("magface", most=0.1) == most
    assert [key for key, _ in MagFace.problems({**LENGTHS, "high": 1, "most": 0})] == [
        "high",
        "most",
    ]


def test_a_value_out_of_range_is_refused():
    sentence = "head.length_weight: must be a number from 0, got -1; the usual weight is 35"
    assert refusal("magface", length_weight=-1) == sentence
