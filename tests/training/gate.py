# SPDX-License-Identifier: Apache-2.0
"""Device work that a test ends by opening a gate."""

from __future__ import annotations

import threading

import mxnet as mx

TIMEOUT_S = 120
OPEN = threading.Event()
"""Arrays of `gated` are ready after this event is set."""


class Gate(mx.operator.CustomOp):
    """Identity operator that waits for the gate."""

    def forward(self, is_train, req, in_data, out_data, aux):
        OPEN.wait(TIMEOUT_S)
        self.assign(out_data[0], req[0], in_data[0])

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        self.assign(in_grad[0], req[0], out_grad[0])


@mx.operator.register("test_gate")
class GateProperties(mx.operator.CustomOpProp):
    """Properties of the identity operator."""

    def infer_shape(self, in_shape):
        return in_shape, in_shape, []

    def create_operator(self, ctx, shapes, dtypes):
        return Gate()


def gated(array: mx.nd.NDArray) -> mx.nd.NDArray:
    """Return a copy of an array that is ready after the gate is open."""
    return mx.nd.Custom(array, op_type="test_gate")
