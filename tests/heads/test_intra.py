# SPDX-License-Identifier: Apache-2.0
"""heads/intra.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import T, cross_entropy, losses, refusal


def test_value_by_hand():
    expected = cross_entropy([1.2, 2 * math.cos(T + 0.5), 0]) + T / math.pi
    assert [expected] == losses("intra", scale=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = "head.intra_weight: must be a number from 0, got -1; the weight in the paper is 1"
    assert refusal("intra", intra_weight=-1) == sentence
