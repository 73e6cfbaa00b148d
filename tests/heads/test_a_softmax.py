# SPDX-License-Identifier: Apache-2.0
"""heads/a_softmax.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # The true class: half way from c = 0.8 to cos 2t = 0.28, times the length.
    assert [cross_entropy([3, 2.7, 0])] == losses("a_softmax", m1=2, lambda_min=1.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.m1: must be a whole number from 1 up to 4, got 5; the paper uses 4; "
    assert refusal("a_softmax", m1=5) == f"{sentence}head.name=sphereface accepts fractions"
