# SPDX-License-Identifier: Apache-2.0
"""heads/mps.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import losses, refusal


def test_value_by_hand():
    # The positives are at right angles, the negative is at one to the second.
    assert [0.5, 0.5, 0] == losses("mps", [[1, 0], [0, 2], [-3, 0]], [0, 0, 1])


def test_a_value_out_of_range_is_refused():
    sentence = "head.margin: must be a number above 0 up to 2, got 3; the usual margin is 0.5"
    assert refusal("mps", margin=3) == sentence
