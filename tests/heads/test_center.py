# SPDX-License-Identifier: Apache-2.0
"""heads/center.py: hand-computed values and invalid settings."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from heads import build_head
from tests.heads.by_hand import cross_entropy, losses, refusal


def test_value_by_hand():
    # The centres start at 0, so the term is half of the squared length.
    assert [cross_entropy([3, 4, 0]) + 1.25] == losses("center", center_weight=0.1)


def test_a_centre_follows_its_class():
    head = build_head("center", 3, 3, center_rate=0.5)
    head.initialize()
    with mx.autograd.record():
        head(mx.nd.array([[3, 4, 0], [3, 0, 0]]), mx.nd.array([1, 1]))
    expected = [[0, 0, 0], [1, 4 / 6, 0], [0, 0, 0]]  # rate (sum of x) / (1 + 2)
    assert head.centers.data().asnumpy() == pytest.approx(np.array(expected))


def test_a_value_out_of_range_is_refused():
    sentence = "head.center_rate: must be a number from 0 up to 1, got 2; the usual rate is 0.5"
    assert refusal("center", center_rate=2) == sentence
