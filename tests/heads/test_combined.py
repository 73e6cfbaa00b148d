# SPDX-License-Identifier: Apache-2.0
"""heads/combined.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import T, cross_entropy, losses, refusal


def test_value_by_hand():
    expected = cross_entropy([1.2, 2 * (math.cos(T + 0.3) - 0.2), 0])
    assert [expected] == losses("combined", scale=2.0)
    expected = cross_entropy([1.2, 2 * (math.cos(1.5 * T + 0.3) - 0.2), 0])
    assert [expected] == losses("combined", m1=1.5, scale=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.m3: must be a number from 0 up to 1, got 2; the usual margin is 0.35"
    assert refusal("combined", m3=2) == sentence
