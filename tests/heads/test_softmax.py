# SPDX-License-Identifier: Apache-2.0
"""heads/softmax.py: hand-computed values and invalid settings."""

from __future__ import annotations

import mxnet as mx
import pytest

from heads import build_head
from tests.heads.by_hand import EYE, X, cross_entropy, losses, refusal


def test_value_by_hand():
    assert [cross_entropy([3, 4, 0])] == losses("softmax")


def test_biases_are_added_to_the_products():
    head = build_head("softmax", 3, 3, use_bias=True)
    head.initialize()
    head.weight.set_data(mx.nd.array(EYE))
    head.bias.set_data(mx.nd.array([1, -1, 0]))
    loss, cosine = head(mx.nd.array(X), mx.nd.array([1]))
    assert loss.asscalar() == pytest.approx(cross_entropy([4, 3, 0]), rel=1e-5)
    assert cosine.asscalar() == pytest.approx(0.8)


def test_a_value_out_of_range_is_refused():
    sentence = "head.use_bias: must be true or false, got 'yes'; write it without quotes"
    assert refusal("softmax", use_bias="yes") == sentence
