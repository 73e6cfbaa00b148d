# SPDX-License-Identifier: Apache-2.0
"""heads/arcface.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import T, cross_entropy, losses, refusal


def test_value_by_hand():
    expected = cross_entropy([1.2, 2 * math.cos(T + 0.5), 0])
    assert [expected] == losses("arcface", m2=0.5, scale=2.0)


def test_the_guard_beyond_pi_less_the_margin():
    psi = -1 - 0.5 * math.sin(0.5)
    assert [cross_entropy([0, 2 * psi, 0])] == losses("arcface", [[0, -3, 0]], scale=2.0)


def test_an_easy_margin_ends_at_a_right_angle():
    easy = losses("arcface", [[-4, -3, 0]], scale=2.0, easy_margin=True)
    assert [cross_entropy([-1.6, -1.2, 0])] == easy


def test_a_value_out_of_range_is_refused():
    sentence = (
        "head.m2: must be a number from 0 up to 1.5708, got 2.0; the usual margin is 0.5 radians"
    )
    assert refusal("arcface", m2=2.0) == sentence
