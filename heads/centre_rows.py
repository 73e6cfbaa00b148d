# SPDX-License-Identifier: Apache-2.0
"""Read and write some rows of the class centres, with fused or with plain MXNet operators.

Shapes: n is the number of rows of the array, m the number of rows to read or write, E the number of
dimensions of an embedding.
"""

import mxnet as mx

import ops


def take_rows(array: mx.nd.NDArray, rows: mx.nd.NDArray) -> mx.nd.NDArray:
    """Return copies of some rows.

    Inputs
    ------
    array : (n, E)
    rows : (m,) int32
        Row numbers.

    Outputs
    -------
    (m, E)
    """
    if _fused_for(array):
        return mx.nd.face_take_rows(array, rows)
    return mx.nd.take(array, rows, mode="clip")


def write_rows(array: mx.nd.NDArray, rows: mx.nd.NDArray, values: mx.nd.NDArray) -> None:
    """Write values to some rows of an array in place.

    Inputs
    ------
    array : (n, E)
    rows : (m,) int32
        Row numbers, all different.
    values : (m, E)
    """
    if _fused_for(array):
        mx.nd.face_write_rows(array, rows, values)
        return
    mx.nd._internal._scatter_set_nd(
        lhs=array, rhs=values, indices=rows.expand_dims(axis=0), shape=array.shape, out=array
    )


def _fused_for(array: mx.nd.NDArray) -> bool:
    # The operators face_take_rows and face_write_rows have no GPU version, because MXNet's own
    # operators for this purpose are fast on a GPU.
    return ops.fused() and array.context.device_type == "cpu"
