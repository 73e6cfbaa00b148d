# SPDX-License-Identifier: Apache-2.0
"""heads/n_pair.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import losses, refusal


def test_value_by_hand():
    # Products: 2 of the positives, 0 with the negative.
    pair = math.log1p(math.exp(-2))
    found = losses("n_pair", [[1, 0], [2, 0], [0, 1]], [0, 0, 1], length_weight=0.5)
    assert [pair + 0.5, pair + 2, 0] == found


def test_a_value_out_of_range_is_refused():
    sentence = "head.length_weight: must be a number from 0, got -1; the usual weight is 0.002"
    assert refusal("n_pair", length_weight=-1) == sentence
