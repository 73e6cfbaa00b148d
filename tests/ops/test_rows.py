# SPDX-License-Identifier: Apache-2.0
"""Refusals of the operators that read and write rows of a matrix."""

from __future__ import annotations

import mxnet as mx
import pytest

MATRIX = mx.nd.ones((4, 3))


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_outside_of_the_matrix_is_refused_and_nothing_is_written(row):
    rows = mx.nd.array([0, row], dtype="int32")
    with pytest.raises(mx.base.MXNetError, match=f"row numbers must be 0 to 3, got {row}"):
        mx.nd.face_take_rows(MATRIX, rows).wait_to_read()
    with pytest.raises(mx.base.MXNetError, match=f"row numbers must be 0 to 3, got {row}"):
        mx.nd.face_write_rows(MATRIX, rows, mx.nd.zeros((2, 3))).wait_to_read()
    assert MATRIX.asnumpy().all()


def test_wrong_types_and_shapes_are_refused():
    rows = mx.nd.array([0, 1], dtype="int32")
    with pytest.raises(mx.base.MXNetError, match="row numbers must be int32"):
        mx.nd.face_take_rows(MATRIX, mx.nd.array([0.0]))
    with pytest.raises(mx.base.MXNetError, match=r"must be \(C, E\) and row numbers \(m,\)"):
        mx.nd.face_take_rows(MATRIX[0], rows)
    with pytest.raises(mx.base.MXNetError, match=r"values must be \(2, 3\), got \(3, 3\)"):
        mx.nd.face_write_rows(MATRIX, rows, mx.nd.ones((3, 3)))
    with pytest.raises(mx.base.MXNetError, match="values must have the type of the matrix"):
        mx.nd.face_write_rows(MATRIX, rows, mx.nd.ones((2, 3), dtype="float64"))
