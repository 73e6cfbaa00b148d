# SPDX-License-Identifier: Apache-2.0
"""Parts of an array get the initial values that they have in the complete array."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from heads import normal_rows
from heads.normal_rows import NormalRows


def drawn(initializer, rows):
    mx.random.seed(5)
    array = mx.nd.empty((rows, 3))
    initializer._init_weight("weight", array)
    return array.asnumpy()


@pytest.mark.parametrize("block_rows", [4, 5, 100])
def test_the_parts_of_all_ranks_make_the_complete_array(block_rows, monkeypatch):
    monkeypatch.setattr(normal_rows, "BLOCK_ROWS", block_rows)
    complete = drawn(NormalRows(0.5), 11)
    parts = [
        drawn(NormalRows(0.5).part(start, 11), rows) for start, rows in ((0, 4), (4, 4), (8, 3))
    ]
    assert np.array_equal(np.concatenate(parts), complete)
    assert 0.2 < complete.std() < 0.9


def test_a_small_array_equals_that_of_mxnets_initializer():
    mx.random.seed(5)
    array = mx.nd.empty((11, 3))
    mx.init.Normal(0.5)._init_weight("weight", array)
    assert np.array_equal(drawn(NormalRows(0.5), 11), array.asnumpy())


def test_a_part_beyond_the_complete_array_is_zero():
    assert not drawn(NormalRows(0.5).part(11, 11), 1).any()
