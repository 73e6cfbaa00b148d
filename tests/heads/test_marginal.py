# SPDX-License-Identifier: Apache-2.0
"""heads/marginal.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

import pytest

from tests.heads.by_hand import losses, refusal


@pytest.mark.parametrize(
    ("second", "label", "added"),
    [
        ([0, 1, 0], [0, 0], 0.3 - (1.2 - 2)),  # one person at right angles
        ([0, 1, 0], [0, 1], 0),  # two people
        ([2, 0, 0], [0, 1], 0.3 + 1.2),  # two people at one place
    ],
)
def test_value_by_hand(second, label, added):
    found = losses("marginal", [[1, 0, 0], second], label, [[0, 0, 0]] * 3)
    assert [math.log(3) + added] * 2 == found


def test_a_value_out_of_range_is_refused():
    sentence = "head.theta: must be a number from 0 up to 4, got 5; the usual theta is 1.2"
    assert refusal("marginal", theta=5) == sentence
