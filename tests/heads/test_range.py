# SPDX-License-Identifier: Apache-2.0
"""heads/range.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import losses, refusal


def test_value_by_hand():
    x, label = [[0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 5, 0]], [0, 0, 1, 1]
    # Within each person 4; the means (1, 0, 0) and (0, 4, 0) are 17 apart.
    added = 0.5 * (4 + 4) + 1.0 * (20 - 17)
    settings = {"intra_weight": 0.5, "inter_weight": 1.0, "margin": 20.0}
    found = losses("range", x, label, [[0, 0, 0]] * 3, **settings)
    assert [math.log(3) + added] * 4 == found


def test_a_value_out_of_range_is_refused():
    sentence = (
        "head.largest: must be a whole number from 1 up to 8, got 9; "
        "the number in the paper is 2"
    )
    assert refusal("range", largest=9) == sentence
