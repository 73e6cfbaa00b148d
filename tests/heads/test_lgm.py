# SPDX-License-Identifier: Apache-2.0
"""heads/lgm.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # Half of the squared distances: 10, 9 and 13.
    expected = cross_entropy([-10, -13.5, -13]) + 9
    assert [expected] == losses("lgm", alpha=0.5, likelihood_weight=1.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.alpha: must be a number from 0, got -1; the usual margin is 0.01 to 1"
    assert refusal("lgm", alpha=-1) == sentence
