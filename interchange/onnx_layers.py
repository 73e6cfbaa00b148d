# SPDX-License-Identifier: Apache-2.0
"""Translation of layers with parameters and of pooling into nodes of ONNX, opset 13."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from interchange.graph import Node
    from interchange.onnx_writer import NodeWriter


def _window(node: Node) -> dict[str, Any]:
    """Return the attributes that convolution and pooling share."""
    return {
        "kernel_shape": list(node.attributes["kernel"]),
        "strides": list(node.attributes["stride"]),
        "pads": list(node.attributes["padding"]) * 2,
    }


def _conv(writer: NodeWriter, node: Node) -> None:
    inputs = [*writer.inputs(node), writer.parameter(node, "weight")]
    if "bias" in node.tensors:
        inputs.append(writer.parameter(node, "bias"))
    dilations, group = list(node.attributes["dilation"]), node.attributes["groups"]
    writer.finish(node, "Conv", inputs, **_window(node), dilations=dilations, group=group)


def _batch_norm(writer: NodeWriter, node: Node) -> None:
    gamma = writer.tensor(node, "gamma")
    if node.attributes.get("fixed_scale"):
        gamma = np.ones_like(gamma)  # MXNet ignores the stored gamma, so its values may be wrong
    inputs = [*writer.inputs(node), writer.parameter(node, "gamma", gamma)]
    inputs += [writer.parameter(node, role) for role in ("beta", "running_mean", "running_var")]
    writer.finish(node, "BatchNormalization", inputs, epsilon=float(node.attributes["epsilon"]))


def _dense(writer: NodeWriter, node: Node) -> None:
    (x,) = writer.inputs(node)
    if writer.rank(node.inputs[0]) != 2:
        x = writer.step(node, "flatten", "Flatten", [x], axis=1)
    bias = [writer.parameter(node, "bias")] if "bias" in node.tensors else []
    writer.finish(node, "Gemm", [x, writer.parameter(node, "weight"), *bias], transB=1)


def _prelu(writer: NodeWriter, node: Node) -> None:
    # ONNX aligns the slopes with the last axes of the input.  So their shape must be (C, 1, 1) for
    # feature maps (B, C, H, W), and (C,) for inputs (B, C).
    ones = [1] * max(writer.rank(node.inputs[0]) - 2, 0)
    slope = writer.parameter(node, "slope", writer.tensor(node, "slope").reshape(-1, *ones))
    writer.finish(node, "PRelu", [*writer.inputs(node), slope])


def _pool(writer: NodeWriter, node: Node) -> None:
    (x,), window = writer.inputs(node), _window(node)
    ceil, is_max = bool(node.attributes["ceil_mode"]), node.attributes["kind"] == "max"
    include = bool(node.attributes["include_padding"])
    if not is_max and include and ceil and any(window["pads"]):
        # With ceil_mode a window may extend beyond the padding.  MXNet's average counts the
        # padding, but no position beyond the padding.  ONNX runtimes differ in what they count.
        # A separate Pad node adds the zeros, so that all runtimes compute MXNet's average.
        height, width = node.attributes["padding"]
        padding = writer.integers(f"{node.name}_padding", [0, 0, height, width] * 2)
        x = writer.step(node, "pad", "Pad", [x, padding])
        window["pads"], include = [0, 0, 0, 0], False
    options = {} if is_max else {"count_include_pad": int(include)}
    op_type = "MaxPool" if is_max else "AveragePool"
    writer.finish(node, op_type, [x], **window, ceil_mode=int(ceil), **options)


def _global_pool(writer: NodeWriter, node: Node) -> None:
    kind = node.attributes["kind"]
    if kind == "sum":
        axes = writer.integers(f"{node.name}_axes", [2, 3])
        writer.finish(node, "ReduceSum", [*writer.inputs(node), axes], keepdims=1)
        return
    op_type = {"max": "GlobalMaxPool", "average": "GlobalAveragePool"}[kind]
    writer.finish(node, op_type, writer.inputs(node))


def _constant(writer: NodeWriter, node: Node) -> None:
    writer.assign(node.name, [writer.parameter(node, "value")])


def _channels(writer: NodeWriter, node: Node, name: str) -> str:
    """Store the scale or the shift of an affine node, and return the name of the initializer.

    The initializer contains one number, or one number per channel.
    """
    value = np.array(node.attributes[name], np.float32)
    if value.ndim:
        value = value.reshape(-1, *[1] * (writer.rank(node.inputs[0]) - 2))
    return writer.initializer(f"{node.name}_{name}", value)


def _affine(writer: NodeWriter, node: Node) -> None:
    (x,) = writer.inputs(node)
    scales, shifts = (np.any(np.array(node.attributes[name]) != identity)
                      for name, identity in (("scale", 1), ("shift", 0)))  # fmt: skip
    if not shifts:
        writer.finish(node, "Mul", [x, _channels(writer, node, "scale")])
        return
    if scales:
        x = writer.step(node, "scaled", "Mul", [x, _channels(writer, node, "scale")])
    writer.finish(node, "Add", [x, _channels(writer, node, "shift")])


LAYERS: Mapping[str, Any] = {
    "conv": _conv,
    "batch_norm": _batch_norm,
    "dense": _dense,
    "prelu": _prelu,
    "pool": _pool,
    "global_pool": _global_pool,
    "constant": _constant,
    "affine": _affine,
}
"""Mapping from an operation of a `Graph` to the function that writes the operation."""
