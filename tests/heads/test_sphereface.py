# SPDX-License-Identifier: Apache-2.0
"""heads/sphereface.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # cos 2t = 2 c^2 - 1; where 2 t passes pi it goes on downwards, -cos 2t - 2.
    assert [cross_entropy([1.2, 0.56, 0])] == losses("sphereface", m1=2.0, scale=2.0)
    beyond = losses("sphereface", [[0, -3, 4]], m1=2.0, scale=2.0)
    assert [cross_entropy([0, -3.44, 1.6])] == beyond


def test_a_value_out_of_range_is_refused():
    sentence = (
        "head.m1: must be a number above 0 up to 4, got 0; " "factor 1 does not change the angle"
    )
    assert refusal("sphereface", m1=0) == sentence
