# SPDX-License-Identifier: Apache-2.0
"""heads/normface.py: hand-computed values and invalid settings."""

from __future__ import annotations

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    assert [cross_entropy([1.2, 1.6, 0])] == losses("normface", scale=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.scale: must be a number above 0, got 0; the usual scale is 30 to 64"
    assert refusal("normface", scale=0) == sentence
