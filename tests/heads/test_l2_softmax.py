# SPDX-License-Identifier: Apache-2.0
"""heads/l2_softmax.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    assert [cross_entropy([1.8, 2.4, 0])] == losses("l2_softmax", scale=3.0)
    least = math.log(9)  # reaches a probability of 0.9 among three classes
    assert [cross_entropy([0.6 * least, 0.8 * least, 0])] == losses("l2_softmax")


def test_a_scale_that_is_too_small_is_refused():
    assert refusal("l2_softmax", scale=1.0) == (
        "head.scale: must be a number from 3.807, got 1.0; with a smaller scale, none "
        "of 7 classes can reach probability 0.9"
    )
