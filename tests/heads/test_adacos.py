# SPDX-License-Identifier: Apache-2.0
"""heads/adacos.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

import mxnet as mx
import pytest

from heads import build_head
from tests.heads.by_hand import EYE, X, cross_entropy, losses


def test_value_by_hand():
    scale = math.sqrt(2) * math.log(2)
    assert [cross_entropy([0.6 * scale, 0.8 * scale, 0])] == losses("adacos")


def test_a_training_batch_sets_the_scale():
    head = build_head("adacos", 3, 3)
    head.initialize()
    head.weight.set_data(mx.nd.array(EYE))
    scale = math.sqrt(2) * math.log(2)
    with mx.autograd.record():
        head(mx.nd.array(X), mx.nd.array([1]))
    expected = math.log(math.exp(0.6 * scale) + 1) / 0.8
    assert head.scale.data().asscalar() == pytest.approx(expected, rel=1e-5)


def test_two_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes: must be a whole number from 3, got 2"):
        build_head("adacos", 2, 4)
