# SPDX-License-Identifier: Apache-2.0
"""heads/contrastive.py: hand-computed values and invalid settings."""

from __future__ import annotations

import pytest

from tests.heads.by_hand import losses, refusal


@pytest.mark.parametrize(
    ("second", "label", "expected"),
    [
        ([0, 2], [0, 0], 1.0),  # d^2 = 2
        ([0, 2], [0, 1], 0.0),  # beyond the margin
        ([2, 0], [0, 1], (1 - 1e-5) ** 2 / 2),  # at one place
    ],
)
def test_value_by_hand(second, label, expected):
    assert [expected] * 2 == losses("contrastive", [[1, 0], second], label)


def test_a_value_out_of_range_is_refused():
    sentence = "head.margin: must be a number above 0 up to 2, got 0; the usual margin is 1"
    assert refusal("contrastive", margin=0) == sentence
