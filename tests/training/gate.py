# SPDX-License-Identifier: Apache-2.0
"""Work of the device that takes as long as a test says."""

from __future__ import annotations

import threading

import mxnet as mx

PATIENCE_SECONDS = 120
OPEN = threading.Event()
"""While it is not set, what `gated` returns is not ready."""


class Gate(mx.operator.CustomOp):
    """Passes its input on once the gate is open."""

    def forward(self, is_train, req, in_data, out_data, aux):
        OPEN.wait(PATIENCE_SECONDS)
        self.assign(out_data[0], req[0], in_data[0])

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        self.assign(in_grad[0], req[0], out_grad[0])


@mx.operator.register("test_gate")
class GateProperties(mx.operator.CustomOpProp):
    """Input and output are alike."""

    def infer_shape(self, in_shape):
        return in_shape, in_shape, []

    def create_operator(self, ctx, shapes, dtypes):
        return Gate()


def gated(array: mx.nd.NDArray) -> mx.nd.NDArray:
    """Return an array that is ready once the gate is open."""
    return mx.nd.Custom(array, op_type="test_gate")
