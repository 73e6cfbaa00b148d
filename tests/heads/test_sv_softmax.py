# SPDX-License-Identifier: Apache-2.0
"""heads/sv_softmax.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # psi = 0.45: class 0 is above it, class 2 is not.
    assert [cross_entropy([1.84, 0.9, 0])] == losses("sv_softmax", scale=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.t: must be a number from 1 up to 10, got 0.5; the usual stress is 1.2"
    assert refusal("sv_softmax", t=0.5) == sentence
