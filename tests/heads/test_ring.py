# SPDX-License-Identifier: Apache-2.0
"""heads/ring.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    expected = cross_entropy([3, 4, 0]) + 0.25 * (5 - 2) ** 2
    assert [expected] == losses("ring", ring_weight=0.5, radius=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.radius: must be a number above 0, got 0; the usual radius is 20"
    assert refusal("ring", radius=0) == sentence
