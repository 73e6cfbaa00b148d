# SPDX-License-Identifier: Apache-2.0
"""heads/coco.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    scale = math.log(2) / 2 + 3
    assert [cross_entropy([0.6 * scale, 0.8 * scale, 0])] == losses("coco")
    assert [cross_entropy([1.2, 1.6, 0])] == losses("coco", scale=2.0)


def test_a_value_out_of_range_is_refused():
    sentence = (
        "head.scale: must be a number from 0, got -1; "
        "with 0 the scale is computed from the number of classes"
    )
    assert refusal("coco", scale=-1) == sentence
