# SPDX-License-Identifier: Apache-2.0
"""Reading and writing rows of class centres with fused and with plain operators."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

import ops
from heads.centre_rows import take_rows, write_rows

ROWS = np.array([0, 3, 4], np.int32)


@pytest.fixture(params=["plain", "auto"], autouse=True)
def operators(request):
    ops.use(request.param)
    yield
    ops.use("plain")


@pytest.fixture(params=["float32", "float64"])
def matrix(request):
    return np.random.default_rng(0).normal(size=(6, 5)).astype(request.param)


def test_rows_are_read_in_the_given_order(matrix):
    taken = take_rows(
        mx.nd.array(matrix, dtype=matrix.dtype), mx.nd.array(ROWS[::-1], dtype="int32")
    )
    assert taken.dtype == matrix.dtype
    assert np.array_equal(taken.asnumpy(), matrix[ROWS[::-1]])


def test_only_the_given_rows_are_written(matrix):
    array, values = mx.nd.array(matrix, dtype=matrix.dtype), np.ones((3, 5), matrix.dtype)
    write_rows(array, mx.nd.array(ROWS, dtype="int32"), mx.nd.array(values, dtype=matrix.dtype))
    matrix[ROWS] = 1.0
    assert np.array_equal(array.asnumpy(), matrix)
