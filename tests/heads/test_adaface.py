# SPDX-License-Identifier: Apache-2.0
"""heads/adaface.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

import mxnet as mx
import pytest

from heads import build_head
from tests.heads.by_hand import T, cross_entropy, losses, refusal


def test_value_by_hand():
    quality = 0.333 * (5 - 20) / 100.001  # with the first mean and deviation
    psi = math.cos(T - 0.4 * quality) - 0.4 * (1 + quality)
    assert [cross_entropy([1.2, 2 * psi, 0])] == losses("adaface", scale=2.0)


def test_lengths_move_in_training_alone():
    head = build_head("adaface", 3, 3, momentum=0.25)
    head.initialize()
    x, label = mx.nd.array([[3, 4, 0], [0, 0, 1]]), mx.nd.array([1, 2])
    head(x, label)
    assert head.lengths.data().asnumpy().tolist() == [20, 100]
    with mx.autograd.record():
        head(x, label)
    # Lengths 5 and 1: mean 3, deviation 2.
    expected = [20 + 0.25 * (3 - 20), 100 + 0.25 * (2 - 100)]
    assert head.lengths.data().asnumpy().tolist() == pytest.approx(expected)


def test_a_value_out_of_range_is_refused():
    sentence = "head.momentum: must be a number above 0 up to 1, got 0; the usual momentum is 0.01"
    assert refusal("adaface", momentum=0) == sentence
