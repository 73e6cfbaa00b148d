# SPDX-License-Identifier: Apache-2.0
"""heads/cosface.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    assert [cross_entropy([1.2, 1.0, 0])] == losses("cosface", m3=0.3, scale=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.m3: must be a number from 0 up to 1, got -0.1; the usual margin is 0.35"
    assert refusal("cosface", m3=-0.1) == sentence
