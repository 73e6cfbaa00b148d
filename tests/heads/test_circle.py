# SPDX-License-Identifier: Apache-2.0
"""heads/circle.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # (c + m)(c - m) of the others, (1.25 - c)(c - 0.75) of the true class.
    assert [cross_entropy([0.595, 0.045, -0.125])] == losses("circle", scale=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.m: must be a number from 0 up to 1, got 2; the usual margin is 0.25"
    assert refusal("circle", m=2) == sentence
