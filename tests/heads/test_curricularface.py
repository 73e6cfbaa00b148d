# SPDX-License-Identifier: Apache-2.0
"""heads/curricularface.py: hand-computed values and invalid settings."""

from __future__ import annotations

import math

import mxnet as mx
import pytest

from heads import build_head
from tests.heads.by_hand import EYE, T, X, cross_entropy, losses, refusal


def test_value_by_hand():
    # psi = 0.414: class 0 is above it and has 0.6 (t + 0.6), t = 0 at first.
    expected = cross_entropy([0.72, 2 * math.cos(T + 0.5), 0])
    assert [expected] == losses("curricularface", scale=2.0)


def test_t_is_the_running_mean_of_the_cosine():
    head = build_head("curricularface", 3, 3, momentum=0.5)
    head.initialize()
    head.weight.set_data(mx.nd.array(EYE))
    with mx.autograd.record():
        head(mx.nd.array(X), mx.nd.array([1]))
    assert head.t.data().asscalar() == pytest.approx(0.4)


def test_a_value_out_of_range_is_refused():
    sentence = "head.guarded_threshold: must be true or false, got 0"
    assert refusal("curricularface", guarded_threshold=0) == sentence
