# SPDX-License-Identifier: Apache-2.0
"""heads/triplet.py: hand-computed values and invalid settings."""

from __future__ import annotations

import pytest

from tests.heads.by_hand import losses, refusal

CORNERS = [[1, 0], [0, 2], [-3, 0]], [0, 0, 1]


@pytest.mark.parametrize("mining", ["semi_hard", "hard"])
def test_value_by_hand(mining):
    # The negative is 4 from the first and 2 from the second, as the positives are from each other.
    assert [0, 0.3, 0] == losses("triplet", *CORNERS, mining=mining)
    assert [0.5, 2.5, 0] == losses("triplet", *CORNERS, mining=mining, margin=2.5)


def test_blocks_are_anchors_positives_and_negatives():
    # Three times the loss of the triplet, so that the mean over the batch is that of the triplets.
    found = losses("triplet", [[1, 0], [0, 2], [-3, 0]], [0, 0, 1], mining="blocks", margin=2.5)
    assert [3 * 0.5, 0, 0] == found
    with pytest.raises(ValueError) as refused:
        losses("triplet", [[1, 0]] * 8, [0] * 8, mining="blocks")
    assert str(refused.value) == (
        "head.mining: 'blocks' needs equal numbers of anchors, positives and negatives, got a "
        "batch of 8 images; use a batch size that is a multiple of 3"
    )


def test_a_value_out_of_range_is_refused():
    sentence = "head.mining: must be one of 'semi_hard', 'hard', 'blocks', got 'easy'"
    assert refusal("triplet", mining="easy") == sentence
